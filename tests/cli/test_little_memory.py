"""A shell that allows a process few addresses: said in one line, where libraries would end the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tiermodel.errors import OutputError
from tiermodel.tables.scratch import LIBRARIES, refuse_little_memory


@pytest.mark.parametrize("limit", ["300000", "900000", "1900000"])
def test_a_limit_on_addresses_is_said_with_what_it_takes(limit: str) -> None:
    command = f"ulimit -v {limit}; exec {sys.executable} -m tiermodel show schemes"
    ran = subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, check=False)  # noqa: S603
    assert (ran.returncode, ran.stdout) == (7, "")
    assert f"(ulimit -v {limit}), and this takes 2.5 GB: run ulimit -v 2441407" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_the_memory_for_data_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = LIBRARIES + 700_000_000
    monkeypatch.setattr("resource.getrlimit", lambda _: (allowed, allowed))
    refuse_little_memory(700_000_000)
    with pytest.raises(OutputError, match=r"takes 4\.0 GB: run ulimit -v 3906250, or set data\.memory: 700MB"):
        refuse_little_memory(1_500_000_000)
