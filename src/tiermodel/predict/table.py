"""The score table: one row for each snapshot row, with tier, probabilities, churn risk, value and reasons."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.bundle.bundle import Bundle
from tiermodel.bundle.ranges import refuse_beyond
from tiermodel.errors import DataError, ModelError
from tiermodel.evaluation.profit import contact_threshold
from tiermodel.features.frame import KEYS, has_bought
from tiermodel.policy.scores import HORIZON_NOTE, LANGUAGE_NOTE
from tiermodel.segments.fit import assign_segments, segment_names
from tiermodel.tiers.customer_scores import POTENTIAL, SCORES, SILENCE, WILLINGNESS
from tiermodel.tiers.fitted_features import headroom
from tiermodel.tiers.lifecycle import LIFECYCLE, LOST, LOYALTY, lifecycle_and_loyalty, silence_ratio
from tiermodel.tiers.stability.grading import Grading, grade
from tiermodel.words import words

__all__ = ["as_array", "columns_of_tier", "predict", "score_schema", "scored_batch", "upgrade_column"]


Columns = dict[str, Any]

RISK_BANDS = ("low", "medium", "high")

RISK_BAND_EDGES = (0.2, 0.5)

_MOVEMENTS = ("down", "same", "up", "new")

_DECIMALS = 6

_MEDIAN = "expected_value_median"

_OF_VALUE = ("expected_value", "expected_value_low", "expected_value_high", _MEDIAN)

_NUMERIC = {"floating", "integer", "mixed-integer-float", "boolean", "decimal", "empty"}


def score_schema(bundle: Bundle) -> pa.Schema:
    """Return the columns of the score table, with one probability column for each level of the bundle's scheme.

    `p_<code>` is the probability of that tier after the horizon; `tier_set` is a range of levels that holds that tier
    with probability 0.9. Amounts (`expected_value` with its interval and its median, `clv`, `potential`) are in
    currency units; they and `upgrade_potential` are missing before the first purchase, `conversion_chance` is missing
    after it. `churn_risk` and `risk_band` are missing for customers who are not at risk by the project's definition of
    churn, `previous_tier` for new customers. Customer scores (`score_…`) lie between 0 and 100, 100 for the most; they
    are missing where no table with a part of them is mapped, and before the first purchase, but for the willingness.
    `contact_threshold` is the churn risk from which a contact pays, and `churn_warning` whether `churn_risk` reaches
    it, where `churn.campaign` states the costs; `risk_band` is high for exactly these customers then, without costs
    from 0.5 on. A matrix has a column `grade_…` for each axis. Where the project names a service policy, `score`
    appends `policy_id` and `policy_name`. Notes of the schema, which Parquet keeps, tell the horizon in
    days and the language.
    """
    text, horizon = pa.string(), bundle.settings["outcome"]["horizon_days"]
    columns = [
        ("customer_id", pa.string()), ("as_of", pa.date32()),
        ("tier", pa.int64()), ("tier_code", text), ("tier_name", text),
        *((f"p_{code}", pa.float64()) for code in bundle.scheme.scheme.codes),
        ("tier_set", text), ("model_tier", pa.int64()), ("previous_tier", pa.float64()), ("movement", text),
        ("segment", text), ("lifecycle_stage", text), ("loyalty_stage", text),
        ("churn_risk", pa.float64()), ("risk_band", text),
        ("expected_value", pa.float64()), ("expected_value_low", pa.float64()), ("expected_value_high", pa.float64()),
        ("clv", pa.float64()),
        ("potential", pa.float64()), ("upgrade_potential", pa.float64()), ("conversion_chance", pa.float64()),
        ("reason_1", text), ("reason_2", text), ("reason_3", text),
        ("policy", text), ("scheme_version", text), ("model_version", text),
        *((score.name, pa.float64()) for score in SCORES),
        ("contact_threshold", pa.float64()), ("churn_warning", text),
        *((f"grade_{axis}", text) for axis in bundle.scheme.axes),
        ("expected_value_median", pa.float64()),
    ]  # fmt: skip
    return pa.schema(columns, metadata={HORIZON_NOTE: str(horizon), LANGUAGE_NOTE: bundle.language})


def predict(
    bundle: Bundle, frame: pd.DataFrame, previous: pd.DataFrame | None = None, grading: Grading | None = None
) -> pd.DataFrame:
    """Return the scores of snapshot rows: the columns of `score_schema`, one row for each row of `frame`, in its order.

    `frame` has the bundle's features by name, in any order; other columns are ignored. Without `customer_id` the index
    names the customer, without `as_of` the date is missing. `previous` has earlier snapshots of the same customers:
    they give the previous tier, and the stability rule is replayed on them. `grading`, where given, replaces that
    replay. Capacities are not applied, since they depend on who else is graded on the day: `score` applies them. Raises
    `ModelError` where a feature is missing or a column is there twice, `DataError` where a value is infinite or not a
    number.
    """
    columns = _columns(bundle, checked(bundle, frame), previous, grading)
    return pd.DataFrame({n: c.series() if isinstance(c, _Words) else c for n, c in columns.items()})


def scored_batch(bundle: Bundle, frame: pd.DataFrame, grading: Grading | None = None) -> pa.RecordBatch:
    """Return the scores of rows that are `checked` as Arrow has them, missing values as nulls; else as `predict`."""
    columns, schema = _columns(bundle, frame, None, grading), score_schema(bundle)
    return pa.RecordBatch.from_arrays([as_array(columns[field.name], field.type) for field in schema], schema=schema)


def _columns(bundle: Bundle, frame: pd.DataFrame, previous: pd.DataFrame | None, grading: Grading | None) -> Columns:
    """Return the columns of the score table for rows that are `checked`."""
    x = bundle.inputs.matrix(frame)
    grading = grading or grade(bundle.scheme, frame, previous)
    probabilities = bundle.tier.predict(x)
    bought = has_bought(frame)
    values = _value_columns(bundle, frame, x, bought)
    median = values.pop(_MEDIAN)
    churn: Floats = np.where(bundle.at_risk(frame), bundle.churn.predict(x), np.nan)  # no purchase yet: no churn
    warning = _warning_columns(bundle, np.round(churn, _DECIMALS), values["clv"])
    tier = _tier_columns(bundle, grading, probabilities)
    policy = tier.pop("policy")
    columns = {
        "customer_id": frame["customer_id"],
        "as_of": frame["as_of"],
        **tier,
        **_stage_columns(bundle, frame, bought),
        **_risk_columns(bundle, churn, warning["contact_threshold"]),
        **values,
        **_chance_columns(bundle, frame, probabilities, grading.tier, bought),
        **_reason_columns(bundle, frame, grading),
        "policy": policy,
        **_version_columns(bundle, len(frame)),
        **_score_columns(bundle, frame, values["expected_value"], bought),
        **warning,
        **{f"grade_{axis}": _words(*found) for axis, found in bundle.scheme.grades(frame).items()},
        _MEDIAN: median,
    }
    _refuse_beyond(bundle, columns, bought, bundle.at_risk(frame))
    return columns


def _refuse_beyond(bundle: Bundle, columns: Columns, bought: Flags, at_risk: Flags) -> None:
    """Raise `ModelError` for a score outside of its range: whoever reads it would believe it."""
    everybody = np.ones(len(bought), dtype=np.bool_)
    known = {f"p_{code}": everybody for code in bundle.scheme.scheme.codes} | {"churn_risk": at_risk}
    known |= dict.fromkeys((*_OF_VALUE, "upgrade_potential"), bought)
    ranged = (*known, "clv", "potential", "conversion_chance", *(score.name for score in SCORES))
    refuse_beyond(bundle.version, {name: columns[name] for name in ranged}, known)


def _tier_columns(bundle: Bundle, grading: Grading, probabilities: Floats) -> Columns:
    """Return the tier, the probability of each level after the horizon, the previous tier, the movement, the policy."""
    codes = bundle.scheme.scheme.codes
    width = len(codes)
    low, high = bundle.tier.sets(probabilities)
    sets = [codes[i] if i == j else f"{codes[i]}..{codes[j]}" for i in range(width) for j in range(width)]
    of_tier = columns_of_tier(bundle, grading.tier, grading.before)
    return {
        **{name: of_tier[name] for name in ("tier", "tier_code", "tier_name")},
        **{f"p_{code}": np.round(probabilities[:, k], _DECIMALS) for k, code in enumerate(codes)},
        "tier_set": _words(low * width + high, sets),
        "model_tier": grading.level,
        "previous_tier": grading.before,
        "movement": of_tier["movement"],
        "policy": of_tier["policy"],
    }


def columns_of_tier(bundle: Bundle, tier: Ints, before: Floats) -> Columns:
    """Return the columns that follow from the tier in force and the one before (NaN: none)."""
    levels, wording = bundle.scheme.scheme, words(bundle.language)
    moved = np.where(np.isnan(before), 3, np.sign(tier - np.nan_to_num(before)) + 1).astype(np.int64)
    return {
        "tier": tier,
        "tier_code": _words(tier, levels.codes),
        "tier_name": _words(tier, levels.names(bundle.language)),
        "movement": _words(moved, [wording[f"movement_{code}"] for code in _MOVEMENTS]),
        "policy": _words(tier, levels.policies(bundle.language)),
    }


def _stage_columns(bundle: Bundle, frame: pd.DataFrame, bought: Flags) -> Columns:
    """Return the segment (missing before the first purchase), the lifecycle stage and the loyalty stage."""
    segment = np.where(bought, assign_segments(bundle.segments, frame), -1)
    lifecycle, loyalty = lifecycle_and_loyalty(frame, bundle.typical_rhythm)
    wording = words(bundle.language)
    return {
        "segment": _words(segment, segment_names(bundle.segments)),
        "lifecycle_stage": _words(lifecycle, [wording[f"lifecycle_{code}"] for code in LIFECYCLE]),
        "loyalty_stage": _words(loyalty, [wording[f"loyalty_{code}"] for code in LOYALTY]),
    }


def _risk_columns(bundle: Bundle, churn: Floats, threshold: Floats) -> Columns:
    """Return the churn probability and its band, missing for customers who are not at risk.

    Where the project states the costs of a campaign, the highest band is that of the customers whom a contact pays for:
    those whose risk reaches their own threshold.
    """
    band = np.searchsorted(RISK_BAND_EDGES, churn, side="right")
    churn = np.round(churn, _DECIMALS)
    if bundle.campaign is not None:
        band = np.where(churn >= threshold, len(RISK_BAND_EDGES), np.minimum(band, len(RISK_BAND_EDGES) - 1))
    names = [words(bundle.language)[f"risk_band_{code}"] for code in RISK_BANDS]
    return {"churn_risk": churn, "risk_band": _words(np.where(np.isnan(churn), -1, band), names)}


def _value_columns(bundle: Bundle, frame: pd.DataFrame, x: Floats, bought: Flags) -> Columns:
    """Return the amounts expected of buyers, in currency units; NaN for customers who never bought."""
    value, median, low, high = (np.where(bought, amount, np.nan) for amount in bundle.value.outlook(x))
    clv = np.full(len(frame), np.nan)
    potential = headroom(bundle.peers, silence_ratio(frame, bundle.typical_rhythm), frame)
    if bought.any():
        clv[bought] = bundle.lifetime_value(frame[bought], value[bought])
    amounts = {
        "expected_value": value,
        "expected_value_low": low,
        "expected_value_high": high,
        "clv": clv,
        "potential": np.where(bought, potential, np.nan),
        _MEDIAN: median,
    }
    return {name: np.round(amount, 4) for name, amount in amounts.items()}


def _chance_columns(bundle: Bundle, frame: pd.DataFrame, probabilities: Floats, tier: Ints, bought: Flags) -> Columns:
    """Return P(upgrade that stays) of buyers and P(first purchase) of the other customers; NaN elsewhere."""
    conversion = np.where(bought, np.nan, bundle.p_conversion(frame))
    upgrade = upgrade_column(bundle, probabilities, tier, bought)
    return {"upgrade_potential": upgrade, "conversion_chance": np.round(conversion, _DECIMALS)}


def upgrade_column(bundle: Bundle, probabilities: Floats, tier: Ints, bought: Flags) -> Floats:
    """Return P(rises above `tier` and stays) of buyers, NaN elsewhere; `probabilities` has shape (rows, levels)."""
    chance: Floats = np.where(bought, bundle.p_upgrade(probabilities, tier), np.nan)
    return chance.round(_DECIMALS)


def _score_columns(bundle: Bundle, frame: pd.DataFrame, value: Floats, bought: Flags) -> Columns:
    """Return the customer scores; NaN where none of their parts is known. Lost customers have no potential."""
    columns: Columns = {score.name: np.full(len(frame), np.nan) for score in SCORES}
    if bundle.scores is None:
        return columns
    known = bundle.scores.added_to(bundle.with_expected_growth(frame, value))
    for name in bundle.scores.scores:
        columns[name] = np.round(np.where(bought | (name == WILLINGNESS), known[name], np.nan), 2)
    columns[POTENTIAL] = np.where(known[SILENCE] > LOST, 0.0, columns[POTENTIAL])
    return columns


def _warning_columns(bundle: Bundle, churn: Floats, clv: Floats) -> Columns:
    """Return the churn risk from which a contact pays, inf where it never does, and whether the risk reaches it."""
    threshold, warned = np.full(len(churn), np.nan), np.full(len(churn), -1)
    if bundle.campaign is not None:
        known = ~np.isnan(churn)
        threshold[known] = np.round(contact_threshold(clv[known], bundle.campaign), _DECIMALS)
        warned = np.where(known, (churn >= threshold).astype(np.int64), -1)
    wording = words(bundle.language)
    texts = [wording["churn_warning_no"], wording["churn_warning_yes"]]
    return {"contact_threshold": threshold, "churn_warning": _words(warned, texts)}


def _reason_columns(bundle: Bundle, frame: pd.DataFrame, grading: Grading) -> Columns:
    """Return the reasons for the tier."""
    reasons, texts = grading.reasons(bundle.scheme, frame, bundle.features, bundle.language)
    return {f"reason_{k + 1}": _words(reasons[:, k], texts) for k in range(reasons.shape[1])}


def _version_columns(bundle: Bundle, rows: int) -> Columns:
    same = np.zeros(rows, dtype=np.int64)
    return {"scheme_version": _words(same, [bundle.scheme_version]), "model_version": _words(same, [bundle.version])}


def checked(bundle: Bundle, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the keys and the bundle's features of snapshot rows, float64, and the text attributes of its scheme.

    Raises as `predict` does.
    """
    names, texts = bundle.inputs.names, bundle.scheme.scheme.text_features
    missing = [name for name in (*names, *texts) if name not in frame.columns]
    if missing:
        raise ModelError(
            f"{len(missing)} of {len(names) + len(texts)} features of {bundle.version} are missing: {missing[:5]}; "
            "build them with `tiermodel features`, in a project with the same windows and columns"
        )
    twice = sorted(set(frame.columns[frame.columns.duplicated()]) & {*KEYS, *names, *texts})
    if twice:
        raise ModelError(f"columns {twice[:5]} are there more than once; keep one of each")
    if not set(KEYS) <= set(frame.columns):
        frame = frame.copy()  # in one piece, where it was put together column by column
    if "customer_id" not in frame.columns:
        frame["customer_id"] = frame.index.map(str)
    if "as_of" not in frame.columns:
        frame["as_of"] = np.datetime64("NaT", "s")
    frame = frame[[*KEYS, *names, *texts]].reset_index(drop=True)
    features = frame.iloc[:, len(KEYS) :]
    if (features.dtypes == np.float64).all() and not np.isinf(features.to_numpy()).any():
        return frame  # nothing is to be converted or told: at one look, which for few rows takes most of the time
    numbers = {name: _as_numbers(name, frame[name]) for name in names}
    return pd.DataFrame({
        **{key: frame[key] for key in KEYS}, **numbers, **{name: _as_texts(name, frame[name]) for name in texts},
    })  # fmt: skip


