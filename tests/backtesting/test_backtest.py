"""The backtest: its shape, figures that anyone can recompute, test dates, and baselines that see no outcome."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    cohen_kappa_score,
    log_loss,
    mean_absolute_error,
    roc_auc_score,
)

import tiermodel.backtesting.backtest as backtest_module
from tiermodel.backtesting import tier_value
from tiermodel.backtesting.backtest import Backtest, backtest
from tiermodel.backtesting.proposals import proposed_scheme, scheme_faults
from tiermodel.backtesting.tiers import TierForecasts, scheme_summary, tier_results, tier_verdict
from tiermodel.backtesting.verdict import verdict_lines
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError
from tiermodel.evaluation import baselines
from tiermodel.evaluation.baselines import CHURN_BASELINES, CLV_BASELINES, VALUE_BASELINES, BaselineTask
from tiermodel.features.frame import feature_names
from tiermodel.features.outcome import OUTCOME_COLUMNS, ChurnLabel, Labels, at_risk
from tiermodel.features.panel import build_panel
from tiermodel.models.btyd.bg_nbd import MBGNBD
from tiermodel.models.btyd.forecast import frequency_recency_age
from tiermodel.models.btyd.pareto_nbd import ParetoNBD
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import read_history
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset, preset_names
from tiermodel.training.dates import backtest_dates
from tiermodel.training.train import train
from tiermodel.words import words
from worlds import LAST_DAY, TrainedWorld, bare_backtests, quick_fits

RIVALS = ("same_tier_as_now", "composite", "composite_365d")
CHURN = ["tiermodel", *CHURN_BASELINES, "same_season"]  # the log has a year before each date
VALUE = ["tiermodel", *VALUE_BASELINES, "same_season"]


class Played(NamedTuple):
    """A backtest of two dates as it was written, the project, and every frame that a baseline was shown."""

    project: Project
    done: Backtest
    results: dict[str, Any]
    predictions: pd.DataFrame
    shown: list[BaselineTask]


def watched(baseline: Callable[[BaselineTask], Any], shown: list[BaselineTask]) -> Callable[[BaselineTask], Any]:
    def see(test: BaselineTask) -> Any:
        shown.append(test)
        return baseline(test)

    return see


@pytest.fixture(scope="module")
def played(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder, shown = tmp_path_factory.mktemp("backtest"), list[BaselineTask]()
    project = trained.project.model_copy(
        update={
            "backtest": trained.project.backtest.model_copy(update={"folds": 2}),
            "churn": trained.project.churn.model_copy(update={"active_days": 300}),
        }
    )
    with quick_fits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tier_value, "DRAWS_AT_MOST", 100)
        for name, known in (("CHURN_BASELINES", CHURN_BASELINES), ("VALUE_BASELINES", VALUE_BASELINES)):
            patch.setattr(backtest_module, name, {k: watched(b, shown) for k, b in known.items()})
        done = backtest(project, out=folder / "b.json", predictions=folder / "p.parquet")
    results = json.loads((folder / "b.json").read_text(), parse_constant=lambda c: pytest.fail(f"{c} is no JSON"))
    return Played(project, done, results, pd.read_parquet(folder / "p.parquet"), shown)


@pytest.fixture(scope="module")
def again(played: Played) -> Bundle:
    """Train at the last test date, as the backtest did."""
    with quick_fits():
        return train(played.project, date.fromisoformat(played.results["dates"][-1])).bundle


# the file


def test_the_file_has_the_agreed_shape(played: Played) -> None:
    results = played.results
    assert {"project", "horizon_days", "dates", "churn", "value", "tiers", "comparisons"} <= set(results)
    assert results == played.done.results
    days = results["dates"]
    keys = {
        "churn": {"model", "as_of", "n", "rate", "auc", "average_precision", "log_loss", "brier", "ece"},
        "value": {"model", "as_of", "n", "gini", "spearman", "mae", "rmse", "bias", "decile_mape"},
        "tiers": {"scheme", "as_of", "value_capture_top", "monotone", "qwk", "moved_share", "reversed_share"},
        "comparisons": {"target", "metric", "against", "as_of", "difference", "low", "high"},
    }
    for section, wanted in keys.items():
        assert all(wanted <= set(row) for row in results[section])
    assert [(r["model"], r["as_of"]) for r in results["churn"]] == [(m, d) for d in days for m in CHURN]
    assert [(r["model"], r["as_of"]) for r in results["value"]] == [(m, d) for d in days for m in VALUE]
    assert {"logistic_rfm", "mbg_nbd", "pareto_nbd", "lightgbm_default"} < set(CHURN)
    assert {"naive_rate", "bg_nbd_gamma_gamma", "lightgbm_tweedie_default"} < set(VALUE)
    assert {r["scheme"] for r in results["tiers"]} == set(preset_names())
    assert [r["scheme"] for r in results["tiers"] if r["ours"]] == ["pyramid", "pyramid"]
    compared = {(c["target"], c["metric"], c["against"]) for c in results["comparisons"]}
    assert compared == {("churn", m, b) for m in ("log_loss", "auc") for b in CHURN[1:]} | {
        ("value", m, b) for m in ("gini", "mae") for b in VALUE[1:]
    } | {("clv", m, b) for m in ("gini", "mae") for b in CLV_BASELINES} | {
        ("upgrade", m, b) for m in ("log_loss", "auc") for b in ("rate_per_tier", "tier_forecast")
    } | {("tiers", m, b) for m in ("value_capture_top", "qwk_value") for b in RIVALS}
    assert {c["as_of"] for c in results["comparisons"] if c["target"] == "tiers"} == {*days, "all dates"}


def test_every_figure_follows_from_the_predictions(played: Played) -> None:
    for row in played.results["churn"]:
        frame = played.predictions[played.predictions["as_of"] == pd.Timestamp(row["as_of"])]
        judged = frame[frame[f"churn_{row['model']}"].notna()]
        y, p = judged["churned"], judged[f"churn_{row['model']}"]
        assert row["n"] == len(judged) < len(frame)  # those away for long cannot churn any more
        assert row["rate"] == pytest.approx(y.mean())
        assert row["log_loss"] == pytest.approx(log_loss(y, p))
        assert row["brier"] == pytest.approx(brier_score_loss(y, p))
        assert row["auc"] == pytest.approx(roc_auc_score(y, p))
        assert row["average_precision"] == pytest.approx(average_precision_score(y, p))
    for row in played.results["value"]:
        frame = played.predictions[played.predictions["as_of"] == pd.Timestamp(row["as_of"])]
        y, p = frame["value"], frame[f"value_{row['model']}"]
        assert row["n"] == len(frame)
        middle = frame["value_median"] if row["model"] == "tiermodel" else p  # the median makes that error least
        assert row["mae"] == pytest.approx(mean_absolute_error(y, middle))
        assert row["rmse"] == pytest.approx(np.sqrt(np.mean((y - p) ** 2)))
        assert row["bias"] == pytest.approx((p.mean() - y.mean()) / y.mean())
        assert row["spearman"] == pytest.approx(y.rank().corr(p.rank()))
    targets = ("churn", "value", "clv", "upgrade")
    by_target = {target: {(r["model"], r["as_of"]): r for r in played.results[target]} for target in targets}
    for c in played.results["comparisons"]:
        if c["target"] == "tiers":
            continue
        ours, theirs = (by_target[c["target"]][m, c["as_of"]][c["metric"]] for m in ("tiermodel", c["against"]))
        assert c["difference"] == pytest.approx(ours - theirs)
        assert c["low"] <= c["difference"] <= c["high"]


def test_lifetime_value_is_compared_with_what_came(played: Played) -> None:
    rows = pd.read_parquet(str(played.project.data.transactions.path))
    day = pd.Timestamp(LAST_DAY - timedelta(364))
    frame = played.predictions[played.predictions["as_of"] == day].set_index("customer_id")
    assert set(frame.index) == set(rows.loc[(rows["day"] < day) & (rows["amount"] >= 0), "customer"])
    forecasts = (rows["day"] - day).dt.days
    middle = np.minimum(forecasts // 30 * 30 + 15, 362.5)
    worth = (rows["amount"] * 1.1 ** (-middle / 365))[(forecasts >= 0) & (forecasts < 365)]
    actual = worth.groupby(rows["customer"]).sum().reindex(frame.index, fill_value=0)
    np.testing.assert_allclose(frame["clv"], actual, atol=0.01)
    for row in played.results["clv"]:
        assert (row["horizon_days"], row["annual_rate"], row["n"]) == (365, 0.1, len(frame))
        assert row["mae"] == pytest.approx(mean_absolute_error(frame["clv"], frame[f"clv_{row['model']}"]))
    assert abs(played.results["clv"][0]["bias"]) < 0.35


def test_the_outcomes_are_those_of_the_transactions(played: Played) -> None:
    rows = pd.read_parquet(str(played.project.data.transactions.path))
    day = pd.Timestamp(played.results["dates"][0])
    window = rows[(rows["day"] >= day) & (rows["day"] < day + pd.Timedelta(days=60))]
    frame = played.predictions[played.predictions["as_of"] == day].set_index("customer_id")
    bought = set(window.loc[window["amount"] > 0, "customer"])
    assert (frame["churned"] == [customer not in bought for customer in frame.index]).all()
    amounts = window.groupby("customer")["amount"].sum().reindex(frame.index, fill_value=0)
    np.testing.assert_allclose(frame["value"], amounts, atol=0.005)


def test_a_backtest_is_training_at_its_date(played: Played, again: Bundle) -> None:
    day, bundle = date.fromisoformat(played.results["dates"][-1]), again
    frame = build_panel(played.project, [day])
    mine = played.predictions[played.predictions["as_of"] == pd.Timestamp(day)]
    np.testing.assert_array_equal(mine["value_tiermodel"], bundle.value.predict(bundle.inputs.matrix(frame)))
    risky = at_risk(ChurnLabel.of(played.project.churn, played.project.outcome), frame)
    np.testing.assert_array_equal(
        mine["churn_tiermodel"][risky], bundle.churn.predict(bundle.inputs.matrix(frame[risky]))
    )


def test_baselines_see_no_outcome_and_train_on_observed_ones_only(played: Played) -> None:
    assert len(played.shown) == 2 * (len(CHURN_BASELINES) + len(VALUE_BASELINES))
    for test in played.shown:
        assert test.now[list(OUTCOME_COLUMNS)].isna().all(axis=None)
        assert test.train[list(OUTCOME_COLUMNS)].notna().all(axis=None)
        assert len(set(test.now["as_of"])) == 1
        assert test.train["as_of"].max() + pd.Timedelta(days=60) <= test.now["as_of"].min()
        assert not set(OUTCOME_COLUMNS) & set(feature_names(test.train))


def test_groups_and_history_lengths_are_judged(played: Played) -> None:
    for day in played.results["dates"]:
        rows = [r for r in played.results["slices"] if r["as_of"] == day]
        frame = played.predictions[played.predictions["as_of"] == pd.Timestamp(day)]
        tiers = [r for r in rows if r["by"] == "tier"]
        assert {r["by"] for r in rows} == {"purchase_days", "tenure_days", "tier"}
        assert 0 < sum(r["n"] for r in tiers) <= len(frame)
        for r in tiers:
            assert 0.7 < r["value_coverage"] <= 1
            assert 0.7 < r["tier_coverage"] <= 1
    curve = played.results["learning_curve"]
    last = played.results["dates"][-1]
    assert [r["snapshots"] for r in curve] == [1, 3]  # of three snapshots: one, and all
    assert {r["as_of"] for r in curve} == {last}
    whole = next(r for r in played.results["churn"] if r["model"] == "tiermodel" and r["as_of"] == last)
    assert curve[-1]["log_loss"] == pytest.approx(whole["log_loss"])
    assert curve[0]["log_loss"] != curve[-1]["log_loss"]
    assert curve[0]["rows"] < curve[-1]["rows"]


# dates


def with_backtest(project: Project, **settings: Any) -> Project:
    return project.model_copy(update={"backtest": project.backtest.model_copy(update=settings)})


def test_default_dates_are_the_last_with_an_observed_outcome(trained: TrainedWorld) -> None:
    rows = read_history(trained.project)
    last = rows.last_day + timedelta(1 - 60)
    assert rows.last_day == LAST_DAY
    dates = backtest_dates(with_backtest(trained.project, folds=3), rows)
    assert dates == (last - timedelta(120), last - timedelta(60), last)
    many = backtest_dates(with_backtest(trained.project, folds=24), rows)
    assert 5 < len(many) < 24
    assert many[0] - rows.first_day >= timedelta(120)


def test_a_date_whose_outcome_is_not_observed_is_refused(trained: TrainedWorld, tmp_path: Path) -> None:
    last = LAST_DAY - timedelta(59)
    project = with_backtest(trained.project, dates=(last, last + timedelta(1)))
    with pytest.raises(DataError, match=rf"{last + timedelta(1)} is not fully observed; the last date is {last}"):
        backtest(project, out=tmp_path / "b.json")
    assert not list(tmp_path.iterdir())
    assert backtest_dates(with_backtest(project, dates=(last,)), read_history(project)) == (last,)
    early = with_backtest(project, dates=(date(2022, 2, 1),))
    with pytest.raises(DataError, match="training as of 2022-02-01 needs a snapshot at least 60 days earlier"):
        backtest(early)
    long = project.model_copy(update={"outcome": project.outcome.model_copy(update={"horizon_days": 700})})
    with pytest.raises(DataError, match="a backtest needs 1460 days and more of history"):
        backtest(with_backtest(long, dates=None))


# what it says


def comparison(metric: str, low: float | None, high: float | None) -> dict[str, Any]:
    return {
        "target": "churn", "metric": metric, "against": "rival", "as_of": "2023-01-01",
        "difference": None if low is None or high is None else (low + high) / 2, "low": low, "high": high,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "low", "high", "lost"),
    [
        ("log_loss", 0.01, 0.03, True),
        ("log_loss", -0.01, 0.03, False),
        ("log_loss", -0.03, -0.01, False),
        ("mae", 0.5, 0.7, True),
        ("auc", 0.01, 0.03, False),
        ("auc", -0.03, -0.01, True),
        ("gini", -0.03, 0.01, False),
        ("gini", -0.03, -0.02, True),
        ("auc", None, None, False),
    ],
)
def test_a_baseline_that_wins_is_named(metric: str, low: float | None, high: float | None, lost: bool) -> None:
    results = {"comparisons": [comparison(metric, low, high)]}
    losses = Backtest(results, pd.DataFrame(), {"transactions": Accounting(0, 0, 0)}).losses()
    assert len(losses) == lost
    assert not lost or losses[0].startswith(f"churn {metric} on 2023-01-01: rival is better by 0.")
    for low_end, high_end in re.findall(r"\[(\S+), (\S+)\]", "".join(losses)):
        assert 0 < float(low_end) < float(high_end), "signs and words agree: better by so much, from and to"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_verdict_is_short_and_tells_the_dates_that_are_lost(played: Played, language: str) -> None:
    lines = verdict_lines(played.results, language)
    assert 8 <= len(lines) <= 11
    assert all(len(line) < 240 for line in lines)
    for target, metric, lower in (("churn", "log_loss", True), ("value", "gini", False)):
        lost = {
            c["as_of"]
            for c in played.results["comparisons"]
            if (c["target"], c["metric"]) == (target, metric) and (c["low"] > 0 if lower else c["high"] < 0)
        }
        (line,) = [line for line in lines if line.startswith(words(language)[f"verdict_{target}"].split("{")[0])]
        told = re.findall(r"(\d+)(?= 个不如|$)", line)
        assert int(told[-1]) == len(lost)
    if language == "zh":
        assert not re.search(r"\b(better|chance|dates?|value|the)\b", "".join(lines).partition("tiers:")[0])


def test_a_verdict_leaves_out_what_no_date_could_judge(played: Played) -> None:
    rows = [{**row, "value_capture_top": None, "moved_share": None} for row in played.results["tiers"]]
    told = "\n".join(verdict_lines({**played.results, "churn": [], "tiers": rows}, "en"))
    assert "Expected value:" in told
    assert not any(word in told for word in ("Churn risk:", "Calibration:", "Tiers:", "Stability:", "None"))


def test_a_verdict_on_tiers_that_lose_says_worse(played: Played) -> None:
    spoiled = [{**c, "difference": -0.2, "low": -0.3, "high": -0.1} for c in played.results["comparisons"]]
    told = "\n".join(verdict_lines({**played.results, "comparisons": spoiled}, "en"))
    assert "against grading by recent spend: -20.0 points [-30.0, -10.0], worse beyond chance" in told
    assert "worse than one on 2" in told


@pytest.mark.usefixtures("quick")
def test_a_model_of_noise_loses_and_the_run_says_so(trained: TrainedWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0)
    monkeypatch.setattr(tier_value, "DRAWS_AT_MOST", 200)

    class Noise:
        """Give random risks in the place of the churn model."""

        def predict(self, x: Any) -> Any:
            return noise.uniform(0.01, 0.99, len(x))

    def spoiled(*given: Any) -> tuple[Bundle, Any]:
        fields = {name: getattr(trained.trained.bundle, name) for name in Bundle.__dataclass_fields__}
        assert given
        return Bundle(**{**fields, "churn": Noise()}), {}

    monkeypatch.setattr(backtest_module, "fit_bundle", spoiled)
    for rivals, name in (("CHURN_BASELINES", "logistic_rfm"), ("VALUE_BASELINES", "naive_rate")):
        monkeypatch.setattr(backtest_module, rivals, {name: getattr(baselines, rivals)[name]})
    with bare_backtests():
        done = backtest(with_backtest(trained.project, folds=1))
    assert any(line.startswith("churn log_loss") and "logistic on RFM is better" in line for line in done.losses())


def task_of(
    project: Project, train: pd.DataFrame, now: pd.DataFrame, grade: Callable[[pd.DataFrame], Any], names: Sequence[str]
) -> BaselineTask:
    """Return what a baseline is shown in a project."""
    return BaselineTask(Labels.of(project), train, now, grade, names, project.features.windows_days, project.value.clv)


def test_baselines_do_what_their_names_say(trained: TrainedWorld) -> None:
    frame = build_panel(trained.project, [date(2023, 6, 1)], with_outcome=True)
    tier = (frame["net_amount_total"] > 100).to_numpy().astype(np.int64)
    hidden = frame.assign(**dict.fromkeys(OUTCOME_COLUMNS, np.nan))
    test = task_of(trained.project, frame, hidden, lambda rows: tier[: len(rows)], feature_names(frame))
    bought = frame["outcome_purchase_days"] > 0
    np.testing.assert_allclose(baselines.CHURN_BASELINES["rate"](test), 1 - bought.mean())
    seen = np.minimum(frame["days_since_first"], 365)
    np.testing.assert_allclose(VALUE_BASELINES["naive_rate"](test), frame["net_amount_365d"] / seen * 60)
    for name, baseline in CHURN_BASELINES.items():
        p = baseline(test)
        assert ((p >= 0) & (p <= 1)).all(), name
    past = frequency_recency_age(frame)
    silent = {"mbg_nbd": MBGNBD.fit(*past).p_zero(60, *past), "pareto_nbd": ParetoNBD.fit(*past).p_zero(60, *past)}
    for name, p in silent.items():
        np.testing.assert_array_equal(CHURN_BASELINES[name](test), p)
    assert not np.allclose(silent["mbg_nbd"], silent["pareto_nbd"])


@pytest.mark.parametrize("name", ["mbg_nbd", "pareto_nbd"])
@pytest.mark.parametrize(
    ("purchase_days", "first", "last"),
    [
        ([1], [1], [1]),
        ([1] * 50, list(range(1, 51)), list(range(1, 51))),
        ([365] * 20, [365] * 20, [1] * 20),
        ([3] * 40, [60] * 40, [30] * 40),
        ([1] * 99 + [2], [300] * 100, [300] * 99 + [20]),
        ([1] * 50 + [300] * 50, [301] * 100, [301] * 50 + [1] * 50),
        ([5000, 1, 1], [6001, 3000, 1], [1, 3000, 1]),
    ],
    ids=["one order, yesterday", "one-order customers", "daily", "all alike", "one came back", "two kinds", "huge"],
)
def test_baselines_of_silence_take_any_log(
    trained: TrainedWorld, name: str, purchase_days: list[int], first: list[int], last: list[int]
) -> None:
    frame = pd.DataFrame({"purchase_days_total": purchase_days, "days_since_first": first, "days_since_last": last})
    nothing = frame.iloc[:0]
    p = CHURN_BASELINES[name](
        task_of(trained.project, nothing, frame.astype(float), lambda rows: np.zeros(len(rows), dtype=np.int64), ())
    )
    assert p.shape == (len(frame),)
    assert ((p >= 0) & (p <= 1)).all()
    if purchase_days[0] == 365:
        assert (p < 0.01).all()  # who came every day comes again within 60


# tiers


def test_differences_of_tiers_are_those_of_their_figures_and_the_verdict_is_what_they_say(played: Played) -> None:
    rows, comparisons = played.results["tiers"], played.results["comparisons"]
    for row in rows:
        ours = next(r for r in rows if r["ours"] and r["as_of"] == row["as_of"])
        for metric, found in row.get("minus_ours", {}).items():
            assert found["difference"] == pytest.approx(row[metric] - ours[metric])
            assert found["low"] <= found["difference"] <= found["high"]
    tiers = [c for c in comparisons if c["target"] == "tiers"]
    for metric, rival in itertools.product(("value_capture_top", "qwk_value"), RIVALS):
        mine = {c["as_of"]: c for c in tiers if (c["metric"], c["against"]) == (metric, rival)}
        whole = mine.pop("all dates")
        assert whole["difference"] == pytest.approx(np.mean([c["difference"] for c in mine.values()]))
        assert whole["high"] - whole["low"] < max(c["high"] - c["low"] for c in mine.values())
    words = tier_verdict(comparisons)
    won = all(c["low"] > 0 for c in tiers if c["as_of"] == "all dates")
    assert words[0].endswith(": yes" if won else ": no")
    assert len(words) == 1 + 2 * len(RIVALS)
    lost = [{**c, "low": -1.0} if c["against"] == "composite" else {**c, "low": 1.0} for c in tiers]
    assert tier_verdict(lost)[0].endswith(": no")
    assert tier_verdict([c for c in lost if c["low"] > 0])[0].endswith(": yes")
    summary = scheme_summary(rows)
    assert summary[0]["scheme"] == "pyramid (ours)"
    assert len(summary) == len(preset_names())


def with_ends(rows: list[dict[str, Any]], low: float, high: float, schemes: Sequence[str]) -> list[dict[str, Any]]:
    """Give the figures of schemes with the differences of some of them to the project's within an interval."""
    ends = {"difference": (low + high) / 2, "low": low, "high": high}
    minus = dict.fromkeys(("value_capture_of_best", "qwk_value"), ends)
    return [{**row, "minus_ours": minus} if row["scheme"] in schemes else row for row in rows]


