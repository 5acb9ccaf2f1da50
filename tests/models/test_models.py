"""The models: known truth recovered, later snapshots only, one record as the batch, nothing learned from the future."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.errors import DataError, ModelError
from tiermodel.evaluation.leakage import OF_PURCHASES, refuse_leaks
from tiermodel.evaluation.metrics import churn_metrics, ece_null_band
from tiermodel.features.frame import feature_names
from tiermodel.features.outcome import OUTCOME_COLUMNS, Labels, at_risk
from tiermodel.features.panel import build_panel
from tiermodel.features.purchases import PURCHASES
from tiermodel.models.btyd.forecast import BTYD_INPUTS, Horizons
from tiermodel.models.calibration.recent import ForecastContext, PartialWindow
from tiermodel.models.churn import ChurnModel, fit_churn
from tiermodel.models.design_matrix import design_matrix_of_panel, fit_design_matrix
from tiermodel.models.future_tier import TierModel, fit_tier, future_levels
from tiermodel.models.learners.boosting import ROUNDS, fit_boosted
from tiermodel.models.learners.linear import Linear, averaged, fit_logistic, fit_ridge
from tiermodel.models.learners.readable_tree import leaf_of
from tiermodel.models.learners.time_split import rolling_folds
from tiermodel.models.learners.weights import FitWeights
from tiermodel.models.potential import UPPER, fit_peer_groups
from tiermodel.models.value import ValueModel, fit_value
from tiermodel.tables.history import read_history
from tiermodel.tiers.lifecycle import LIFECYCLE, LOYALTY, lifecycle_and_loyalty, typical_rhythm
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import fit_bundle, train
from worlds import LAST_DAY, TrainedWorld, quick_fits, small_project, small_world

NAMES = ["days_since_last", "b", "c", *BTYD_INPUTS]
CUSTOMERS, DATES = 700, 5
Floats = np.ndarray[Any, np.dtype[np.float64]]


class Truth(NamedTuple):
    """Snapshot rows with outcomes, the inputs of the models, and what the outcomes were drawn from."""

    rows: pd.DataFrame
    x: Floats
    p_churn: Floats
    level: Floats


def draw(dates: int = DATES, seed: int = 3) -> Truth:
    """Draw customers whose churn probability, spend and later level are known functions of two inputs."""
    rng, n = np.random.default_rng(seed), CUSTOMERS * dates
    x = np.column_stack([rng.uniform(1, 100, n), rng.normal(0, 1, n), rng.normal(0, 1, n)])
    p = 1 / (1 + np.exp(-(0.02 * (x[:, 0] - 60) + 0.8 * x[:, 1])))
    left = rng.random(n) < p
    spend = np.where(left, 0.0, rng.lognormal(3 + 0.5 * x[:, 2], 0.6))
    refund = rng.random(n) < 0.02
    mean_spend = np.exp(3 + 0.5 * x[:, 2] + 0.18)
    x[rng.random(n) < 0.03, 2] = np.nan
    blurred = 1 / (1 + np.exp(-0.5 * np.log(p / (1 - p)) + 0.4))  # what a structural model may think: too mild, too low
    x = np.column_stack([x, blurred, 2 * (1 - blurred), (1 - blurred) * mean_spend, np.sqrt(blurred)])
    as_of = pd.Timestamp("2022-01-01") + pd.to_timedelta(30 * np.tile(np.arange(dates), CUSTOMERS), unit="D")
    rows = pd.DataFrame({
        "customer_id": np.repeat([f"c{i:04d}" for i in range(CUSTOMERS)], dates),
        "as_of": as_of.astype("datetime64[s]"),
        "days_since_last": x[:, 0],
        "days_since_first": np.tile(100 + 30.0 * np.arange(dates), CUSTOMERS),
        "net_amount_total": 100.0,
        "outcome_purchase_days": np.where(left, 0.0, 1.0 + rng.poisson(1, n)),
        "outcome_value": np.where(refund, -5.0, spend),
        "outcome_churned": left.astype(float),
    })  # fmt: skip
    return Truth(rows, x, p, np.digitize(-x[:, 1] + rng.normal(0, 0.5, n), [-1.0, 0.5, 1.5]).astype(float))


def now_of(truth: Truth) -> ForecastContext:
    """Give the date to forecast for, one window after the last, and customers like those before."""
    last = truth.rows["as_of"].max()
    return ForecastContext(last + pd.Timedelta(days=30), truth.x[truth.rows["as_of"] == last])


@pytest.fixture(scope="module")
def project(trained: TrainedWorld) -> Project:
    return trained.project.model_copy(
        update={"outcome": trained.project.outcome.model_copy(update={"horizon_days": 30})}
    )


@pytest.fixture(scope="module")
def truth() -> Truth:
    return draw()


@pytest.fixture(scope="module")
def churn(project: Project, truth: Truth) -> tuple[ChurnModel, pd.DataFrame]:
    return fit_churn(
        truth.rows, truth.x, NAMES, Labels.of(project).churn, project.models.churn, now_of(truth), project.seed
    )


@pytest.fixture(scope="module")
def value(project: Project, truth: Truth) -> tuple[ValueModel, pd.DataFrame]:
    return fit_value(
        truth.rows, truth.x, NAMES, Labels.of(project).value, project.models.value, now_of(truth), project.seed
    )


@pytest.fixture(scope="module")
def tier(project: Project, truth: Truth) -> tuple[TierModel, pd.DataFrame]:
    return fit_tier(truth.rows, truth.x, NAMES, truth.level, 4, Labels.of(project).delay_days, project.seed)[:2]


@pytest.fixture(scope="module")
def panel(trained: TrainedWorld) -> pd.DataFrame:
    """Every snapshot that training the small world as of 2023-11-01 needs, and later ones."""
    rows = read_history(trained.project)
    learned = training_dates(trained.project, AS_OF, rows.first_day)
    days = panel_dates(trained.project, AS_OF, learned) | {AS_OF + timedelta(30), AS_OF + timedelta(60)}
    return build_panel(trained.project, sorted(days), with_outcome=True, history=rows)


AS_OF = date(2023, 11, 1)


# members


@pytest.mark.parametrize("fit", [lambda x, y: fit_logistic(x, y > 0.3), fit_ridge])
def test_linear_members_give_the_same_bits_for_any_batch(truth: Truth, fit: Callable[..., Linear]) -> None:
    model = fit(truth.x, truth.p_churn)
    whole = model.decision(truth.x)
    for size in (1, 7, 100):
        parts = [model.decision(truth.x[i : i + size]) for i in range(0, 210, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:210], whole[:210])
    assert Linear(**model.to_dict()) == model
    assert len(model.flagged) == 1  # the input that is sometimes missing counts by itself


def test_two_linear_models_average_to_one_also_where_inputs_are_missing(truth: Truth) -> None:
    unknown = int(np.flatnonzero(np.isnan(truth.x).any(axis=0))[0])
    whole = fit_ridge(truth.x, truth.p_churn)
    for few in ([unknown], [unknown, truth.x.shape[1] - 1], [j for j in range(truth.x.shape[1]) if j != unknown]):
        part = fit_ridge(truth.x, truth.p_churn, few)
        both = averaged(whole, part)
        np.testing.assert_allclose(both.decision(truth.x), (whole.decision(truth.x) + part.decision(truth.x)) / 2)
        assert Linear(**both.to_dict()) == both


def test_boosted_refuses_what_lightgbm_would_take_in_silence(truth: Truth) -> None:
    y = truth.p_churn
    for x_bad, y_bad in ((truth.x, np.where(y > 0.5, np.nan, y)), (np.where(truth.x > 99, np.inf, truth.x), y)):
        with pytest.raises(ModelError, match="not finite"):
            fit_boosted(x_bad, y_bad, NAMES, 5, 7, objective="binary")
    model = fit_boosted(truth.x, y, NAMES, 5, 7, objective="regression")
    with pytest.raises(ModelError, match="trained on"):
        _ = type(model)(tuple(reversed(NAMES)), model.text).booster
    shorter = fit_boosted(truth.x, y, NAMES, 3, 7, objective="regression")  # trees are grown one after the other
    three, five = model.scores(truth.x, (3, 5))
    np.testing.assert_array_equal(three, shorter.predict(truth.x))
    np.testing.assert_allclose(five, model.predict(truth.x), rtol=1e-12)


# folds


@given(st.lists(st.integers(0, 400), min_size=1, max_size=30), st.integers(1, 120), st.integers(1, 4))
def test_no_training_outcome_ends_after_the_test_date(days: list[int], span: int, most: int) -> None:
    as_of = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"))
    folds = list(rolling_folds(as_of, span, most))
    assert len(folds) <= most
    for train_rows, test in folds:
        assert len(train_rows)
        assert len(set(as_of.iloc[test])) == 1
        assert (as_of.iloc[train_rows] + pd.Timedelta(days=span)).max() <= as_of.iloc[test].min()


# churn


def test_a_column_that_knows_the_outcome_fails_the_run(truth: Truth) -> None:
    refuse_leaks(truth.rows, truth.x, NAMES)
    left = (truth.rows["outcome_churned"] == 1).to_numpy()
    spent = truth.rows["outcome_value"].to_numpy()
    for planted in (left.astype(float), np.where(left, np.nan, 1.0), -spent, np.round(spent, 1)):
        with pytest.raises(DataError, match=r"planted \(.*knows the outcome"):
            refuse_leaks(truth.rows, np.column_stack([truth.x, planted]), [*NAMES, "planted"])


def test_clockwork_in_the_days_of_purchases_is_no_leak(truth: Truth) -> None:
    """Where customers pay every four weeks, the days since the last payment tell the next two weeks without error."""
    clockwork = (truth.rows["outcome_churned"] == 1).to_numpy().astype(float)
    refuse_leaks(truth.rows, np.column_stack([truth.x, clockwork]), [*NAMES, "days_since_last"])
    with pytest.raises(DataError, match=r"attribute_size \(values tell churn with an AUC of 1.000"):
        refuse_leaks(truth.rows, np.column_stack([truth.x, clockwork]), [*NAMES, "attribute_size"])
    known = {feature.name for feature in PURCHASES} | set(BTYD_INPUTS)
    assert all(any(name.startswith(start) for name in known) for start in OF_PURCHASES)


def test_churn_recovers_known_probabilities(churn: tuple[ChurnModel, pd.DataFrame]) -> None:
    model, later = churn
    fresh = draw(1, seed=99)
    predicted = model.predict(fresh.x)
    assert np.mean(np.abs(predicted - fresh.p_churn)) < 0.04
    figures = churn_metrics((fresh.rows["outcome_purchase_days"] == 0).to_numpy(), predicted)
    assert figures["ece"] < ece_null_band(predicted, 0.99)
    assert later["as_of"].min() >= pd.Timestamp("2022-01-31")
    assert abs(later["predicted"].mean() - later["actual"].mean()) < 0.03


def test_churn_counts_the_present_customers_only(project: Project, truth: Truth) -> None:
    recent = project.model_copy(update={"churn": project.churn.model_copy(update={"active_days": 40})})
    np.testing.assert_array_equal(at_risk(Labels.of(recent).churn, truth.rows), truth.x[:, 0] <= 40)
    _, later = fit_churn(
        truth.rows, truth.x, NAMES, Labels.of(recent).churn, recent.models.churn, now_of(truth), recent.seed
    )
    kept = truth.rows.merge(later, on=["customer_id", "as_of"])
    assert kept["days_since_last"].max() <= 40


def test_members_learn_from_seasoned_dates_only_where_those_tell_enough(project: Project, truth: Truth) -> None:
    first = (truth.rows["as_of"] == truth.rows["as_of"].min()).to_numpy()
    young = truth.rows.assign(days_since_first=truth.rows["days_since_first"].where(~first, 20.0))
    model, _ = fit_churn(
        young, truth.x, NAMES, Labels.of(project).churn, project.models.churn, now_of(truth), project.seed
    )
    without, _ = fit_churn(
        young[~first].reset_index(drop=True),
        truth.x[~first],
        NAMES,
        Labels.of(project).churn,
        project.models.churn,
        now_of(truth),
        project.seed,
    )
    assert (model.linear, model.compact) == (without.linear, without.compact)
    trees, others = (each.boosted.scores(truth.x, ROUNDS[:1])[0] for each in (model, without))
    np.testing.assert_array_equal(trees, others)

    loyal = young.assign(outcome_churned=young["outcome_churned"].where(first | (young.index % 300 == 0), 0.0))
    few, _ = fit_churn(
        loyal, truth.x, NAMES, Labels.of(project).churn, project.models.churn, now_of(truth), project.seed
    )
    assert few.linear == fit_logistic(truth.x, (loyal["outcome_churned"] == 1).to_numpy())


def test_members_learn_from_what_is_known_of_cut_windows(project: Project, truth: Truth) -> None:
    pending_moves: list[pd.Timestamp] = []

    def cut(day: pd.Timestamp) -> list[PartialWindow]:
        pending_moves.append(day)
        extra = draw(1, seed=len(pending_moves))
        left = (extra.rows["outcome_churned"] == 1).to_numpy()
        came = np.where(left | (np.random.default_rng(9).random(CUSTOMERS) < 0.2), 1.0, 0.0)
        return [PartialWindow(extra.x, came, np.full(CUSTOMERS, 0.7), 0.5)]

    ahead = now_of(truth)
    labels, learners = Labels.of(project), project.models
    fits: list[Callable[[ForecastContext], tuple[Any, pd.DataFrame]]] = [
        lambda ahead: fit_churn(truth.rows, truth.x, NAMES, labels.churn, learners.churn, ahead, project.seed),
        lambda ahead: fit_value(truth.rows, truth.x, NAMES, labels.value, learners.value, ahead, project.seed),
    ]
    for fit in fits:
        pending_moves.clear()
        model, later = fit(ahead._replace(partial_windows=cut))
        assert sorted(pending_moves) == [*sorted(later["as_of"].unique()), ahead.day]  # each fold as it was on its day
        plain, _ = fit(ahead)
        assert model.linear != plain.linear
        assert model.boosted != plain.boosted


def cut_truth(count: int = 6_000) -> tuple[Floats, Floats, np.ndarray[Any, np.dtype[np.bool_]], FitWeights]:
    """Draw whole windows, and half as many again that are cut: silent more often, by a known amount on the logit."""
    rng = np.random.default_rng(4)
    x = rng.normal(0, 1, (count + count // 2, 2))
    link = np.where(np.arange(len(x)) < count, 0.0, 1.5 + 0.5 * x[:, 1])
    odds = 0.9 * x[:, 0] - 1.0
    happened = rng.random(len(x)) < 1 / (1 + np.exp(-odds - link))
    return x, odds, happened, FitWeights(np.where(link == 0, 1.0, 0.5), link)


def test_what_a_cut_window_lacks_is_no_part_of_what_is_learned() -> None:
    x, odds, happened, counted = cut_truth()
    names = ["a", "b"]
    trees = fit_boosted(x, happened.astype(float), names, 150, 7, weights=counted, objective="binary")
    line = fit_logistic(x, happened, c=10.0, weights=counted)
    true = 1 / (1 + np.exp(-odds))
    for predicted in (trees.predict(x), 1 / (1 + np.exp(-line.decision(x)))):
        assert predicted.mean() == pytest.approx(
            true.mean(), abs=0.015
        )  # the level of whole windows, kept in the model
        assert np.abs(predicted - true).mean() < 0.03
    start, each = trees.contributions(x[:200])
    np.testing.assert_allclose(1 / (1 + np.exp(-start - each.sum(axis=1))), trees.predict(x[:200]))
    naive = fit_boosted(x, happened.astype(float), names, 300, 7, objective="binary").predict(x)
    assert naive.mean() > true.mean() + 0.05


def test_spend_of_cut_windows_tells_of_whole_ones() -> None:
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (9_000, 2))
    true = np.exp(2 + 0.6 * x[:, 0])
    link = np.where(np.arange(len(x)) < 6_000, 0.0, np.log(0.6))
    spent = np.where(rng.random(len(x)) < 0.4, 0.0, rng.gamma(2.0, true * np.exp(link) / 1.2))
    target: dict[str, Any] = {"objective": "tweedie", "tweedie_variance_power": 1.5}
    told, naive = (
        fit_boosted(x, spent, ["a", "b"], 300, 7, weights=counted, **target).predict(x)
        for counted in (FitWeights(np.exp(link), link), None)
    )
    assert told.mean() == pytest.approx(true.mean(), rel=0.03)
    assert naive.mean() < 0.9 * true.mean()
    assert np.abs(told - true).mean() < 0.75 * np.abs(naive - true).mean()


def test_one_class_is_refused(project: Project, truth: Truth) -> None:
    for stayed in (0.0, 1.0):
        with pytest.raises(DataError, match=r"at least 20 that did and 20 that did not.*bring more history"):
            fit_churn(
                truth.rows.assign(outcome_churned=stayed),
                truth.x,
                NAMES,
                Labels.of(project).churn,
                project.models.churn,
                now_of(truth),
                project.seed,
            )
    with pytest.raises(DataError, match="value: 0 customer snapshots bought"):
        fit_value(
            truth.rows.assign(outcome_value=-1.0),
            truth.x,
            NAMES,
            Labels.of(project).value,
            project.models.value,
            now_of(truth),
            project.seed,
        )


def test_labels_that_are_not_known_are_no_labels(project: Project, truth: Truth) -> None:
    unknown = truth.rows["as_of"] == truth.rows["as_of"].max()
    columns = list(OUTCOME_COLUMNS)
    hidden = truth.rows.copy()
    hidden.loc[unknown, columns] = np.nan
    _, later = fit_churn(
        hidden, truth.x, NAMES, Labels.of(project).churn, project.models.churn, now_of(truth), project.seed
    )
    assert later["as_of"].max() < truth.rows["as_of"].max()
    _, later = fit_value(
        hidden, truth.x, NAMES, Labels.of(project).value, project.models.value, now_of(truth), project.seed
    )
    assert later["as_of"].max() < truth.rows["as_of"].max()


# value


def test_value_adds_up_and_intervals_hold_nine_in_ten_of_new_customers(value: tuple[ValueModel, pd.DataFrame]) -> None:
    model, later = value
    assert later["predicted"].sum() == pytest.approx(later["actual"].sum(), rel=0.1)
    fresh = draw(2, seed=98)
    predicted, median, low, high = model.outlook(fresh.x)
    actual = fresh.rows["outcome_value"].to_numpy()
    np.testing.assert_array_equal(predicted, model.predict(fresh.x))
    assert np.abs(median - actual).mean() < np.abs(predicted - actual).mean()
    assert predicted.sum() == pytest.approx(actual.sum(), rel=0.1)
    assert 0.87 < np.mean((low <= actual) & (actual <= high)) < 0.95
    assert (predicted >= 0).all()
    assert (low <= np.minimum(predicted, median)).all()
    assert (np.maximum(predicted, median) <= high).all()
    nothing = actual == 0
    assert np.mean(low[nothing] <= 0) > 0.9  # who bought nothing was within the bounds too


# the tier to come


def test_tier_probabilities_are_probabilities_and_sets_hold_nine_in_ten(tier: tuple[TierModel, pd.DataFrame]) -> None:
    model, later = tier
    fresh = draw(2, seed=97)
    p = model.predict(fresh.x)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    assert (p >= 0).all()
    low, high = model.sets(p)
    best = p.argmax(axis=1)
    assert ((low <= best) & (best <= high)).all()
    held = (low <= fresh.level) & (fresh.level <= high)
    assert 0.86 < held.mean() < 0.97
    for k in np.unique(best):  # nine in ten of every likeliest tier by itself
        assert 0.83 < held[best == k].mean() < 0.98, k
    assert (high - low + 1).mean() < 3
    assert set(later["predicted"]) <= {0.0, 1.0, 2.0, 3.0}


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=9),
    st.tuples(*[st.floats(0.05, 0.99)] * 4),
)
def test_sets_grow_from_the_likeliest_to_the_likelier_neighbour(
    above: list[list[float]], mass: tuple[float, ...]
) -> None:
    falling = np.minimum.accumulate(np.array(above), axis=1)
    p = np.hstack([1 - falling[:, :1], -np.diff(falling, axis=1), falling[:, -1:]])
    low, high = TierModel((), (None,) * 3, (0.5,) * 3, mass).sets(p)
    for row, i, j in zip(p.tolist(), low, high, strict=True):
        first = last = row.index(max(row))
        held, enough = row[first], mass[first]
        while held < enough and last - first < 3:
            below, beyond = row[first - 1] if first else -1.0, row[last + 1] if last < 3 else -1.0
            first, last, held = (first, last + 1, held + beyond) if beyond >= below else (first - 1, last, held + below)
        assert (i, j) == (first, last)


def test_a_level_never_seen_stays_impossible(project: Project, truth: Truth) -> None:
    model, *_ = fit_tier(truth.rows, truth.x, NAMES, np.minimum(truth.level, 2), 5, 30, project.seed)
    p = model.predict(truth.x[:50])
    assert (p[:, 3:] == 0).all()
    assert model.boosted[2:] == (None, None)


def test_future_levels_are_looked_up_by_customer_and_date() -> None:
    days = pd.to_datetime(["2023-01-01", "2023-01-31", "2023-03-02", "2023-01-01", "2023-03-02"])
    frame = pd.DataFrame({"customer_id": list("aaabb"), "as_of": days.astype("datetime64[s]")})
    found = future_levels(frame, np.array([0, 1, 2, 3, 4]), 30)
    np.testing.assert_array_equal(found, [1, 2, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(future_levels(frame, np.array([0, 1, 2, 3, 4]), 60), [2, np.nan, np.nan, 4, np.nan])


# inputs, ladders, peers


def test_inputs_of_one_customer_are_those_of_the_batch(trained: TrainedWorld, panel: pd.DataFrame) -> None:
    inputs = trained.trained.bundle.inputs
    whole = inputs.matrix(panel)
    for i in range(0, len(panel), 397):
        np.testing.assert_array_equal(inputs.matrix(panel.iloc[[i]])[0], whole[i])
    assert np.isfinite(whole[:, -len(BTYD_INPUTS) :]).all()
    again = type(inputs).from_dict(inputs.names, inputs.to_dict())
    np.testing.assert_array_equal(again.matrix(panel.head(50)), whole[:50])


def test_each_snapshot_has_the_parameters_of_its_own_date(panel: pd.DataFrame) -> None:
    names = tuple(feature_names(panel))
    x = design_matrix_of_panel(panel, names, Horizons(60, 60))
    day = panel["as_of"] == panel["as_of"].min()
    np.testing.assert_array_equal(x[day], fit_design_matrix(panel[day], names, Horizons(60, 60)).matrix(panel[day]))
    shuffled = panel.sample(frac=1, random_state=1)
    np.testing.assert_allclose(design_matrix_of_panel(shuffled, names, Horizons(60, 60)), x[shuffled.index], rtol=1e-6)


def test_prospects_expect_nothing(trained: TrainedWorld, panel: pd.DataFrame) -> None:
    nobody = panel.head(3).assign(**dict.fromkeys(feature_names(panel), np.nan))
    assert np.isnan(trained.trained.bundle.inputs.matrix(nobody)).all()
    lifecycle, loyalty = lifecycle_and_loyalty(nobody, 90.0)
    assert {list(LIFECYCLE)[i] for i in lifecycle} == {"prospect"}
    assert set(loyalty) == {-1}  # nobody who never bought wavers


@pytest.mark.parametrize(
    ("since", "days", "mean", "longest", "active", "stage", "rung"),
    [
        (5, 1, np.nan, np.nan, 1.0, "first", "wavering"),
        (61, 1, np.nan, np.nan, 1.0, "silent", "wavering"),
        (121, 1, np.nan, np.nan, 1.0, "churned", "lost"),
        (30, 4, 20, 35, 0.9, "repeat", "attached"),
        (41, 4, 20, 35, 0.9, "silent", "wavering"),  # beyond twice the usual gap
        (81, 4, 20, 35, 0.9, "churned", "lost"),
        (30, 9, 10, 35, 0.5, "loyal", "loyal"),
        (30, 9, 10, 35, 0.4, "repeat", "attached"),
        (36, 9, 10, 35, 0.9, "silent", "wavering"),
    ],
)
def test_ladders_follow_the_customers_own_rhythm(
    since: float, days: float, mean: float, longest: float, active: float, stage: str, rung: str
) -> None:
    frame = pd.DataFrame({
        "days_since_last": [since], "purchase_days_total": [days], "gap_days_mean": [mean], "gap_days_max": [longest],
        "active_share": [active],
    })  # fmt: skip
    lifecycle, loyalty = lifecycle_and_loyalty(frame, 60.0)
    assert (list(LIFECYCLE)[lifecycle[0]], list(LOYALTY)[loyalty[0]]) == (stage, rung)
    assert typical_rhythm(frame) == (90.0 if np.isnan(longest) else longest)


@pytest.mark.parametrize(
    ("complaints", "referrals", "rung"), [(0, 0, "attached"), (1, 0, "wavering"), (0, 2, "loyal"), (1, 1, "wavering")]
)
def test_a_complaint_takes_a_customer_down_the_loyalty_ladder_and_a_referral_up(
    complaints: float, referrals: float, rung: str
) -> None:
    frame = pd.DataFrame({
        "days_since_last": [30.0], "purchase_days_total": [4.0], "gap_days_mean": [20.0], "gap_days_max": [35.0],
        "active_share": [0.9], "complaint_count_60d": [0.0], "complaint_count_365d": [complaints],
        "referral_count_365d": [referrals],
    })  # fmt: skip
    assert LOYALTY[lifecycle_and_loyalty(frame, 60.0)[1][0]] == rung


def test_headroom_is_what_the_better_quarter_of_look_alikes_spends_beyond(panel: pd.DataFrame) -> None:
    snapshot = panel[panel["as_of"] == panel["as_of"].max()].reset_index(drop=True)
    peers = fit_peer_groups(snapshot, "net_amount_365d", 7)
    leaf, spend = leaf_of(peers.tree, snapshot), snapshot["net_amount_365d"].to_numpy()
    for n in range(leaf.max() + 1):
        upper = np.quantile(spend[leaf == n], UPPER)
        np.testing.assert_array_equal(peers.potential(snapshot)[leaf == n], np.maximum(upper - spend[leaf == n], 0))
    np.testing.assert_array_equal(peers.potential(snapshot.iloc[[5]])[0], peers.potential(snapshot)[5])


# nothing learned from the future


def bundle_of(trained: TrainedWorld, panel: pd.DataFrame) -> Bundle:
    span = timedelta(Labels.of(trained.project).delay_days)
    days = sorted({stamp.date() for stamp in panel["as_of"] if stamp.date() + span <= AS_OF})
    bundle, _ = fit_bundle(trained.project, panel, AS_OF, days, trained.trained.bundle.columns)
    return bundle


@pytest.fixture(scope="module")
def honest(trained: TrainedWorld, panel: pd.DataFrame) -> str:
    with quick_fits():
        return bundle_of(trained, panel[panel["as_of"] <= pd.Timestamp(AS_OF)]).version


@pytest.mark.usefixtures("quick")
def test_rows_and_outcomes_after_the_date_change_no_byte(
    trained: TrainedWorld, panel: pd.DataFrame, honest: str
) -> None:
    now, rng = pd.Timestamp(AS_OF), np.random.default_rng(1)
    spoiled = panel.copy()
    later = spoiled["as_of"] > now
    numbers = [*feature_names(panel), *OUTCOME_COLUMNS]
    spoiled.loc[later, numbers] = rng.normal(0, 1e6, (int(later.sum()), len(numbers)))
    ends_later = spoiled["as_of"] + pd.Timedelta(days=Labels.of(trained.project).delay_days) > now
    spoiled.loc[ends_later, list(OUTCOME_COLUMNS)] = 1e9
    assert later.any()
    assert (ends_later & ~later).any()
    assert bundle_of(trained, spoiled).version == honest


@pytest.mark.usefixtures("quick")
def test_a_change_in_the_known_past_does_change_the_bundle(
    trained: TrainedWorld, panel: pd.DataFrame, honest: str
) -> None:
    past = panel["as_of"] <= pd.Timestamp(AS_OF - timedelta(60))
    assert past.any()
    changed = panel.assign(outcome_value=np.where(past, panel["outcome_value"] * 2, panel["outcome_value"]))
    assert bundle_of(trained, changed).version != honest


@pytest.mark.usefixtures("quick")
def test_training_at_a_date_is_the_same_before_and_after_the_rest_happened(
    tmp_path_factory: pytest.TempPathFactory, trained: TrainedWorld
) -> None:
    """Train twice through files of one name: one ends at the date, one goes on, in another order."""
    rows = pd.read_parquet(str(trained.project.data.transactions.path))
    folder = tmp_path_factory.mktemp("cut")
    project = small_project(folder / "rows.parquet")
    rows[rows["day"] < pd.Timestamp(AS_OF)].to_parquet(folder / "rows.parquet", index=False)
    cut = train(project, AS_OF)
    later = rows["day"] >= pd.Timestamp(AS_OF)
    rows.loc[later, "amount"] *= -17
    rows.sample(frac=1, random_state=2).to_parquet(folder / "rows.parquet", index=False)
    assert train(project, AS_OF).bundle.version == cut.bundle.version
    assert cut.accounts["transactions"].used == (~later).sum()


@pytest.mark.usefixtures("quick")
def test_labels_that_end_after_the_data_are_dropped(trained: TrainedWorld) -> None:
    late = train(trained.project, LAST_DAY + timedelta(31)).bundle.facts
    assert date.fromisoformat(late["last_snapshot"]) + timedelta(60) <= LAST_DAY + timedelta(1)
    with pytest.raises(DataError, match="the last row is of 2023-12-31"):
        train(trained.project, date(2030, 1, 1))


def test_a_date_without_history_is_refused(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DataError, match="needs a snapshot at least 60 days earlier"):
        training_dates(trained.project, date(2022, 2, 1), date(2022, 1, 1))
    few = small_project(small_world(tmp_path_factory.mktemp("few") / "rows.parquet", customers=5))
    with pytest.raises(DataError, match=r"bring more history|too few"):
        train(few)
