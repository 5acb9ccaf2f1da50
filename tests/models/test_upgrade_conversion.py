"""Upgrade potential and the conversion of prospects: labels by hand, known truth, out of time, in every output."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiermodel.backtesting.backtest as backtest_module
import tiermodel.backtesting.tiers as backtest_tiers
from tiermodel.backtesting.backtest import Backtest, backtest
from tiermodel.bundle.bundle import Bundle, load_bundle, save_bundle
from tiermodel.config.project import Project, load_project
from tiermodel.config.targets import LifetimeValue
from tiermodel.datasets.synthetic import make_world
from tiermodel.evaluation.metrics import auc, log_loss
from tiermodel.features.frame import has_bought
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import build_panel
from tiermodel.models.calibrated_ensemble import fit_calibrated_ensemble, group_rates
from tiermodel.models.calibration.logit import fit_calibration
from tiermodel.models.future_tier import p_above
from tiermodel.models.upgrade import TierLabels, can_rise, fit_upgrade, p_upgrade, stayed_above
from tiermodel.predict import predict, score
from tiermodel.training.train import fit_bundle
from worlds import TrainedWorld, quick_fits, small_project

AS_OF = date(2023, 6, 1)
SPAN, STAY = 60, 30


# the label


def snapshots(levels: list[list[int]], every: int) -> tuple[pd.DataFrame, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Lay out each customer's levels, `every` days apart, as rows of a panel."""
    rows = [(f"c{c}", k, level) for c, of in enumerate(levels) for k, level in enumerate(of)]
    days = pd.Timestamp("2022-01-01") + pd.to_timedelta([every * k for _, k, _ in rows], unit="D")
    frame = pd.DataFrame({"customer_id": [c for c, _, _ in rows], "as_of": days.astype("datetime64[s]")})
    return frame, np.array([level for *_, level in rows], dtype=np.int64)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=7), min_size=1, max_size=5))
def test_an_upgrade_is_to_be_higher_at_the_end_and_after_the_stay(levels: list[list[int]]) -> None:
    project = small_project(Path("unused.parquet"), upgrade={"stay_days": STAY})
    frame, level = snapshots(levels, 30)
    found = iter(stayed_above(frame, level, Labels.of(project)))
    for of in levels:
        for k, now in enumerate(of):
            wanted = np.nan if k + 3 >= len(of) else float(of[k + 2] > now and of[k + 3] > now)
            np.testing.assert_equal(next(found), wanted)
    assert Labels.of(project).upgrade_delay_days == SPAN + STAY


def test_who_can_rise_is_a_buyer_below_the_top() -> None:
    frame = pd.DataFrame({"days_since_last": [3.0, 3.0, np.nan]})
    assert can_rise(frame, np.array([2, 3, 0]), 4).tolist() == [True, False, False]


# the chance


@given(
    st.lists(st.lists(st.floats(0.01, 1), min_size=4, max_size=4), min_size=1, max_size=8),
    st.floats(0.0, 1.0),
)
def test_potential_is_the_forecast_times_who_stays_and_keeps_its_order(
    weights: list[list[float]], stays: float
) -> None:
    forecast = np.array(weights)
    forecast /= forecast.sum(axis=1, keepdims=True)
    for tier in range(4):
        here = np.full(len(forecast), tier)
        plain, found = (p_upgrade(forecast, here, share) for share in (1.0, stays))
        np.testing.assert_allclose(plain, p_above(forecast, here), atol=1e-12)
        np.testing.assert_allclose(found, plain * stays, atol=1e-12)
        assert ((found >= 0) & (found <= 1)).all()
        assert (np.diff(found[np.argsort(plain)]) >= 0).all()
        assert tier < 3 or not found.any()  # nothing is above the highest


