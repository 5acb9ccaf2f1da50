"""Hold small and odd companies to: a model with predictions in range, or a refusal that check and train give alike.

The benchmark `fuzz_small_companies.py` takes sixty of them through the same line, with all trees.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from small_companies import KINDS, Company, outcome_of
from worlds import quick_fits

pytestmark = pytest.mark.usefixtures("compiled")


@pytest.mark.parametrize(
    ("seed", "becomes"),
    [
        (2, "model of 420 customers; backtest a backtest needs 84 days"),  # closed
        (3, "refused 0 customers bought twice or more; at least 50 are needed"),  # one order each
        (5, "refused 0 buying customers; at least 100 are needed"),  # returns only
        (6, "refused 26 customer snapshots brought more than nothing"),  # all returned
        (8, "refused 0 customer snapshots brought more than nothing"),  # millionths
        (11, "model of 149 customers"),  # a market day a month
        (17, "refused 237 days of history; at least 360 are needed"),
        (22, "model of 481 customers"),  # one product
        (24, "model of 279 customers; backtest ['2023-04-08']"),  # billions
        (29, "refused 0 of 566 customer snapshots churned"),
        (30, "model of 135 customers; backtest value: 47 customer snapshots bought"),
        (34, "model of 112 customers; backtest ['2023-03-04']"),  # a fee every fourth week
    ],
)
def test_each_gets_a_model_or_a_named_refusal(seed: int, becomes: str, tmp_path: Path) -> None:
    with quick_fits():
        assert outcome_of(Company.make(seed), tmp_path).startswith(becomes)


def test_companies_are_the_same_every_time_and_of_every_kind() -> None:
    assert Company.make(4).rows.equals(Company.make(4).rows)
    made = [Company.make(seed) for seed in range(len(KINDS))]
    assert [company.project.name.rsplit("-", 1)[0] for company in made] == list(KINDS)
    assert all(company.rows["customer"].nunique() <= 600 for company in made)
