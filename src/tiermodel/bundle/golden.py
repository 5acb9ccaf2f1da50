"""Golden rows: made-up customers and the scores that they got when the bundle was made; loading scores them again.

They find a bundle whose numbers were changed, and one whose numbers do not score at all. No row is of a customer:
values are drawn within the bounds that hold 99 % of the training rows, which the bundle has in any case.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.bundle.proof import checked_json
from tiermodel.bundle.ranges import refuse_beyond
from tiermodel.errors import ModelError, TierModelError
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.models.elementary import expm1
from tiermodel.models.learners.preprocessing import signed_log
from tiermodel.models.learners.readable_tree import round_readable
from tiermodel.segments.fit import assign_segments, segment_names
from tiermodel.tiers.fitted_features import headroom
from tiermodel.tiers.lifecycle import silence_ratio

Bundle = Any
"""A `Bundle`, whose module imports this one."""

__all__ = ["golden_data", "refuse_other_scores"]

_BUYERS, _PROSPECTS, _SEED = 120, 8, 7  # they reach nine of ten leaves of the demo's trees
_MISSING = 0.2  # of the values of a feature that training rows lacked
_DIGITS = 12
_CLOSE = 1e-9  # C libraries may differ in the last bits of a logarithm
_EXACT = ("tier", "rule", "lowest_sure", "highest_sure", "set_low", "set_high", "segment")


def golden_data(bundle: Bundle) -> dict[str, Any]:
    """Return made-up rows and their scores as plain data: the content of `golden.json`."""
    frame = _made_up(bundle)
    rows = {name: _plain(frame[name]) for name in frame if name not in KEYS}
    return {"rows": rows, "scores": {name: _plain(column) for name, column in _scores(bundle, frame).items()}}


def refuse_other_scores(bundle: Bundle, folder: Path, golden: tuple[Path, bytes] | None) -> None:
    """Raise `ModelError` where made-up rows cannot be scored, or get other scores than when the bundle was made.

    `golden` is the file with them; None for bundles of earlier versions, whose rows have to be scored at all.
    """
    data = None if golden is None else checked_json(*golden)
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what overflows is found in the scores
            frame = _made_up(bundle) if data is None else _stored(bundle, data["rows"])
            found = _scores(bundle, frame)
            _try_words(bundle, frame)
            wanted = {} if data is None else {name: _numbers(column) for name, column in data["scores"].items()}
    except TierModelError as error:
        raise ModelError(f"{folder}: made-up customers cannot be scored: {error}") from error
    except Exception as error:  # whatever a damaged number leads to, it is the bundle's fault and said in one line
        told = " ".join(repr(error).split())[:200]
        raise ModelError(f"{folder}: made-up customers cannot be scored: {told}; train it again") from error
    if data is not None:
        _compare(golden[0] if golden else folder, found, wanted)


def _compare(where: Path, found: Mapping[str, Floats], wanted: Mapping[str, Floats]) -> None:
    for name, then in wanted.items():  # a bundle of an earlier version may lack scores that are new
        if name not in found:
            raise ModelError(f"{where}: this bundle has no {name}, as it had when it was made; copy the bundle again")
        now = found[name]
        close = 0.0 if name in _EXACT else _CLOSE
        same = len(then) == len(now) and np.isclose(now, then, rtol=close, atol=close, equal_nan=True)
        if not np.all(same):
            at = int(np.flatnonzero(~np.asarray(same))[0]) if len(then) == len(now) else 0
            raise ModelError(
                f"{where}: this bundle does not score as it did when it was made: {name} of made-up customer {at} was "
                f"{then[at] if at < len(then) else None}, and is {now[at]}; copy the bundle again, or train it again"
            )


def _made_up(bundle: Bundle) -> pd.DataFrame:
    """Return made-up buyers and prospects, with values that are missing where training rows lacked some."""
    draw, names, linear = np.random.default_rng(_SEED), list(bundle.inputs.names), bundle.churn.linear
    bounds = dict(zip(linear.columns, zip(linear.low, linear.high, strict=True), strict=True))
    lacking = {linear.columns[j] for j in linear.flagged}
    columns = {}
    for j, name in enumerate(names):
        low, high = signed_log(np.array(bounds.get(j, (0.0, 1.0))))
        z = low + (high - low) * draw.random(_BUYERS + _PROSPECTS)
        values = np.array([round_readable(float(x)) for x in np.sign(z) * expm1(np.abs(z))])
        columns[name] = np.where((draw.random(len(z)) < _MISSING) & (j in lacking), np.nan, values)
    _make_plausible(columns)
    conversion = () if bundle.prospects is None else bundle.prospects.names
    for name in set(names) - set(conversion) | {"days_since_last"}:
        columns[name][_BUYERS:] = np.nan
    texts = {name: _listed(bundle, name) for name in bundle.scheme.scheme.text_features}
    return _frame(
        columns
        | {name: draw.choice(np.array(listed, dtype=object), _BUYERS + _PROSPECTS) for name, listed in texts.items()}
    )


def _make_plausible(columns: dict[str, Floats]) -> None:
    """Let the days of purchases be whole and agree with each other: history of nobody contradicts itself."""
    days = columns["purchase_days_total"] = np.maximum(np.rint(columns["purchase_days_total"]), 1.0)
    first = columns["days_since_first"] = np.maximum(np.rint(columns["days_since_first"]), 1.0)
    last = np.clip(np.rint(columns["days_since_last"]), 0.0, np.maximum(first - 1, 0.0))
    columns["days_since_last"] = np.where(days == 1, first, last)
    columns["net_amount_total"] = np.nan_to_num(columns["net_amount_total"], nan=0.0)


def _listed(bundle: Bundle, name: str) -> list[str | None]:
    """Return the values of a text attribute that the scheme names, one that it does not, and none."""
    scheme = bundle.scheme.scheme
    named = [
        value for when in scheme.given_conditions() if when.text and when.feature == name for value in when.text.listed
    ]
    strata = list(bundle.scheme.strata) if scheme.strata is not None and scheme.strata.feature == name else []
    return [*dict.fromkeys([*named, *strata]), "no such value", None]


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    rows = len(next(iter(columns.values())))
    keys = {"customer_id": [f"made-up-{n}" for n in range(rows)], "as_of": np.datetime64("2020-01-01", "s")}
    texts = {name: pd.Series(column, dtype="str") for name, column in columns.items() if column.dtype == object}
    return pd.DataFrame({**keys, **columns, **texts})


def _stored(bundle: Bundle, rows: Mapping[str, list[Any]]) -> pd.DataFrame:
    texts = bundle.scheme.scheme.text_features
    wanted = [*bundle.inputs.names, *texts]
    if list(rows) != wanted:
        raise ModelError(f"golden rows have {list(rows)[:5]}…, not {wanted[:5]}…; train it again")
    return _frame({n: np.array(v, dtype=object) if n in texts else _numbers(v) for n, v in rows.items()})


def _numbers(column: list[float | None]) -> Floats:
    return np.array([np.nan if value is None else float(value) for value in column])


def _plain(column: Any) -> list[Any]:
    """Return a column as JSON has it: twelve digits of a number, None where it is missing."""
    if pd.api.types.is_numeric_dtype(column):
        return [None if np.isnan(x) else float(f"{x:.{_DIGITS}g}") for x in np.asarray(column, dtype=np.float64)]
    return [None if pd.isna(value) else str(value) for value in column]


def _scores(bundle: Bundle, frame: pd.DataFrame) -> dict[str, Floats]:
    """Return every number that scores are made of, as float64; `ModelError` where one is outside its range."""
    x, bought = bundle.inputs.matrix(frame), has_bought(frame)
    at_risk = bundle.at_risk(frame)
    buyers, rows = frame[bought].reset_index(drop=True), np.flatnonzero(bought)
    outlook = bundle.value.outlook(x)
    mean = outlook.mean
    clv = np.full(len(frame), np.nan)
    clv[rows] = bundle.lifetime_value(buyers, mean[bought])
    levels, p = bundle.scheme.scheme.codes, bundle.tier.predict(x)
    tier, rule = bundle.scheme.assign(frame)
    known = {
        "churn_risk": (bundle.churn.predict(x), at_risk),
        "expected_value": (mean, bought),
        "expected_value_median": (outlook.median, bought),
        "expected_value_low": (outlook.low, bought),
        "expected_value_high": (outlook.high, bought),
        "clv": (clv, bought),
        "potential": (headroom(bundle.peers, silence_ratio(frame, bundle.typical_rhythm), frame), bought),
        "upgrade_potential": (bundle.p_upgrade(p, tier), bought),
        **{f"p_{code}": (p[:, k], np.ones(len(frame), dtype=np.bool_)) for k, code in enumerate(levels)},
    }
    columns = {name: np.where(where, values, np.nan) for name, (values, where) in known.items()}
    conversion = np.where(bought, np.nan, bundle.p_conversion(frame))
    columns["conversion_chance"] = conversion
    if bundle.scores is not None:
        made = bundle.scores.added_to(bundle.with_expected_growth(frame, columns["expected_value"]))
        columns |= {name: made[name].to_numpy(dtype=np.float64) for name in bundle.scores.scores}
    may_miss = {"clv", "potential"}
    needed = {name: where for name, (_, where) in known.items() if name not in may_miss}
    refuse_beyond("golden rows", columns, needed)
    columns["priority"] = bundle.scheme.priority(frame)  # the points or the score that levels are cut from
    lowest, highest = bundle.scheme.sure_levels(frame)
    segment = np.where(bought, assign_segments(bundle.segments, frame), -1)
    whole = dict(zip(_EXACT, (tier, rule, lowest, highest, *bundle.tier.sets(p), segment), strict=True))
    for name, limit in (("tier", len(levels)), ("segment", len(segment_names(bundle.segments)))):
        if whole[name].max() >= limit:
            raise ModelError(f"{name} is {whole[name].max()}, and there are {limit}")
    return columns | {name: np.asarray(values, dtype=np.float64) for name, values in whole.items()}


def _try_words(bundle: Bundle, frame: pd.DataFrame) -> None:
    """Make the texts that scores and `rules` have: reasons, and the rules of the tiers."""
    _, rule = bundle.scheme.assign(frame)
    bundle.scheme.explain(frame, rule, bundle.features, bundle.language)
    bundle.scheme.rules(bundle.features, bundle.language)