def _as_texts(name: str, column: pd.Series) -> pd.Series:
    """Return a column of text as tables have it: trimmed, in one Unicode form; `DataError` where a value is no text."""
    if pd.api.types.infer_dtype(column, skipna=True) not in {"string", "empty", "categorical"}:
        # the message has the type, not the value: a server would pass on a text that may name a customer
        is_text = [isinstance(value, str) or pd.isna(value) for value in column]
        place = is_text.index(False) if False in is_text else 0
        kind = type(column.iloc[place]).__name__
        raise DataError(f"feature {name!r} is not text in every row: at position {place} it is {kind}")
    return column.astype("str").str.strip().str.normalize("NFC")


def _as_numbers(name: str, column: pd.Series) -> Floats:
    """Return a column as float64; `DataError` where a value is infinite or not a number."""
    if pd.api.types.infer_dtype(column, skipna=True) not in _NUMERIC:
        # the message has the type, not the value: a server would pass on a text that may name a customer
        is_number = [isinstance(value, int | float) or pd.isna(value) for value in column]
        place = is_number.index(False) if False in is_number else 0
        kind = type(column.iloc[place]).__name__
        raise DataError(f"feature {name!r} is not a number in every row: at position {place} it is {kind}")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    bad = np.flatnonzero(np.isinf(values))
    if bad.size:
        raise DataError(f"feature {name!r} is infinite in {bad.size} rows, first at position {bad[0]}: build it again")
    return values


class _Words(NamedTuple):
    """Each row's word by position (-1: missing): no string is built for each row."""

    place: Ints
    texts: list[str]

    def series(self) -> pd.Series[str]:
        """Return a categorical; words that are listed twice are one category."""
        distinct = list(dict.fromkeys(self.texts))
        number = {word: n for n, word in enumerate(distinct)}
        numbers = np.array([number[word] for word in self.texts], dtype=np.int64)
        codes = np.where(self.place < 0, -1, numbers[self.place])
        return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(distinct)))


def _words(place: Ints, texts: Iterable[str]) -> _Words:
    return _Words(place, list(texts))


def as_array(column: Any, kind: pa.DataType) -> pa.Array:
    """Return a column as Arrow has it, missing values as nulls."""
    if isinstance(column, _Words):
        return pa.array(column.texts, kind).take(pa.array(column.place, mask=column.place < 0))
    return pa.array(column, kind, from_pandas=True)