def test_a_scheme_is_proposed_only_where_it_is_better_at_every_date(played: Played) -> None:
    rows = played.results["tiers"]
    others = [row["scheme"] for row in rows if not row["ours"]]
    alike = with_ends([{**row, "empty": [], "monotone": True} for row in rows], -0.1, 0.1, others)
    assert proposed_scheme(alike).endswith("keep it.")
    assert proposed_scheme(with_ends(alike, 0.01, 0.1, ["learned"])).endswith("tiers: {scheme: learned}")
    once = [row for row in with_ends(alike, 0.01, 0.1, ["learned"]) if row["as_of"] == rows[0]["as_of"]]
    assert proposed_scheme([*once, *(r for r in alike if r["as_of"] != rows[0]["as_of"])]).endswith("keep it.")
    worse = {"difference": -0.2, "low": -0.3, "high": -0.1}  # as where nearly all are key customers
    everybody = [
        {**row, "minus_ours": {**row["minus_ours"], "qwk_value": worse}} if row["scheme"] == "learned" else row
        for row in with_ends(alike, 0.01, 0.1, ["learned"])
    ]
    assert proposed_scheme(everybody).endswith("keep it.")


@pytest.mark.parametrize("fault", [{"empty": ["major"]}, {"monotone": False}])
def test_a_scheme_without_the_faults_of_the_projects_own_is_proposed(played: Played, fault: dict[str, Any]) -> None:
    rows = played.results["tiers"]
    others = [row["scheme"] for row in rows if not row["ours"]]
    faulty = with_ends([{**row, "empty": [], "monotone": True, **fault} for row in rows], -0.1, 0.1, others)
    assert proposed_scheme(faulty).endswith("rises in value with it, either.")
    mended = [{**row, "empty": [], "monotone": True} if row["scheme"] == "learned" else row for row in faulty]
    assert proposed_scheme(mended).endswith("tiers: {scheme: learned}")
    assert proposed_scheme(with_ends(mended, -0.2, -0.1, ["learned"])).endswith("rises in value with it, either.")


