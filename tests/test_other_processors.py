"""Hold other processors to: the same bits of features and of the scores of a bundle; of a new fit, nearly the same.

Processes are told to use the instructions of other processors: BLAS by `OPENBLAS_CORETYPE`, NumPy by
`NPY_DISABLE_CPU_FEATURES`, Numba by `NUMBA_CPU_NAME`. Run by itself, this file is what these processes do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.features.panel import build_panel
from tiermodel.predict.table import predict
from tiermodel.training.train import train
from worlds import LAST_DAY, TrainedWorld

NEAR = 1e-3  # of a risk; law 8 of the design
OLD = {"OPENBLAS_CORETYPE": "Prescott", "NUMBA_CPU_NAME": "generic"}
MIDDLE = {"OPENBLAS_CORETYPE": "Haswell"}


def work(project: Project, bundle: Path, out: Path, *, fit: bool) -> None:
    """Write the features of two dates, the inputs and scores that the bundle makes of them, and those of a new fit."""
    dates = [LAST_DAY + timedelta(1), LAST_DAY - timedelta(200)]
    frame, given = build_panel(project, dates), load_bundle(bundle)
    np.save(out / "inputs.npy", given.inputs.matrix(frame))
    frame.to_parquet(out / "features.parquet")
    predict(given, frame).to_parquet(out / "scores.parquet")
    if fit:
        predict(train(project).bundle, frame).to_parquet(out / "new.parquet")


def disabled(*wanted: str) -> str:
    """Name the instructions to do without, as far as this processor and this NumPy have them."""
    from numpy._core._multiarray_umath import (  # type: ignore[import-not-found]  # noqa: PLC0415
        __cpu_dispatch__,
        __cpu_features__,
    )

    return " ".join(name for name in __cpu_dispatch__ if __cpu_features__.get(name) and name.startswith(wanted))


@pytest.fixture(scope="module")
def here(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("here")
    work(trained.project, trained.bundle, folder, fit=False)
    return folder


@pytest.mark.parametrize(
    "processor",
    [
        pytest.param({**OLD, "NPY_DISABLE_CPU_FEATURES": disabled("X86", "AVX")}, id="old"),
        pytest.param({**MIDDLE, "NPY_DISABLE_CPU_FEATURES": disabled("X86_V4", "AVX512")}, id="without AVX-512"),
    ],
)
def test_bits_of_a_bundle_and_risks_of_a_fit(
    processor: dict[str, str], trained: TrainedWorld, here: Path, tmp_path: Path
) -> None:
    (tmp_path / "project.json").write_text(trained.project.model_dump_json(exclude_none=True))
    words = [sys.executable, __file__, str(tmp_path / "project.json"), str(trained.bundle), str(tmp_path)]
    subprocess.run(words, env={**os.environ, **processor}, check=True, timeout=300)  # noqa: S603  our own words
    assert (tmp_path / "inputs.npy").read_bytes() == (here / "inputs.npy").read_bytes()
    for name in ("features.parquet", "scores.parquet"):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / name), pd.read_parquet(here / name), check_exact=True)
    fitted, given = pd.read_parquet(tmp_path / "new.parquet"), pd.read_parquet(here / "scores.parquet")
    assert fitted["tier_code"].equals(given["tier_code"])
    risks = ["churn_risk", "upgrade_potential", *(name for name in given.columns if name.startswith("p_"))]
    assert (fitted[risks] - given[risks]).abs().max().max() <= NEAR
    assert np.allclose(fitted["expected_value"], given["expected_value"], rtol=NEAR, atol=0.01, equal_nan=True)


if __name__ == "__main__":
    _, settings, model, target = sys.argv
    work(Project.model_validate(json.loads(Path(settings).read_text())), Path(model), Path(target), fit=True)
