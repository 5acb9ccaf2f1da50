"""The gate and the evaluations it reads: pairing, chance, calibration, and nobody named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from gate_simulation import NEVER_MOVES, Errors, passes, twice_the_margin
from tiermodel.backtesting import tier_value
from tiermodel.config.project import Project
from tiermodel.errors import GateError
from tiermodel.evaluation.baselines import BASELINES
from tiermodel.evaluation.metrics import log_loss
from tiermodel.tracking import comparison
from tiermodel.tracking.artifacts import EVALUATION, MEMBERS, evaluation_table
from tiermodel.tracking.checks import ADVISORY, BLOCKING, Situation
from tiermodel.tracking.gate import judge
from tiermodel.training.later_tiers import LEVELS
from worlds import ID_MARK, TrainedWorld, spoiled

Later = dict[str, pd.DataFrame]


@pytest.fixture(autouse=True)
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep intervals quick; what the tests compare differs clearly."""
    monkeypatch.setattr(comparison, "DRAWS_AT_MOST", 400)


def judged(trained: TrainedWorld) -> Later:
    """Give the small world's out-of-time predictions, beside those of baselines that know a little."""
    later = trained.trained.out_of_fold
    shared = later["churn"]["predicted"] * 0.3 + later["churn"]["actual"].mean() * 0.7
    return {**later, "churn": later["churn"].assign(logistic_rfm=shared, mbg_nbd=0.5)}


def failed(project: Project, challenger: Later, champion: Later | None) -> list[str]:
    """Give the words of the checks that did not pass."""
    table = None if champion is None else evaluation_table(project, champion)
    return [check.words for check in judge(evaluation_table(project, challenger), table) if not check.passed]


def test_an_evaluation_pairs_without_naming_anyone(trained: TrainedWorld) -> None:
    table = evaluation_table(trained.project, judged(trained))
    assert tuple(table.columns) == (*EVALUATION, *BASELINES, *MEMBERS, *LEVELS)
    assert not table.astype(str).apply(lambda column: column.str.contains(ID_MARK)).any(axis=None)
    shuffled = {target: frame.sample(frac=1, random_state=1) for target, frame in judged(trained).items()}
    pd.testing.assert_frame_equal(evaluation_table(trained.project, shuffled), table)
    churn = judged(trained)["churn"].sort_values(["as_of", "customer_id"])
    same = table[table["target"] == "churn"].groupby("key").size().value_counts().sort_index()
    pd.testing.assert_series_equal(
        same, churn.groupby("customer_id").size().value_counts().sort_index(), check_names=False
    )


def test_a_good_first_model_passes(trained: TrainedWorld) -> None:
    assert failed(trained.project, judged(trained), None) == []


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
    assert words in " ".join(failed(trained.project, with_churn(judged(trained), change), None))


def test_a_model_worse_than_a_baseline_is_refused_with_its_name_and_figures(trained: TrainedWorld) -> None:
    good, table = judged(trained), evaluation_table(trained.project, judged(trained))
    own = good["churn"]["predicted"]
    for name in BASELINES:
        knowing = {**good, "churn": good["churn"].assign(**{name: own * 0.5 + good["churn"]["actual"] * 0.5})}
        found = failed(trained.project, knowing, None)
        assert len(found) == 1
        assert f"strongest baseline {name} 0." in found[0]
        assert found[0].endswith(", worse beyond chance")
    equal = {**good, "churn": good["churn"].assign(mbg_nbd=own)}
    words = judge(evaluation_table(trained.project, equal), None)[1].words
    assert "strongest baseline mbg_nbd" in words
    assert words.endswith("[+0.0000, +0.0000], not worse beyond chance")
    assert table.loc[table["target"] != "churn", list(BASELINES)].isna().all(axis=None)


def test_a_challenger_without_baselines_is_refused_but_an_old_champion_is_not(trained: TrainedWorld) -> None:
    good = judged(trained)
    table = evaluation_table(trained.project, good)
    old = evaluation_table(trained.project, spoiled(good, "churn"))[list(EVALUATION)]
    assert {check.name for check in judge(table, old) if not check.passed} == {"movement"}  # it has no tiers either
    assert all(check.passed for check in judge(table, old, changes=NEVER_MOVES))
    without = {**good, "churn": good["churn"].drop(columns="mbg_nbd")}
    for challenger in (table[list(EVALUATION)], evaluation_table(trained.project, without)):
        with pytest.raises(GateError, match=r"lack the baselines .*mbg_nbd.*train it again"):
            judge(challenger, None)