def test_the_share_who_stay_is_that_of_those_who_rose_and_of_what_was_known() -> None:
    project = small_project(Path("unused.parquet"), upgrade={"stay_days": STAY})
    labels = Labels.of(project)
    stay, fall = [0, 0, 1, 1, 1, 1, 1], [0, 0, 1, 0, 0, 0, 0]
    frame, level = snapshots([stay] * 60 + [fall] * 20, 30)
    frame["days_since_last"] = 3.0
    tiers = TierLabels.of(frame, level, labels)
    forecast = np.full((len(frame), 2), np.nan)
    dated = (frame["as_of"] >= pd.Timestamp("2022-03-02")).to_numpy()
    forecast[dated] = [0.5, 0.5]
    share, later = fit_upgrade(frame, tiers, forecast, labels)
    assert share == pytest.approx((120 + 20 * 0.9) / (120 + 20 + 20))  # at the first two dates; later nobody rises
    assert set(later["as_of"]) == {pd.Timestamp("2022-04-01")}  # who is at the top before cannot rise
    assert set(later["customer_id"]) == {f"c{n}" for n in range(60, 80)}
    known = (60 + 20 * 0.9) / (80 + 20)  # of the first date only
    assert later["predicted"].tolist() == pytest.approx([0.5 * known] * 20)


def test_calibration_finds_what_odds_lack() -> None:
    rng = np.random.default_rng(4)
    odds = rng.normal(0, 2, 20_000)
    happened = rng.random(20_000) < 1 / (1 + np.exp(-(0.6 * odds - 1)))
    assert fit_calibration([(odds, happened)]) == pytest.approx((-1, 0.6), abs=0.05)
    assert fit_calibration([]) == (0.0, 1.0)
    few = fit_calibration([(odds[:10], np.ones(10, dtype=bool))])
    assert 0 < few[0] < 1  # ten rows do not outweigh the fifty that the prior counts


