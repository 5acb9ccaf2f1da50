"""The gate between challenger and champion: checks on their out-of-time predictions, which carry no customer ids.

Out-of-time predictions are of later snapshots than the members of a model were trained on. Intervals come from a
cluster bootstrap over customers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.errors import GateError
from tiermodel.evaluation.baselines import BASELINES
from tiermodel.evaluation.metrics import ece, ece_null_band, log_loss
from tiermodel.segments.fit import segment_count
from tiermodel.segments.selection import FLOOR
from tiermodel.tracking.checks import Check, Situation
from tiermodel.tracking.comparison import (
    MARGIN,
    Difference,
    Matched,
    changed_tiers,
    compared,
    has_tiers,
    matched,
    measure,
    resampled,
    tier_differences,
    with_rate,
)

__all__ = ["MOVED_SHARE", "judge", "judge_movement", "judge_segments"]


MOVED_SHARE = 0.1
"""The movement budget: the share of customers, and of the value, that may be in another tier after a promotion."""
_ECE_SLACK = 0.01
_TARGETS = ("churn", "value")


def judge(
    challenger: pd.DataFrame,
    champion: pd.DataFrame | None,
    situation: Situation | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[Check]:
    """Return the checks of a challenger's evaluation, by itself and against the champion's where there is one.

    A difference is beyond chance where its 95 % interval does not contain zero. By itself: churn log loss is better
    beyond chance than that of predicting each date's own churn rate, and not worse beyond chance than that of the best
    of this rate and `BASELINES`; the calibration error is at most what chance alone explains, plus 0.01.

    Against a champion, on the customers and dates that both models predicted: a new design is not worse beyond chance
    in churn log loss and in value Gini, and better beyond chance in one of these, in the value that its key tiers
    capture, or in their kappa, with intervals widened for as many looks. A refresh is not worse by more than a margin
    (`MARGIN` of the champion's lead over knowing nothing), by the whole interval. For both, tiers are not worse beyond
    chance, and no more than `MOVED_SHARE` of customers or value change tier: by `changes` (as `tier_changes` returns
    them), else on the last shared date. Where there are no pairs, each model is measured on its own dates, and churn by
    its gain in log loss over the churn rate of the date, because log loss itself varies with the season.

    Raises `GateError` where the challenger lacks the predictions of the baselines or has none while the champion has
    some, or where the two models define the label differently.
    """
    situation = situation or Situation()
    churn = challenger[challenger["target"] == "churn"]
    judged = champion is not None and bool((champion["target"] == "churn").any())
    checks = [_rolled_back(situation)] if situation.rolled_back else []
    if churn.empty:
        if judged:
            raise GateError(f"{situation.text('evaluation')}; {situation.text('do_evaluation')}")
        return [*checks, _evaluation(situation)]
    churn = with_rate(churn)
    checks += [_signal(churn, situation), _baselines(churn, situation), _calibration(churn, situation)]
    if champion is None:
        return checks
    if not judged:
        return [*checks, Check("improvement", passed=True, words=situation.text("champion_unjudged"))]
    return [*checks, *_against(challenger, champion, situation, changes)]


def judge_segments(state: Mapping[str, Any], situation: Situation | None = None) -> Check:
    """Return the check that a refit on resampled customers finds the same segments: only stable ones deserve names."""
    situation, groups = situation or Situation(), segment_count(state)
    remedy = situation.text("do_segments", fewer=max(groups - 1, 2))
    if "stability" not in state:
        return Check.of(situation, "segments", situation.text("segments_unknown"), passed=False, remedy=remedy)
    found = float(state["stability"])
    told = situation.text("segments", n=groups, found=found, limit=FLOOR)
    return Check.of(situation, "segments", told, passed=found >= FLOOR, remedy=remedy)


def _rolled_back(situation: Situation) -> Check:
    told, remedy = situation.text("rolled_back"), situation.text("do_rolled_back")
    return Check.of(situation, "rolled_back", told, passed=False, remedy=remedy)


def _evaluation(situation: Situation) -> Check:
    told, remedy = situation.text("evaluation"), situation.text("do_evaluation")
    return Check.of(situation, "evaluation", told, passed=False, remedy=remedy)


def _figures(situation: Situation, key: str, difference: Difference, verdict: str, **blanks: Any) -> str:
    """Return a finding as text: two figures, their difference and the verdict."""
    figures = situation.text(key, ours=difference.ours, theirs=difference.theirs, **blanks)
    told = {"figures": figures, "difference": difference.to_text(), "verdict": situation.text(verdict)}
    return situation.text("difference", **told)


def _beside(churn: pd.DataFrame, name: str) -> Difference:
    """Return the difference of the model's churn log loss and that of another column."""
    other = churn.assign(predicted=churn[name])
    draws = resampled(log_loss, churn, other, paired=True)
    return Difference(name, measure(log_loss, churn), measure(log_loss, other), draws, -1)


def _signal(churn: pd.DataFrame, situation: Situation) -> Check:
    found = _beside(churn, "rate")
    told = _figures(situation, "signal", found, "better" if found.better else "not_better")
    return Check.of(situation, "signal", told, passed=found.better, remedy=situation.text("do_signal"))


def _baselines(churn: pd.DataFrame, situation: Situation) -> Check:
    """Return the check against the churn rate or the baseline, whichever has the least log loss on the same rows."""
    if missing := [name for name in BASELINES if name not in churn or churn[name].isna().any()]:
        raise GateError(
            f"the challenger's out-of-time predictions lack the baselines {', '.join(missing)}: "
            "an older version kept them; train it again with --register"
        )
    losses = {name: measure(log_loss, churn, ("actual", name)) for name in ("rate", *BASELINES)}
    strongest = min(losses, key=losses.__getitem__)
    found = _beside(churn, strongest)
    named = {name: situation.words[f"model_{name}"] if situation.language == "zh" else name for name in losses}
    rest = (f"{named[name]} {loss:.4f}" for name, loss in losses.items() if name != strongest)
    others = situation.words["comma"].join(rest)
    verdict = "worse" if found.worse else "not_worse"
    told = _figures(situation, "baselines", found, verdict, name=named[strongest], others=others)
    remedy = situation.text("do_baselines", excess=found.ours - found.theirs)
    return Check.of(situation, "baselines", told, passed=not found.worse, remedy=remedy)


def _calibration(churn: pd.DataFrame, situation: Situation) -> Check:
    found, limit = measure(ece, churn), ece_null_band(churn["predicted"].to_numpy()) + _ECE_SLACK
    told = situation.text("calibration", found=found, limit=limit, slack=_ECE_SLACK)
    remedy = situation.text("do_calibration", excess=found - limit)
    return Check.of(situation, "calibration", told, passed=found <= limit, remedy=remedy)


def _against(
    challenger: pd.DataFrame, champion: pd.DataFrame, situation: Situation, changes: Mapping[str, Any] | None
) -> list[Check]:
    """Return the checks against a champion that has out-of-time predictions."""
    checks, found = [], list[Difference]()
    tables = {t: tuple(frame[frame["target"] == t] for frame in (challenger, champion)) for t in _TARGETS}
    _refuse_another_label(*tables["churn"])
    pairs = {target: matched(*both) for target, both in tables.items() if all(map(len, both))}
    for target in _TARGETS:
        if target in pairs:
            found.append(compared(target, pairs[target]))
            checks.append(_not_worse(found[-1], target, pairs[target], situation))
        else:
            checks.append(_missing(target, tables[target][0].empty, situation))
    value = tables["value"]
    tiers: list[Difference] = []
    if all(has_tiers(frame) for frame in value):
        tiers = tier_differences(pairs["value"])
        checks += [_tiers_not_worse(one, pairs["value"], situation) for one in tiers]
    else:
        whose = situation.text("the_challenger" if not has_tiers(value[0]) else "the_champion")
        checks.append(Check("kappa", passed=True, words=situation.text("tiers_unknown", whose=whose)))
    checks.append(
        _within_margin(found, pairs["churn"], situation)
        if situation.refresh
        else _improved([*found, *tiers], situation)
    )
    then = changed_tiers(pairs["value"]) if tiers else None
    return [*checks, judge_movement(changes or then, situation, now=changes is not None)]


def _missing(target: str, ours: bool, situation: Situation) -> Check:
    """Return the check of a target that one of the models did not predict: the challenger's own fault if it is that."""
    whose = situation.text("the_challenger" if ours else "the_champion")
    told = situation.text("missing", target=target, whose=whose)
    return Check.of(situation, target, told, passed=not ours, remedy=situation.text("do_evaluation"))


def _refuse_another_label(ours: pd.DataFrame, theirs: pd.DataFrame) -> None:
    """Raise `GateError` where the two models define the label differently."""
    question, before = ours["question"].iloc[0], theirs["question"].iloc[0]
    if question != before:
        raise GateError(
            f"the challenger answers {question!r}, the champion {before!r}: they cannot be compared; "
            "give the project another name, so that the new question gets its own champion"
        )


def _where(both: Matched, situation: Situation) -> str:
    """Return a text on what two models were compared on."""
    if both.paired:
        dates = situation.words["comma"].join(sorted(both.ours["as_of"].unique()))
        return situation.text("paired", rows=len(both.ours), customers=both.ours["key"].nunique(), dates=dates)
    spans = [situation.text("span", first=frame["as_of"].min(), last=frame["as_of"].max()) for frame in both[:2]]
    return situation.text("unpaired", ours=spans[0], theirs=spans[1])


def _not_worse(found: Difference, target: str, both: Matched, situation: Situation) -> Check:
    """Return the check that nobody can overrule: not worse beyond chance, for a refresh by more than the margin."""
    failed = found.beyond_margin if situation.refresh else found.worse
    if situation.refresh:
        verdict = "more_than_margin" if failed else "no_more"
    else:
        verdict = "better" if found.better else "worse" if failed else "not_worse"
    told = _figures(situation, found.name, found, verdict, where=_where(both, situation))
    return Check.of(situation, target, told, passed=not failed, remedy=situation.text("do_worse"))


def _tiers_not_worse(found: Difference, both: Matched, situation: Situation) -> Check:
    verdict = "better" if found.better else "worse" if found.worse else "not_worse"
    told = _figures(situation, found.name, found, verdict, where=_where(both, situation))
    return Check.of(situation, found.name, told, passed=not found.worse, remedy=situation.text("do_look"))


def _improved(found: Sequence[Difference], situation: Situation) -> Check:
    """Return the check that a new design is better in something; the intervals are widened for as many looks."""
    tail = 0.025 / len(found)
    named = {one.name: situation.text(f"name_{one.name}") for one in found}
    names = [named[one.name] for one in found if one.gain(tail)[0] > 0]
    shown = names or [f"{named[one.name]} {one.to_text(tail)}" for one in found]
    told = situation.text(
        "better_found" if names else "better_none", n=len(found), names=situation.words["semicolon"].join(shown)
    )
    return Check.of(situation, "improvement", told, passed=bool(names), remedy=situation.text("do_better"))


def _within_margin(found: Sequence[Difference], both: Matched, situation: Situation) -> Check:
    """Return the check that a refresh loses no more than the margin, by the whole interval."""
    kept = all(one.within_margin for one in found)
    parts = [
        situation.text(
            "margin_one",
            name=situation.text(f"name_{one.name}"),
            difference=one.to_text(),
            margin=one.margin,
            verdict=situation.text("margin_kept" if one.within_margin else "margin_open"),
        )
        for one in found
    ]
    told = situation.text("margin", share=MARGIN, names=situation.words["semicolon"].join(parts))
    if both.paired:
        remedy = situation.text("do_margin", customers=both.ours["key"].nunique())
    else:
        remedy = situation.text("do_aligned" if situation.aligned else "do_same_customers")
    return Check.of(situation, "margin", told, passed=kept, remedy=remedy)


def judge_movement(changes: Mapping[str, Any] | None, situation: Situation, *, now: bool) -> Check:
    """Return the check of the movement budget: customers who would change tier, and their share of the value.

    `now` is whether `changes` are those of the training's snapshot, not of a past date.
    """
    if changes is None:
        told, remedy = situation.text("movement_unknown"), situation.text("do_movement_unknown")
        return Check.of(situation, "movement", told, passed=False, remedy=remedy)
    moved, total = changes["up"] + changes["down"], changes["value"]
    share = moved / max(changes["customers"], 1)
    value = changes["moved_value"] / total if total > 0 else np.nan
    told = situation.text(
        "movement",
        moved=moved,
        customers=changes["customers"],
        share=share,
        up=changes["up"],
        down=changes["down"],
        value=value,
        where=situation.text("movement_now" if now else "movement_then"),
        limit=MOVED_SHARE,
    )
    over = share > MOVED_SHARE or value > MOVED_SHARE
    return Check.of(situation, "movement", told, passed=not over, remedy=situation.text("do_look"))
