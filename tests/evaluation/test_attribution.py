"""Learners apart: what each would have predicted alone, and what each input adds to a prediction, to the last digit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tiermodel.arrays import Floats
from tiermodel.bundle.bundle import Bundle
from tiermodel.evaluation.attribution import churn_contributions, importance, value_contributions
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.models import churn, value
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.logit import log_odds
from tiermodel.models.learners.boosting import fit_boosted
from tiermodel.models.learners.linear import Linear, fit_logistic, fit_ridge
from worlds import TrainedWorld


@pytest.fixture(scope="module")
def bundle(trained: TrainedWorld) -> Bundle:
    return trained.trained.bundle


@pytest.fixture(scope="module")
def x(trained: TrainedWorld, bundle: Bundle) -> Floats:
    """Give the inputs of all buyers on the day of training, missing values among them."""
    snapshot = build_panel(trained.project, [pd.Timestamp(bundle.facts["as_of"]).date()])
    found = bundle.inputs.matrix(snapshot[has_bought(snapshot)])
    assert np.isnan(found).any()
    return found


# members


@pytest.mark.parametrize(("target", "names"), [("churn", churn.MEMBERS), ("value", value.MEMBERS)])
def test_every_member_predicts_alone_at_the_level_of_the_blend(
    trained: TrainedWorld, target: str, names: tuple[str, ...]
) -> None:
    later = trained.trained.out_of_fold[target]
    assert len(later["as_of"].unique()) > 1
    means = later.groupby("as_of")[["predicted", *names]].mean()
    for name in names:
        assert means[name].to_numpy() == pytest.approx(means["predicted"].to_numpy(), rel=1e-4)
        assert later[name].nunique() > 50
        assert later[name].corr(later["predicted"], method="spearman") > 0.5


def test_the_blend_lies_within_its_members(trained: TrainedWorld) -> None:
    """Weights are not negative and factors add up, so the value blend is a mean of its members."""
    later = trained.trained.out_of_fold["value"]
    members = later[list(value.MEMBERS)]
    assert (later["predicted"] >= members.min(axis=1) * (1 - 1e-9)).all()
    assert (later["predicted"] <= members.max(axis=1) * (1 + 1e-9)).all()


# contributions


def test_contributions_add_up_to_the_log_odds_of_churn(bundle: Bundle, x: Floats) -> None:
    baseline, each = churn_contributions(bundle.churn, x)
    assert each.shape == x.shape
    assert baseline + each.sum(axis=1) == pytest.approx(log_odds(bundle.churn.predict(x)), abs=1e-9)


def test_contributions_add_up_to_the_expected_value(bundle: Bundle, x: Floats) -> None:
    baseline, each = value_contributions(bundle.value, x)
    predicted = bundle.value.predict(x)
    assert np.ptp(predicted) > 100
    assert baseline + each.sum(axis=1) == pytest.approx(predicted, abs=1e-9)


def test_a_batch_says_of_a_customer_what_the_customer_alone_says(bundle: Bundle, x: Floats) -> None:
    alone = x[3:4]
    together = churn_contributions(bundle.churn, x)[1], value_contributions(bundle.value, x)[1]
    single = churn_contributions(bundle.churn, alone)[1], value_contributions(bundle.value, alone)[1]
    for batch, one in zip(together, single, strict=True):
        assert batch[3] == pytest.approx(one[0], rel=1e-12)


def test_terms_of_a_line_are_coefficient_times_standardised_input(bundle: Bundle, x: Floats) -> None:
    linear = bundle.churn.compact
    found = linear.contributions(x)
    for j, column in enumerate(linear.columns[:4]):
        known = ~np.isnan(x[:, column])
        z = np.log1p(np.clip(x[known, column], linear.low[j], linear.high[j]))
        wanted = linear.coefficient[j] * (z - linear.mean[j]) / linear.scale[j]
        if j not in linear.flagged:
            assert found[known, column] == pytest.approx(wanted, rel=1e-9)
    unread = sorted(set(range(x.shape[1])) - set(linear.columns))
    assert not found[:, unread].any()
    assert linear.intercept + found.sum(axis=1) == pytest.approx(linear.decision(x), abs=1e-9)


def planted(rows: int = 1_200) -> tuple[value.ValueModel, Floats, churn.ChurnModel]:
    """Fit both blends on inputs of which one raises the outcome, one lowers it, and one says nothing."""
    draw = np.random.default_rng(5)
    names = ("raises", "lowers", "idle", *BTYD_INPUTS)
    x = np.asfortranarray(draw.gamma(2.0, 2.0, (rows, len(names))))
    x[:, [3, 6]] = np.clip(x[:, [3, 6]] / 20, 0.01, 0.99)
    score = 1.5 * np.log1p(x[:, 0]) - 1.0 * np.log1p(x[:, 1])
    left, spent = draw.random(rows) < 1 / (1 + np.exp(-score)), np.exp(score) * draw.gamma(2.0, 0.5, rows)
    seed, few = 1, [0, 1]
    trees = fit_boosted(x, left.astype(float), list(names), 60, seed, objective="binary")
    blend = (0.1, 0.5, 0.2, 0.3, 0.0, 0.0)
    risk = churn.ChurnModel(names, fit_logistic(x, left), fit_logistic(x, left, few), trees, blend)
    grown = fit_boosted(x, spent, list(names), 60, seed, objective="tweedie")
    line = fit_ridge(x, np.sqrt(spent))
    return value.ValueModel(names, line, grown, fit_logistic(x, left), 0.0, (0.5, 0.5, 0.0)), x, risk


def test_importance_finds_what_was_planted() -> None:
    worth, x, risk = planted()
    for rows in importance(risk, worth, x, x).values():
        assert {row["feature"] for row in rows[:2]} == {"raises", "lowers"}
        assert [row["size"] for row in rows] == sorted((row["size"] for row in rows), reverse=True)
        direction = {row["feature"]: row["direction"] for row in rows}
        assert direction["raises"] > 0.9
        assert direction["lowers"] < -0.9
        size = {row["feature"]: row["size"] for row in rows}
        assert size.get("idle", 0.0) < size["lowers"] / 4


def test_importance_is_the_mean_distance_from_the_mean_contribution() -> None:
    worth, x, risk = planted()
    _, each = churn_contributions(risk, x[::2])
    wanted = np.abs(each[:, 0] - each[:, 0].mean()).mean()
    found = importance(risk, worth, x, x)["churn"]  # 1,200 rows: every second is looked at
    assert next(row["size"] for row in found if row["feature"] == "raises") == pytest.approx(wanted, rel=1e-5)


def test_an_input_that_does_not_differ_has_no_direction_and_nobody_gives_nothing() -> None:
    worth, x, risk = planted()
    same = np.repeat(x[:1], 30, axis=0)
    assert importance(risk, worth, same, x[:0]) == {"churn": [], "value": []}
    x[:, 3] = 0.5  # MBG/NBD counts here, though it says the same of everybody
    assert all(row["feature"] != BTYD_INPUTS[0] for row in importance(risk, worth, x, x)["churn"][:2])


def test_terms_that_cancel_share_out_nothing_and_a_square_is_flat_below_zero() -> None:
    worth, x, _ = planted()
    one = Linear("root", [0, 1], [0.0] * 2, [9.0] * 2, [0.0] * 2, [], [1.0] * 2, [1.0] * 2, [2.0, -2.0], 3.0)
    model = replace(worth, linear=one, factors=(1.0, 0.0, 0.0))
    rows = np.array(x[:3])
    rows[:, :2] = [[4.0, 4.0], [4.0, 1.0], [0.0, 9.0]]  # roots 2, 2 | 2, 1 | 0, 3: scores 3, 5, -3
    baseline, each = value_contributions(model, rows)
    assert baseline == 9.0
    assert each[:, 0] == pytest.approx([12.0, 16.0, -3.0], rel=1e-6)  # the slope is 6 | all of 25 - 9 | a third of -9
    assert each[:, 1] == pytest.approx([-12.0, 0.0, -6.0], rel=1e-6)


def test_the_bundle_keeps_the_importance_of_its_own_customers(bundle: Bundle, x: Floats) -> None:
    found = importance(bundle.churn, bundle.value, x, x)
    assert bundle.facts["importance"] == found
    assert all(len(rows) == 12 for rows in found.values())
    assert found["churn"][0] == {**found["churn"][0], "feature": "expected_p_zero"}
    assert found["churn"][0]["direction"] > 0.9
