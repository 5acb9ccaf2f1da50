"""The gate and the evaluations it reads: pairing, chance, calibration, and nobody named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel import gate
from tiermodel.config import Project
from tiermodel.errors import GateError
from tiermodel.evaluation import EVALUATION, evaluation_table
from tiermodel.gate import judge
from worlds import ID_MARK, TrainedWorld, spoiled

Later = dict[str, pd.DataFrame]


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep intervals quick; what the tests compare differs clearly."""
    monkeypatch.setattr(gate, "_DRAWS_AT_MOST", 200)


def failed(project: Project, challenger: Later, champion: Later | None) -> list[str]:
    """Give the words of the checks that did not pass."""
    table = None if champion is None else evaluation_table(project, champion)
    return [check.words for check in judge(evaluation_table(project, challenger), table) if not check.passed]


def test_an_evaluation_pairs_without_naming_anyone(trained: TrainedWorld) -> None:
    table = evaluation_table(trained.project, trained.trained.later)
    assert tuple(table.columns) == EVALUATION
    assert not table.astype(str).apply(lambda column: column.str.contains(ID_MARK)).any(axis=None)
    shuffled = {target: frame.sample(frac=1, random_state=1) for target, frame in trained.trained.later.items()}
    pd.testing.assert_frame_equal(evaluation_table(trained.project, shuffled), table)
    churn = trained.trained.later["churn"].sort_values(["as_of", "customer_id"])
    same = table[table["target"] == "churn"].groupby("key").size().value_counts().sort_index()
    pd.testing.assert_series_equal(
        same, churn.groupby("customer_id").size().value_counts().sort_index(), check_names=False
    )


def test_a_good_first_model_passes(trained: TrainedWorld) -> None:
    assert failed(trained.project, trained.trained.later, None) == []


def with_churn(later: Later, change: Callable[[pd.Series], Any]) -> Later:
    return {**later, "churn": later["churn"].assign(predicted=change(later["churn"]["predicted"]))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: np.full(len(p), p.mean()), "predicting the churn rate"),
        (lambda p: 1 - p, "predicting the churn rate"),
        (lambda p: 0.25 + p / 2, "calibration error"),
    ],
)
def test_a_first_model_that_knows_nothing_or_is_uncalibrated_is_refused(
    trained: TrainedWorld, change: Callable[[pd.Series], Any], words: str
) -> None:
    assert words in " ".join(failed(trained.project, with_churn(trained.trained.later, change), None))


def test_only_a_better_challenger_passes(trained: TrainedWorld) -> None:
    project, good = trained.project, trained.trained.later
    bad = spoiled(good, "churn")
    assert failed(project, good, bad) == []
    assert any(words.startswith("churn log loss") and "champion" in words for words in failed(project, bad, good))
    equal = failed(project, good, good)
    assert len(equal) == 1
    assert "[+0.0000, +0.0000], not better beyond chance" in equal[0]


def test_better_churn_does_not_excuse_worse_value(trained: TrainedWorld) -> None:
    good = trained.trained.later
    found = failed(trained.project, spoiled(good, "value"), spoiled(good, "churn"))
    assert len(found) == 1
    assert found[0].startswith("value Gini")
    assert "worse beyond chance" in found[0]


def test_models_of_overlapping_dates_are_paired_on_what_they_share(trained: TrainedWorld) -> None:
    project, good = trained.project, trained.trained.later
    last = good["churn"]["as_of"].max()
    recent = {target: frame[frame["as_of"] == last] for target, frame in good.items()}
    checks = judge(evaluation_table(project, recent), evaluation_table(project, spoiled(good, "churn")))
    assert f"paired on {len(recent['churn'])} predictions" in checks[2].words
    assert checks[2].words.count("2023-") == 1
    assert all(check.passed for check in checks)


def test_models_judged_on_other_customers_are_compared_unpaired(trained: TrainedWorld) -> None:
    project, good = trained.project, trained.trained.later
    half = {target: frame[frame["customer_id"] < f"{ID_MARK}000200"] for target, frame in good.items()}
    checks = judge(evaluation_table(project, good), evaluation_table(project, spoiled(half, "churn", 4.0)))
    assert "unpaired because no date has the same customers" in checks[2].words
    assert checks[2].passed
    assert not judge(evaluation_table(project, good), evaluation_table(project, half))[2].passed


def test_models_that_answer_different_questions_are_not_compared(trained: TrainedWorld) -> None:
    project, good = trained.project, trained.trained.later
    other = project.model_copy(update={"outcome": project.outcome.model_copy(update={"horizon_days": 30})})
    with pytest.raises(GateError, match="give the project another name"):
        judge(evaluation_table(other, good), evaluation_table(project, good))


def test_a_model_without_out_of_time_predictions_is_refused(trained: TrainedWorld) -> None:
    empty = {target: frame.iloc[:0] for target, frame in trained.trained.later.items()}
    table = evaluation_table(trained.project, empty)
    assert tuple(table.columns) == EVALUATION
    with pytest.raises(GateError, match="train on a longer history"):
        judge(table, None)