def test_a_chance_recovers_known_probabilities() -> None:
    rng, n = np.random.default_rng(9), 4000
    x = rng.normal(0, 1, (n, 3))
    p = 1 / (1 + np.exp(-(1.2 * x[:, 0] - 1.5)))
    days = pd.Timestamp("2022-01-01") + pd.to_timedelta(30 * np.tile(np.arange(4), n // 4), unit="D")
    rows = pd.DataFrame({"customer_id": np.repeat(np.arange(n // 4), 4).astype(str), "as_of": days})
    happened = rng.random(n) < p
    model, later = fit_calibrated_ensemble(rows, x, happened, ("a", "b", "c"), 30, 7)
    assert model is not None
    fresh = rng.normal(0, 1, (2000, 3))
    truth = 1 / (1 + np.exp(-(1.2 * fresh[:, 0] - 1.5)))
    assert np.mean(np.abs(model.predict(fresh) - truth)) < 0.04
    assert later["predicted"].mean() == pytest.approx(later["actual"].mean(), abs=0.04)
    assert later["as_of"].min() >= days.min() + pd.Timedelta(days=30)
    single = np.concatenate([model.predict(fresh[i : i + 1]) for i in range(50)])
    np.testing.assert_array_equal(single, model.predict(fresh)[:50])
    assert fit_calibrated_ensemble(rows[:30], x[:30], happened[:30] & False, ("a", "b", "c"), 30, 7)[0] is None


def test_group_rates_are_those_of_the_group_drawn_to_all() -> None:
    group = np.repeat([0, 1], [1000, 10])
    happened = np.r_[np.arange(1000) < 100, np.ones(10, dtype=bool)]
    low, high, unseen = group_rates(group, happened, np.array([0, 1, 2]))
    assert low == pytest.approx(0.1, abs=0.001)
    assert 0.1 < high < 0.5
    assert unseen == pytest.approx(happened.mean())


# training and scoring


def test_training_keeps_to_what_was_known(trained: TrainedWorld) -> None:
    later, bundle = trained.trained.out_of_fold["upgrade"], trained.trained.bundle
    now = pd.Timestamp(bundle.facts["as_of"])
    assert len(later) > 100
    assert (later["as_of"] + pd.Timedelta(days=Labels.of(trained.project).upgrade_delay_days) <= now).all()
    assert later["predicted"].mean() == pytest.approx(later["actual"].mean(), abs=0.05)
    assert auc(later["actual"].to_numpy(), later["predicted"].to_numpy()) > 0.7
    assert 0 < bundle.upgrade < 1
    assert bundle.facts["upgrades_not_yet_known"] > 0  # dropped, and counted
    assert bundle.prospects is None
    assert trained.trained.out_of_fold["prospects"].empty


def test_a_bundle_keeps_how_many_stay_above(trained: TrainedWorld, tmp_path: Path) -> None:
    bundle = trained.trained.bundle
    assert load_bundle(trained.bundle).upgrade == bundle.upgrade
    save_bundle(replace(bundle, upgrade=0.75), tmp_path / "other")
    assert load_bundle(tmp_path / "other").upgrade == 0.75


class Played(NamedTuple):
    """A world with prospects, a backtest, and the bundle that it trained at its date."""

    project: Project
    bundle: Bundle
    done: Backtest


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    project = load_project(make_world(seed=5, customers=1_200).write(tmp_path_factory.mktemp("prospects")))
    update = {
        "features": project.features.model_copy(update={"windows_days": (30, 180), "groups": ("rfm", "engagement")}),
        "panel": project.panel.model_copy(update={"every_days": 30, "snapshots": 4}),
        "backtest": project.backtest.model_copy(update={"dates": (AS_OF,)}),
        "value": project.value.model_copy(update={"clv": LifetimeValue(horizon_days=720, annual_rate=0.1)}),
    }
    project = project.model_copy(update=update)
    fitted = list[Bundle]()

    def fit(*given: Any) -> Any:
        found = fit_bundle(*given)
        fitted.append(found[0])
        return found

    with quick_fits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(backtest_module, "fit_bundle", fit)
        patch.setattr(backtest_module, "learning_curve", lambda *_: [])
        patch.setattr(backtest_tiers, "preset_names", list)
        done = backtest(project)
    return Played(project, fitted[0], done)


def test_prospects_and_only_they_get_a_conversion(played: Played, tmp_path: Path) -> None:
    score(played.project, played.bundle, AS_OF, tmp_path / "scores.parquet")
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    frame = build_panel(played.project, [AS_OF])
    prospect = ~has_bought(frame)
    assert 30 < prospect.sum() < len(frame) / 2
    np.testing.assert_array_equal(scores["conversion_chance"].notna(), prospect)
    np.testing.assert_array_equal(scores["upgrade_potential"].notna(), ~prospect)
    assert played.bundle.prospects is not None
    assert "days_known" in played.bundle.prospects.names or "days_since_visit" in played.bundle.prospects.names
    save_bundle(played.bundle, tmp_path / "bundle")
    again = predict(load_bundle(tmp_path / "bundle"), frame)
    np.testing.assert_array_equal(again["conversion_chance"], scores["conversion_chance"])
    one = predict(played.bundle, frame[prospect].iloc[:1])
    assert one["conversion_chance"].iloc[0] == scores["conversion_chance"][prospect].iloc[0]


def test_both_are_judged_out_of_time_beside_their_rates(played: Played) -> None:
    results, predictions = played.done.results, played.done.predictions
    for target, models in (
        ("upgrade", ["tiermodel", "rate_per_tier", "tier_forecast"]),
        ("prospects", ["tiermodel", "rate"]),
    ):
        assert [row["model"] for row in results[target]] == models
        judged = predictions[predictions[target].notna()]
        for row in results[target]:
            p = judged[f"{target}_{row['model']}"]
            assert row["n"] == len(judged)
            assert row["log_loss"] == pytest.approx(log_loss(judged[target].to_numpy(), p.to_numpy()))
        compared = {c["against"] for c in results["comparisons"] if c["target"] == target}
        assert compared == set(models[1:])
        ours, rate, *_ = results[target]
        assert ours["log_loss"] < rate["log_loss"]
        assert ours["auc"] > 0.6
    assert not set(predictions.loc[predictions["prospects"].notna(), "customer_id"]) & set(
        predictions.loc[predictions["upgrade"].notna(), "customer_id"]
    )


def test_what_cannot_be_judged_is_noted(played: Played) -> None:
    assert played.done.results["clv"] == []
    assert any("lifetime value over 720 days is not compared" in note for note in played.done.results["notes"])


def test_conversions_are_first_purchases_of_the_window(played: Played) -> None:
    rows = pd.read_parquet(played.project.resolve("transactions.parquet"))
    bought = rows[rows["amount"] >= 0].groupby("customer_id")["time"].min()
    judged = played.done.predictions[played.done.predictions["prospects"].notna()].set_index("customer_id")
    first, start = bought.reindex(judged.index), pd.Timestamp(AS_OF)
    assert not (first < start).any()
    np.testing.assert_array_equal(judged["prospects"] == 1, first < start + pd.Timedelta(days=60))
