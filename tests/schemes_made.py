"""Small schemes of every kind, and made-up customers to fit them on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.config.project import Features
from tiermodel.features.catalogue import expand
from tiermodel.features.measures import every_need
from tiermodel.tiers.explain.sql import scheme_sql
from tiermodel.tiers.fitted_scheme import FittedScheme, fit_scheme
from tiermodel.tiers.schemes.load import parse_scheme

WINDOWS = (60, 365)

FEATURES = {f.name: f for f in expand(Features(windows_days=WINDOWS), every_need())}

SPEND, DAYS = "net_amount_365d", "purchase_days_365d"
BELOW, ABOVE = [1, 2], [3]

LEVELS = [{"code": c, "name_zh": c, "name_en": c} for c in ("low", "mid", "top")]

SHARES = {"low": 0.5, "mid": 0.3, "top": 0.2}

SHARE: dict[str, Any] = {
    "code": "s", "name_zh": "s", "name_en": "s", "kind": "share", "feature": SPEND, "levels": LEVELS, "shares": SHARES,
}  # fmt: skip

RFM: dict[str, Any] = {
    "code": "q", "name_zh": "q", "name_en": "q", "kind": "rfm", "levels": LEVELS,
    "r": {"feature": "days_since_last", "better": "lower", "bins": 3},
    "f": {"feature": DAYS, "bins": 3},
    "m": {"feature": SPEND, "bins": 3},
    "cells": [
        {"name_zh": "a", "name_en": "a", "level": "low", "r": BELOW, "f": [1, 2, 3], "m": BELOW},
        {"name_zh": "b", "name_en": "b", "level": "mid", "r": BELOW, "f": [1, 2, 3], "m": ABOVE},
        {"name_zh": "c", "name_en": "c", "level": "mid", "r": ABOVE, "f": [1, 2, 3], "m": BELOW},
        {"name_zh": "d", "name_en": "d", "level": "top", "r": ABOVE, "f": [1, 2, 3], "m": ABOVE},
    ],
}  # fmt: skip

LEARNED: dict[str, Any] = {
    "code": "l", "name_zh": "l", "name_en": "l", "kind": "learned", "levels": LEVELS, "shares": SHARES, "max_leaves": 8,
}  # fmt: skip


def people(n: int = 600, seed: int = 1, prospects: int = 0) -> pd.DataFrame:
    """Draw snapshot rows at two dates: spend drives the outcome; one-time buyers have no gap."""
    draw = np.random.default_rng(seed)
    days = draw.integers(1, 12, n).astype(float)
    spend = np.round(draw.lognormal(3, 1, n) * days, 2)
    frame = pd.DataFrame({
        "customer_id": [f"c{i:05d}" for i in range(n)],
        "as_of": np.where(np.arange(n) % 2, np.datetime64("2023-01-01", "s"), np.datetime64("2023-03-01", "s")),
        "days_since_last": draw.integers(1, 300, n).astype(float),
        "days_since_first": draw.integers(300, 700, n).astype(float),
        "purchase_days_total": days,
        DAYS: days,
        SPEND: spend,
        "net_amount_total": spend + 5,
        "order_amount_mean": spend / days,
        "gap_days_mean": np.where(days > 1, draw.gamma(3, 10, n), np.nan),
        "order_count_total": days,
        "purchase_days_60d": np.minimum(days, draw.integers(0, 5, n)).astype(float),
        "net_amount_60d": np.round(spend * draw.random(n), 2),
        "recent_rate_60d": draw.gamma(2, 0.5, n),
        "amount_change_60d": np.round(draw.uniform(-1, 1, n), 3),
        "active_share": np.round(draw.random(n), 2),
        "overdue_max_ratio": np.where(days > 1, draw.gamma(1, 1, n), np.nan),
        "peak_month_amount": np.round(spend * draw.uniform(0.2, 0.6, n), 2),
        "product_count": draw.integers(1, 40, n).astype(float),
        "lines_per_order": draw.gamma(4, 1, n),
        "return_count_total": draw.integers(0, 3, n).astype(float),
        "outcome_value": np.where(draw.random(n) < 0.5, spend * draw.random(n), 0.0),
    })  # fmt: skip
    frame["gap_days_max"] = np.where(days > 1, draw.integers(20, 200, n), np.nan)
    frame.loc[: prospects - 1, [c for c in frame if c not in {"customer_id", "as_of"}]] = np.nan
    return frame


def fitted(data: dict[str, Any], frame: pd.DataFrame) -> FittedScheme:
    return fit_scheme(parse_scheme(data, "test", WINDOWS), frame, frame, 7)


def with_spend(values: list[float]) -> pd.DataFrame:
    frame = people(len(values))
    return frame.assign(**{SPEND: values})


def said(words: str, x: float) -> bool:
    """Apply what a printed condition says after the feature's name, such as '> 3 and ≤ 5 or missing'."""
    if np.isnan(x):
        return "missing" in words
    bounds = [(sign, float(bound.replace(",", ""))) for sign, bound in re.findall(r"(≥|>|<|≤) (\S+)", words)]
    assert bounds or words in {" missing", " anything"}
    met = {">": x.__gt__, "≥": x.__ge__, "<": x.__lt__, "≤": x.__le__}
    return words != " missing" and all(met[sign](bound) for sign, bound in bounds)


