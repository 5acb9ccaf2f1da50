"""Tables on narrow terminals: columns that matter, else records; never a column folded letter by letter."""

from __future__ import annotations

import re
import sys

import pytest

from tiermodel.cli import tables
from tiermodel.cli.tables import print_table

ROWS = [
    {"target": "churn", "metric": "log_loss", "against": "logistic_rfm", "as_of": "2023-02-01", "low": -0.1, "n": 257}
    | {f"further_figure_{n}": n / 7 for n in range(6)},
]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> object:
    def narrow(*given: object, columns: int = 80) -> str:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        print_table(*given)  # type: ignore[arg-type]
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return narrow


@pytest.mark.parametrize("columns", [60, 80, 100, 300])
def test_columns_that_matter_stay_and_the_others_are_named(printed: object, columns: int) -> None:
    out = printed("Compared", ROWS, "en", ("target", "metric", "low"), columns=columns)  # type: ignore[operator]
    assert max(map(len, out.splitlines()[:-1])) <= columns
    assert all(word in out for word in ("churn", "log_loss", "-0.1000"))
    left = out.splitlines()[-1] if "left out" in out else ""
    for name in ROWS[0]:
        assert name in left or name[:10] in out
    assert ("further_figure_5" in left) == (columns < 200)


def test_rows_that_cannot_be_narrowed_are_records(printed: object) -> None:
    out = printed("Compared", ROWS)  # type: ignore[operator]
    assert "  further_figure_5: 0.7143" in out
    assert "┃" not in out
    wide = [{"name": "a b " * 40, "n": 1}]  # one long text can be folded at its blanks
    assert "┃" in printed("One", wide)  # type: ignore[operator]


def test_digits_tell_something() -> None:
    assert [tables._cell(value) for value in (0.12345, 600.0, -0.00001, 1e7 / 3)] == [
        "0.1235", "600", "-1.0e-05", "3,333,333",
    ]  # fmt: skip