def test_levels_that_nobody_reaches_and_values_out_of_order_are_told_by_date(played: Played) -> None:
    rows = played.results["tiers"]
    for row in rows:
        levels = load_preset(row["scheme"], played.project.features.windows_days).bought_levels
        assert row["empty"] == [code for code in levels if not row["levels"][code]]
    assert any(row["empty"] for row in rows)
    ours = [row for row in rows if row["ours"]]
    found = scheme_faults([{**row, "ours": True} for row in rows])
    assert len(found) == sum(bool(row["empty"]) + (not row["monotone"]) for row in rows)
    assert len(scheme_faults(rows)) == sum(bool(row["empty"]) + (not row["monotone"]) for row in ours)


def test_a_rival_is_graded_into_levels_as_large_and_by_what_it_says(played: Played, again: Bundle) -> None:
    day = date.fromisoformat(played.results["dates"][-1])
    panel = build_panel(played.project, [day + timedelta(k * 60) for k in (-2, -1, 0, 1)], with_outcome=True)
    frame = panel[panel["as_of"] == pd.Timestamp(day)]
    fitted = fit_scheme(load_preset("pyramid", (60, 365)), frame, frame, 7)
    bundle = dataclasses.replace(again, scheme=fitted)
    compared = {(c["metric"], c["against"]): c for c in tier_results(played.project, panel, day, bundle, [])[1]}
    level, value = fitted.assign(frame)[0], frame["outcome_value"].to_numpy()
    spend = frame["net_amount_60d"].rank(method="average").to_numpy() / len(frame)
    edges = np.cumsum(np.bincount(level, minlength=4)) / len(frame)
    now = np.minimum(np.searchsorted(edges, spend - 1e-12), 3)
    deserved = np.minimum(np.searchsorted(edges, pd.Series(value).rank().to_numpy() / len(frame) - 1e-12), 3)
    theirs = np.minimum(
        np.searchsorted(
            np.cumsum(np.bincount(now, minlength=4)) / len(frame), pd.Series(value).rank() / len(frame) - 1e-12
        ),
        3,
    )
    captured = (value[level >= 2].sum() - value[now >= 2].sum()) / value.sum()
    assert compared["value_capture_top", "same_tier_as_now"]["difference"] == pytest.approx(captured)
    kappas = [cohen_kappa_score(d, g, weights="quadratic") for d, g in ((deserved, level), (theirs, now))]
    assert compared["qwk_value", "same_tier_as_now"]["difference"] == pytest.approx(kappas[0] - kappas[1])


