"""Who belongs to which work list, and in which order: one SQL statement over a score table.

Nobody is on two lists. The first that applies counts: an override that is about to expire needs a decision by a day;
lost customers are to be won back, not kept; a customer at risk is to be kept before anything is built on; whose tier is
in doubt is looked at where nothing more urgent is due.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle
from tiermodel.errors import DataError, ModelError
from tiermodel.policy.scores import Scores
from tiermodel.tables.source import literal, quoted
from tiermodel.words import words
from tiermodel.worklists.feature_table import Returns

__all__ = ["LISTS", "NUMBERS", "TEXTS", "date_of", "rate"]

LISTS = ("expiring_overrides", "win_back", "keep", "develop", "review")
"""The lists; a customer who belongs to several is on the first of them."""

TEXTS = ("as_of", "tier_name", "tier_set", "lifecycle_stage", "risk_band", "model_version")
NUMBERS = ("tier", "model_tier", "churn_risk", "contact_threshold", "expected_value", "clv", "upgrade_potential")
"""The columns of a score table that lists are made from, beside its keys and the probability of each tier."""

_DECIMALS = 4
_RATED = f"""
CREATE OR REPLACE TABLE rated AS
WITH known AS (
    SELECT {{customer}} AS customer_id, tier_code, tier_name, tier_set, tier::INTEGER AS tier,
        model_tier::INTEGER AS model_tier, churn_risk, contact_threshold, clv, upgrade_potential,
        {{p_tier}} AS p_tier, {{refused}} AS refused, lifecycle_stage = {{lost}} AS lost,
        CASE WHEN contact_threshold IS NULL THEN risk_band <> {{low}} ELSE churn_risk >= contact_threshold END AS warned
    FROM {{scores}}
), mean AS (
    SELECT tier, sum(clv::DECIMAL(38, 4))::DOUBLE / count(clv) AS clv FROM known WHERE clv IS NOT NULL GROUP BY tier
), above AS (
    SELECT mean.tier, arg_min(higher.clv, higher.tier) AS clv
    FROM mean JOIN mean higher ON higher.tier > mean.tier GROUP BY mean.tier
), judged AS (
    SELECT known.*, coalesce(1 - churn_risk, back.chance) AS chance_to_return,
        round(back.worth * {{scale}}, {_DECIMALS}) AS worth_if_back,
        above.clv - known.clv AS gain_if_up, sides.low, sides.high, overrides.days_left,
        (len(string_split(tier_set, '..')) > 1 OR model_tier <> known.tier OR sides.low IS NOT NULL)
            AND known.clv IS NOT NULL AS in_doubt
    FROM known LEFT JOIN above USING (tier) LEFT JOIN back USING (customer_id) LEFT JOIN sides USING (customer_id)
        LEFT JOIN overrides USING (customer_id)
), due AS (
    SELECT *, CASE
        WHEN NOT refused AND lost AND worth_if_back > 0 AND chance_to_return > 0 THEN 'win_back'
        WHEN NOT refused AND NOT lost AND clv > 0 AND warned THEN 'keep'
        WHEN NOT refused AND NOT lost AND upgrade_potential > 0 AND gain_if_up > 0 THEN 'develop'
        WHEN in_doubt THEN 'review'
    END AS due FROM judged
)
SELECT *, CASE WHEN days_left IS NOT NULL THEN 'expiring_overrides' ELSE due END AS list,
    round(CASE WHEN days_left IS NOT NULL THEN -days_left
        WHEN due = 'win_back' THEN chance_to_return * worth_if_back
        WHEN due = 'keep' THEN churn_risk * clv
        WHEN due = 'develop' THEN upgrade_potential * gain_if_up
        WHEN due = 'review' THEN (1 - p_tier) * clv
    END, {_DECIMALS}) AS priority