def season(share: float, knowledge: float, start: str) -> pd.DataFrame:
    """Make an evaluation of one date: so many churn, and the log-odds differ by `knowledge` between two halves."""
    draw = np.random.default_rng(5)
    odds = np.log(share / (1 - share)) + knowledge * np.repeat([-0.5, 0.5], 1000)
    predicted = 1 / (1 + np.exp(-odds))
    frame = pd.DataFrame({"customer_id": [f"{n:05d}" for n in range(2000)], "as_of": pd.Timestamp(start)})
    churned = (draw.random(2000) < predicted).astype(float)
    return frame.assign(actual=churned, predicted=predicted, logistic_rfm=0.5, mbg_nbd=0.5)


@pytest.mark.parametrize(("knowing", "before", "passes"), [(3.0, 1.0, True), (1.0, 3.0, False)])
def test_a_season_does_not_decide_between_models_of_other_dates(
    trained: TrainedWorld, knowing: float, before: float, passes: bool
) -> None:
    calm, busy = (0.5, 0.05) if passes else (0.05, 0.5)  # the worse model has the date whose log loss is low anyway
    ours, theirs = season(calm, knowing, "2023-06-01"), season(busy, before, "2023-01-01")
    levels = [log_loss(f["actual"].to_numpy(), f["predicted"].to_numpy()) for f in (ours, theirs)]
    assert (levels[0] > levels[1]) == passes
    tables = [evaluation_table(trained.project, {"churn": frame}) for frame in (ours, theirs)]
    found = {check.name: check for check in judge(tables[0], tables[1])}
    assert found["churn"].words.startswith("churn log loss gained over predicting the churn rate of its own dates 0.")
    assert "unpaired" in found["churn"].words
    assert found["churn"].passed == found["improvement"].passed == passes


def test_an_interval_of_many_rows_has_400_draws_at_least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "DRAWN_ROWS", 1)
    frame, calls = pd.DataFrame({"key": [0, 1], "actual": 0.0, "predicted": 0.0}), []

    def counted(actual: Any, predicted: Any) -> float:
        calls.append(len(actual) + len(predicted))
        return 0.0

    comparison.resampled(counted, frame, frame, paired=True)
    assert len(calls) >= 2 * 400


def test_only_a_better_challenger_passes(trained: TrainedWorld) -> None:
    project, good = trained.project, judged(trained)
    bad = spoiled(good, "churn")
    assert failed(project, good, bad) == []
    assert any(words.startswith("churn log loss") and "champion" in words for words in failed(project, bad, good))
    equal = failed(project, good, good)
    assert len(equal) == 1
    assert "of 4 measures none is better beyond chance" in equal[0]
    assert "churn +0.0000 [+0.0000, +0.0000]" in equal[0]


def test_better_churn_does_not_excuse_worse_value(trained: TrainedWorld) -> None:
    good = judged(trained)
    found = failed(trained.project, spoiled(good, "value"), spoiled(good, "churn"))
    assert len(found) == 1
    assert found[0].startswith("value Gini")
    assert "worse beyond chance" in found[0]


def test_models_of_overlapping_dates_are_paired_on_what_they_share(trained: TrainedWorld) -> None:
    project, good = trained.project, judged(trained)
    last = good["churn"]["as_of"].max()
    recent = {target: frame[frame["as_of"] == last] for target, frame in good.items()}
    checks = judge(evaluation_table(project, recent), evaluation_table(project, spoiled(good, "churn", noise=2.5)))
    assert f"paired on {len(recent['churn'])} predictions" in checks[3].words
    assert checks[3].words.count("2023-") == 1
    assert all(check.passed for check in checks)


def test_models_judged_on_other_customers_are_compared_unpaired(trained: TrainedWorld) -> None:
    project, good = trained.project, judged(trained)
    half = {target: frame[frame["customer_id"] < f"{ID_MARK}000200"] for target, frame in good.items()}
    checks = judge(evaluation_table(project, good), evaluation_table(project, spoiled(half, "churn", 4.0)))
    assert "unpaired because no date has the same customers" in checks[3].words
    assert checks[3].passed
    equal = {check.name: check for check in judge(evaluation_table(project, good), evaluation_table(project, half))}
    assert equal["churn"].passed
    assert not equal["improvement"].passed
    assert not equal["movement"].passed


def test_models_that_answer_different_questions_are_not_compared(trained: TrainedWorld) -> None:
    project, good = trained.project, judged(trained)
    other = project.model_copy(update={"outcome": project.outcome.model_copy(update={"horizon_days": 30})})
    with pytest.raises(GateError, match="give the project another name"):
        judge(evaluation_table(other, good), evaluation_table(project, good))