def test_tier_figures_are_those_counted_by_hand(played: Played, again: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tier_value, "DRAWS_AT_MOST", 100)
    day = date.fromisoformat(played.results["dates"][-1])
    now, every, span = pd.Timestamp(day), pd.Timedelta(days=60), pd.Timedelta(days=60)
    bundle = again
    dates = [day + timedelta(k * 60) for k in (-4, -3, -2, -1, 0, 1)]
    panel = build_panel(played.project, dates, with_outcome=True)
    snapshot = panel[panel["as_of"] == now].reset_index(drop=True)
    forecasts = TierForecasts.of(played.project, panel, snapshot, bundle.inputs.matrix(snapshot), bundle)
    ours = tier_results(played.project, panel, day, bundle, [])[0][0] | forecasts.figures()
    assert ours == next(r for r in played.results["tiers"] if r["as_of"] == str(day) and r["ours"])
    level = panel.assign(level=bundle.scheme.assign(panel)[0]).pivot_table("level", "customer_id", "as_of")
    at_date = level[now].dropna()
    value = panel[panel["as_of"] == now].set_index("customer_id")["outcome_value"]
    key = at_date >= 2
    assert ours["n"] == len(at_date)
    assert ours["value_capture_top"] == pytest.approx(value[key].sum() / value.sum())
    assert ours["key_customers_share"] == pytest.approx(key.mean())
    means = value.groupby(at_date).mean()
    assert ours["monotone"] == bool(means.is_monotonic_increasing)
    before, earlier = level[now - every].reindex(at_date.index), level[now - 2 * every].reindex(at_date.index)
    moved = (at_date != before) & before.notna()
    assert ours["moved_share"] == pytest.approx(moved[before.notna()].mean())
    moved_before = earlier.notna() & (before != earlier)
    assert ours["reversed_share"] == pytest.approx((moved & (at_date == earlier))[moved_before].mean())
    later = level[now + span].reindex(at_date.index)
    assert ours["qwk"] == pytest.approx(cohen_kappa_score(later, at_date, weights="quadratic"))
    assert 0.8 < ours["set_coverage"] <= 1