FROM due
"""
_TABLES = {
    "back": pa.schema([("customer_id", pa.string()), ("chance", pa.float64()), ("worth", pa.float64())]),
    "sides": pa.schema([("customer_id", pa.string()), ("low", pa.int32()), ("high", pa.int32())]),
    "overrides": pa.schema([("customer_id", pa.string()), ("days_left", pa.int64())]),
}


def date_of(scores: Scores, bundle: Bundle) -> date:
    """Return the date of a score table.

    Raises `DataError` where columns are missing or are no numbers, rows are of several dates or a tier is no level of
    the model, and `ModelError` where another model made the scores.
    """
    chances = tuple(f"p_{code}" for code in bundle.scheme.scheme.codes)
    if missing := [name for name in (*TEXTS, *NUMBERS, *chances) if name not in scores.columns]:
        raise DataError(
            f"{scores.file}: the scores lack the columns {', '.join(missing)}; write them again: "
            f"tiermodel score PROJECT --model … --as-of DATE --out {scores.file}"
        )
    for name in (*NUMBERS, *chances):
        if scores.columns[name] == "VARCHAR":
            raise DataError(f"{scores.file}: column {name} is not a number in every row; write the scores again")
    view = scores.source.view
    versions = _distinct(scores, f"SELECT DISTINCT model_version FROM {view} ORDER BY 1")
    if versions != [bundle.version]:
        raise ModelError(
            f"{scores.file}: model {', '.join(map(str, versions[:3]))} made these scores, --model is {bundle.version}; "
            "give the model of the scores, or score again"
        )
    days = _distinct(scores, f"SELECT DISTINCT TRY_CAST(as_of AS DATE) FROM {view} ORDER BY 1")
    if len(days) != 1 or days[0] is None:
        found = ", ".join("no date" if day is None else str(day) for day in days[:3])
        raise DataError(f"{scores.file}: as_of is {found}; lists are made from the scores of one date")
    codes, tiers = bundle.scheme.scheme.codes, _distinct(scores, f"SELECT DISTINCT tier_code FROM {view} ORDER BY 1")
    if other := [str(code) for code in tiers if code not in codes]:
        raise DataError(
            f"{scores.file}: tier_code {', '.join(other[:3])} is no level of {bundle.version}, which has "
            f"{', '.join(codes)}; score again with this model"
        )
    day: date = days[0]
    return day


def _distinct(scores: Scores, query: str) -> list[Any]:
    return [value for (value,) in scores.connection.execute(query).fetchall()]


def rate(
    scores: Scores, bundle: Bundle, back: Returns, sides: Iterable[pa.RecordBatch], overrides: pd.DataFrame
) -> None:
    """Make the table `rated` in the connection: every customer with `list` (NULL: on none), `due` and `priority`.

    `back` has the chance and the worth of lost customers, `sides` the levels between which a customer stands within the
    band of the stability rule, `overrides` the days left of overrides that expire.
    """
    expiring = overrides[_TABLES["overrides"].names]
    given = {
        "back": pa.Table.from_pandas(back.rows, _TABLES["back"], preserve_index=False),
        "sides": pa.Table.from_batches(sides, _TABLES["sides"]),
        "overrides": pa.Table.from_pandas(expiring, _TABLES["overrides"], preserve_index=False),
    }
    for name, table in given.items():
        scores.connection.register(f"{name}_given", table)
        scores.connection.execute(f"CREATE OR REPLACE TABLE {name} AS SELECT * FROM {name}_given")
        scores.connection.unregister(f"{name}_given")
    codes = bundle.scheme.scheme.codes
    p_tier = " ".join(f"WHEN {literal(code)} THEN {quoted(f'p_{code}')}" for code in codes)
    wording = words(bundle.language)
    lost = literal(wording["lifecycle_churned"])
    scores.connection.execute(
        _RATED.format(
            customer="customer_id",
            p_tier=f"CASE tier_code {p_tier} END",
            refused=scores.refused(),
            lost=lost,
            low=literal(wording["risk_band_low"]),
            scores=scores.source.view,
            scale=_scale(scores, back, lost),
        )
    )


def _scale(scores: Scores, back: Returns, lost: str) -> float:
    """Return what the scores expect of customers who are not lost over what buy-till-you-die models expect of them."""
    query = f"SELECT sum(expected_value::DECIMAL(38, 4)) FROM {scores.source.view} WHERE lifecycle_stage <> {lost}"
    value = scores.connection.execute(query).fetchall()[0][0]
    return float(value) / back.spend if value is not None and back.spend > 0 else 1.0
