"""Whoever stops buying reaches the tier that the rules give, with a ledger and grading dates as without."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.features.panel import build_panel
from tiermodel.ledger.calendar import before_scoring
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import graded_rows, position_in
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset
from tiermodel.tiers.stability.grading import grade
from worlds import LAST_DAY, small_project, small_world

END = LAST_DAY + timedelta(1)
RULE = Stability(
    up=Upgrade(band=0.10, confirmations=2), down=Downgrade(band=0.15, confirmations=2, min_stay_days=60, grace_days=30)
)
SETTLED = 365 + 30 + 2 * 31 + 31  # window, grace, two gradings to confirm, and the wait for a grading
STEADY = 5  # scorings for which the rules have said the same: longer than grace and confirmations


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Return snapshots every 20 days from the end of the log on: everybody has stopped buying; some carry a flag."""
    project = small_project(small_world(tmp_path_factory.mktemp("stop") / "transactions.parquet", customers=150))
    found = build_panel(project, [END + timedelta(20 * k) for k in range(SETTLED // 20 + STEADY)])
    return found.assign(attribute_strategic=(found["customer_id"].str[-1] == "7").astype(float))


@pytest.mark.parametrize("name", ["five_levels", "pyramid", "kaism", "four_indicators"])
def test_whoever_stops_buying_comes_down_in_a_ledger_too(name: str, panel: pd.DataFrame, tmp_path: Path) -> None:
    scheme = load_preset(name, (60, 365)).model_copy(update={"stability": RULE})
    dates = sorted(panel["as_of"].unique())
    first = panel[panel["as_of"] == dates[0]].reset_index(drop=True)
    fitted = fit_scheme(scheme, first, first, 7)
    codes, levels, texts = scheme.codes, [], dict.fromkeys(("reason_1", "reason_2", "reason_3"), "x")
    for day in dates:
        frame = panel[panel["as_of"] == day].reset_index(drop=True)
        book = Ledger(tmp_path / "ledger")
        before = before_scoring(book, day.date(), "monthly")
        graded = grade(fitted, frame, None, position_in(before, frame["customer_id"], codes))
        levels.append(fitted.assign(frame)[0])
        if before.grades:
            ids = frame[["customer_id"]].assign(**texts, scheme_version="s", model_version="m")
            told = pa.RecordBatch.from_pandas(ids)
            book.append(day.date(), pa.Table.from_batches([graded_rows(told, graded, codes, before)]))
    steady = (np.array(levels[-STEADY:]) == levels[-1]).all(axis=0)
    assert steady.mean() > 0.5
    np.testing.assert_array_equal(graded.tier[steady], levels[-1][steady])
    assert len(Ledger(tmp_path / "ledger").graded) < len(dates)  # some of the scorings were no gradings