def test_a_model_without_out_of_time_predictions_may_be_accepted_as_the_first_one_only(trained: TrainedWorld) -> None:
    empty = {target: frame.iloc[:0] for target, frame in judged(trained).items()}
    table, good = evaluation_table(trained.project, empty), evaluation_table(trained.project, judged(trained))
    assert tuple(table.columns) == (*EVALUATION, *BASELINES, *MEMBERS, *LEVELS)
    (check,) = judge(table, None, Situation("shop", "1", waits="2024-05-01"))
    assert (check.name, check.passed, check.blocking) == ("evaluation", False, False)
    assert "train again once the log reaches 2024-05-01" in check.remedy
    with pytest.raises(GateError, match="no out-of-time predictions"):
        judge(table, good)
    first = {check.name: check.passed for check in judge(good, table)}  # nothing to compare with
    assert first == {"signal": True, "baselines": True, "calibration": True, "improvement": True}


def test_every_failed_check_says_what_to_do_in_both_languages_and_advisory_ones_how_to_accept(
    trained: TrainedWorld,
) -> None:
    project, good = trained.project, judged(trained)
    bad = spoiled(spoiled(good, "churn", 4.0), "value", 4.0)
    challenger, champion = (evaluation_table(project, later) for later in (bad, good))
    moved = {"customers": 200, "up": 30, "down": 11, "value": 1000.0, "moved_value": 333.0}
    for language in ("en", "zh"):
        for refresh in (False, True):
            now = Situation("shop", "3", "2", refresh=refresh, rolled_back=True, store="x.db", language=language)
            checks = judge(challenger, champion, now, moved)
            names = [check.name for check in checks if not check.passed]
            assert {"rolled_back", "baselines", "churn", "value", "movement"} <= set(names)
            assert ("margin" if refresh else "improvement") in names
            for check in checks:
                assert bool(check.remedy) != check.passed
                accept = f"tiermodel promote shop --challenger 3 --tracking-uri x.db --accept {check.name} "
                assert (accept in check.remedy) == (not check.passed and check.name in ADVISORY)
                assert check.blocking == (check.name in BLOCKING)
                assert "{" not in f"{check.words}{check.remedy}".replace("groups: ", "")
            words = next(check.words for check in checks if check.name == "movement")
            assert all(figure in words for figure in ("41", "200", "20.5%", "30", "11", "33.3%", "10%"))


def test_a_refresh_that_is_not_worse_passes_where_a_new_design_does_not(trained: TrainedWorld) -> None:
    table = evaluation_table(trained.project, judged(trained))
    new, refresh = Situation(champion="1"), Situation(champion="1", refresh=True)
    assert [check.name for check in judge(table, table, new) if not check.passed] == ["improvement"]
    assert all(check.passed for check in judge(table, table, refresh))
    worse = evaluation_table(trained.project, spoiled(judged(trained), "churn"))
    assert {check.name for check in judge(worse, table, refresh) if not check.passed} >= {"churn", "margin"}


def test_worse_tiers_are_found_though_churn_and_value_are_equal(trained: TrainedWorld) -> None:
    table = evaluation_table(trained.project, judged(trained))
    rows = table["level"].notna()
    draw = np.random.default_rng(3).permutation(np.flatnonzero(rows))
    worse = table.copy()
    worse.loc[rows, list(LEVELS)] = table.iloc[draw][list(LEVELS)].to_numpy()
    found = {check.name: check for check in judge(worse, table, Situation(champion="1"), NEVER_MOVES)}
    assert {name for name, check in found.items() if not check.passed} == {"value_captured", "kappa", "improvement"}
    assert "worse beyond chance" in found["kappa"].words
    swapped = {check.name: check for check in judge(table, worse, Situation(champion="1"))}
    assert "value_captured" in swapped["improvement"].words
    assert swapped["improvement"].passed
    assert not swapped["movement"].passed  # by the tiers of the last shared date


def test_the_figures_of_the_gate_hold_on_pairs_of_known_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    """`bench_gate.py` prints them for more customers and trials; here the seeds are fixed."""
    monkeypatch.setattr(comparison, "DRAWN_ROWS", 1)  # as few draws as the gate ever takes
    monkeypatch.setattr(tier_value, "DRAWS_AT_MOST", 200)
    trials = 8
    equal = [passes(n, 500, Errors(), Errors(), refresh=False)["gate"] for n in range(trials)]
    same = [passes(n, 500, Errors(), Errors(), refresh=True, shared=0.95)["gate"] for n in range(trials)]
    worse = [
        passes(n, 500, twice_the_margin(target), Errors(), refresh=True, shared=0.95)["gate"]
        for target in ("churn", "value")
        for n in range(trials // 2)
    ]
    assert (sum(equal), sum(worse)) == (0, 0)
    assert sum(same) >= trials - 1