def scaled(frame: pd.DataFrame, factor: float) -> pd.DataFrame:
    money = [c for c in frame.columns if "amount" in c or c == "outcome_value"]
    return frame.assign(**{name: frame[name] * factor for name in money})


FRAME = people(2000, prospects=40)


def numbers_of(state: Any) -> Iterator[float]:
    """List every number that a scheme froze: cut points, thresholds, bounds."""
    if isinstance(state, dict):
        for key, value in state.items():
            if key not in {"leaves", "sensitivity", "weights"}:
                yield from numbers_of(value)
    elif isinstance(state, list):
        for value in state:
            yield from numbers_of(value)
    elif isinstance(state, float):
        yield state


def probes(fitted: FittedScheme, rows: int) -> pd.DataFrame:
    """Draw rows on and beside every threshold, in double and single precision, infinite, missing, and as people are."""
    draw = np.random.default_rng(5)
    edges = np.unique(list(numbers_of(fitted.readable.state)))
    single = edges.astype(np.float32)
    beside = [np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf)]
    beside += [np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf)), single]
    pool = np.concatenate([edges, *(b.astype(np.float64) for b in beside), [np.nan, np.inf, -np.inf, 0.0, -0.0]])
    frame = FRAME.iloc[draw.integers(0, len(FRAME), rows)].reset_index(drop=True)
    for name in frame.columns.drop(["customer_id", "as_of"]):
        odd = draw.random(rows) < 0.4
        frame.loc[odd, name] = draw.choice(pool, int(odd.sum()))
    return frame.assign(customer_id=[f"p{i:06d}" for i in range(rows)])


def assert_equal_to_scheme(found: pd.DataFrame, fitted: FittedScheme, frame: pd.DataFrame) -> None:
    found = found.sort_values("customer_id").reset_index(drop=True)
    assert found["customer_id"].tolist() == frame["customer_id"].tolist()
    level, _ = fitted.readable.assign(frame)
    np.testing.assert_array_equal(found["tier"].to_numpy(), level)
    assert found["tier_code"].tolist() == [fitted.scheme.codes[k] for k in level]


def tiers_in_duckdb(fitted: FittedScheme, frame: pd.DataFrame) -> pd.DataFrame:
    """Run the rules in DuckDB; half of the missing values are NaN there, half NULL."""
    with duckdb.connect() as connection:
        nulls = pa.Table.from_pandas(frame.iloc[::2], preserve_index=False)
        odd = frame.iloc[1::2]
        nans = {
            n: pa.array(odd[n].to_numpy(), from_pandas=odd[n].dtype != np.float64) for n in frame
        }  # text has no NaN
        both = pa.concat_tables([nulls, pa.table(nans).cast(nulls.schema)])
        connection.from_arrow(both).create_view("features")
        return connection.sql(scheme_sql(fitted)).df()
