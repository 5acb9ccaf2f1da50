"""List every feature once: name, group, unit, meaning in Chinese and English, and the formula that computes it.

To add one: append a `Feature` to `CATALOGUE`. Its formula sees a `Known`, all that the walk noted of every customer
before the date, and gives one float64 per customer, NaN where the question has no answer. A name with `{w}` is made for
every window of the project. The data dictionary, the parquet schema and the parametrised tests are read from this list.
"""

# ruff: noqa: E501 one line per feature reads as the table it is

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiermodel.config import FeatureGroup, Features
from tiermodel.features.measures import MEASURES
from tiermodel.features.stream import RHYTHM, Chunk, Latest, Plan, Request

__all__ = [
    "CATALOGUE",
    "CORE",
    "Feature",
    "Known",
    "columns_of",
    "expand",
    "known_from",
    "left_out",
    "needs_of",
    "ratio",
]

Floats = NDArray[np.float64]


class Known:
    """Give formulas what was known of every customer before the date: amounts in currency units, times in days."""

    def __init__(
        self, as_of: NDArray[np.int32], rhythm: Floats, sums: Mapping[Request, Floats], latest: Mapping[Latest, Floats]
    ) -> None:
        self.as_of = as_of
        self._rhythm: dict[str, Floats] = dict(zip(RHYTHM, rhythm, strict=True))
        self._sums = sums
        self._latest = latest

    def sum(self, measure: str, days: int | None = None, ago: int = 0) -> Floats:
        """Sum a measure over the `days` days that ended `ago` days before the date, or over all time before."""
        if ago < 0 or (days is not None and days < 1):
            raise ValueError(f"{measure}: a feature sums days before its date, not {days} days that end {ago} days ago")
        request = Request(measure, None if days is None else -(ago + days), -ago)
        return self._sums[request]

    def rhythm(self, name: str) -> Floats:
        """Read one of `RHYTHM`."""
        return self._rhythm[name]

    def latest(self, kind: str, column: str = "value") -> Floats:
        """Read a column of the latest row of a kind; NaN where there is none."""
        return self._latest[Latest(kind, column)]

    def since(self, kind: str) -> Floats:
        """Count the days since the latest row of a kind; NaN where there is none."""
        return self.as_of - self.latest(kind, "day")

    @property
    def since_last(self) -> Floats:
        """Count the days since the last purchase."""
        return self.as_of - self.rhythm("last_day")

    @property
    def since_first(self) -> Floats:
        """Count the days since the first purchase."""
        return self.as_of - self.rhythm("first_day")

    @property
    def gap_mean(self) -> Floats:
        """Average the days between purchase days; NaN with fewer than two."""
        return ratio(self.rhythm("last_day") - self.rhythm("first_day"), self.sum("purchase_days") - 1)

    @property
    def gap_std(self) -> Floats:
        """Give the standard deviation of the days between purchase days; NaN with fewer than two."""
        gaps, span = self.sum("purchase_days") - 1, self.rhythm("last_day") - self.rhythm("first_day")
        # whole numbers until the root: a difference of means would lose the digits that regular customers live by
        return ratio(np.sqrt(gaps * self.rhythm("gap_square_sum") - span**2), gaps)


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide where the divisor is positive; NaN elsewhere.

    >>> ratio(np.array([1.0, 1.0]), np.array([4.0, 0.0])).tolist()
    [0.25, nan]
    """
    share = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _change(now: Floats, before: Floats) -> Floats:
    """Compare two spans on a scale from -1 (stopped) to 1 (started); NaN where both are empty."""
    return ratio(now - before, np.abs(now) + np.abs(before))


@dataclass(frozen=True, slots=True)
class Feature:
    """Describe one feature; `window` is set on those made from a name with `{w}`, for windows up to `longest`."""

    name: str
    group: FeatureGroup | Literal["attribute"]
    unit: Literal["days", "count", "amount", "share", "ratio", "number"]
    zh: str
    en: str
    formula: Callable[[Known, int], Floats]
    window: int = 0
    longest: int = 3660

    def compute(self, known: Known) -> Floats:
        """Apply the formula."""
        return self.formula(known, self.window)


_SPEND = "net_amount"
CATALOGUE: tuple[Feature, ...] = (
    # rfm: when, how often, how much
    Feature("days_since_last", "rfm", "days", "距最近一次购买的天数", "days since the last purchase", lambda k, _: k.since_last),
    Feature("order_count_{w}d", "rfm", "count", "近{w}天订单数", "orders in the last {w} days", lambda k, w: k.sum("order_count", w)),
    Feature("order_count_total", "rfm", "count", "累计订单数", "orders so far", lambda k, _: k.sum("order_count")),
    Feature("net_amount_{w}d", "rfm", "amount", "近{w}天净消费额", "net amount of the last {w} days", lambda k, w: k.sum(_SPEND, w)),
    Feature("net_amount_total", "rfm", "amount", "累计净消费额", "net amount so far", lambda k, _: k.sum(_SPEND)),
    Feature("order_amount_mean", "rfm", "amount", "平均每单净额", "net amount per order", lambda k, _: ratio(k.sum(_SPEND), k.sum("order_count"))),
    Feature("last_day_amount", "rfm", "amount", "最近购买日净额", "net amount of the last purchase day", lambda k, _: k.rhythm("amount_last_day")),
    Feature("lines_per_order", "rfm", "ratio", "每单平均行数", "lines per order", lambda k, _: ratio(k.sum("line_count"), k.sum("order_count"))),
    Feature("return_count_total", "rfm", "count", "累计退货单数", "orders with a return so far", lambda k, _: k.sum("return_count")),
    Feature("return_amount_ratio", "rfm", "ratio", "退货额与购买额之比", "returned amount over purchased amount so far",
            lambda k, _: ratio(k.sum("purchase_amount") - k.sum(_SPEND), k.sum("purchase_amount"))),
    Feature("margin_{w}d", "rfm", "amount", "近{w}天毛利", "margin of the last {w} days", lambda k, w: k.sum("margin", w)),
    Feature("discount_share", "rfm", "share", "折扣占折前金额的比例", "discount over the amount before discount",
            lambda k, _: ratio(k.sum("discount_amount"), k.sum(_SPEND) + k.sum("discount_amount"))),
    # loyalty: how long, how regular, how broad
    Feature("days_since_first", "loyalty", "days", "距首次购买的天数", "days since the first purchase", lambda k, _: k.since_first),
    Feature("purchase_days_{w}d", "loyalty", "count", "近{w}天购买日数", "days with a purchase in the last {w} days", lambda k, w: k.sum("purchase_days", w)),
    Feature("purchase_days_total", "loyalty", "count", "累计购买日数", "days with a purchase so far", lambda k, _: k.sum("purchase_days")),
    Feature("gap_days_mean", "loyalty", "days", "平均购买间隔", "mean days between purchase days", lambda k, _: k.gap_mean),
    Feature("gap_days_std", "loyalty", "days", "购买间隔的标准差", "standard deviation of the days between purchase days", lambda k, _: k.gap_std),
    Feature("gap_variation", "loyalty", "ratio", "购买间隔的变异系数(越小越规律)", "variation of the gaps: their deviation over their mean (low = regular)",
            lambda k, _: ratio(k.gap_std, k.gap_mean)),
    Feature("gap_days_last", "loyalty", "days", "最近一次购买间隔", "days between the last two purchase days", lambda k, _: k.rhythm("gap_last")),
    Feature("gap_days_max", "loyalty", "days", "最长购买间隔", "longest gap between purchase days", lambda k, _: k.rhythm("gap_max")),
    Feature("overdue_ratio", "loyalty", "ratio", "距最近购买天数与平均间隔之比", "days since the last purchase over the mean gap", lambda k, _: ratio(k.since_last, k.gap_mean)),
    Feature("overdue_max_ratio", "loyalty", "ratio", "距最近购买天数与最长间隔之比", "days since the last purchase over the longest gap",
            lambda k, _: ratio(k.since_last, k.rhythm("gap_max"))),
    Feature("active_share", "loyalty", "share", "有购买的30天段占比", "share of the 30-day blocks since the first purchase that saw one",
            lambda k, _: ratio(k.rhythm("active_blocks"), np.floor((k.since_first - 1) / 30) + 1)),
    Feature("orders_decayed_30d", "loyalty", "count", "按30天半衰期加权的订单数", "orders, each counting half after every 30 days", lambda k, _: k.rhythm("orders_decayed_30d")),
    Feature("orders_decayed_90d", "loyalty", "count", "按90天半衰期加权的订单数", "orders, each counting half after every 90 days", lambda k, _: k.rhythm("orders_decayed_90d")),
    Feature("weekend_share", "loyalty", "share", "周末订单占比", "share of the orders placed on weekends", lambda k, _: ratio(k.sum("weekend_order_count"), k.sum("order_count"))),
    Feature("product_count", "loyalty", "count", "买过的商品种数", "distinct products bought so far", lambda k, _: k.sum("new_product_count")),
    Feature("product_repeat_share", "loyalty", "share", "重复购买同一商品的行占比", "share of the lines whose product was bought before",
            lambda k, _: ratio(k.sum("product_line_count") - k.sum("new_product_count"), k.sum("product_line_count"))),
    Feature("category_count", "loyalty", "count", "买过的品类数", "distinct categories bought so far", lambda k, _: k.sum("new_category_count")),
    # potential: where it is heading, and what the customer has shown to be able to spend
    Feature("amount_decayed_90d", "potential", "amount", "按90天半衰期加权的净消费额", "net amount, counting half after every 90 days", lambda k, _: k.rhythm("amount_decayed_90d")),
    Feature("amount_change_{w}d", "potential", "ratio", "近{w}天与此前{w}天净额的变化(-1到1)", "net amount of the last {w} days against the {w} days before, from -1 to 1",
            lambda k, w: _change(k.sum(_SPEND, w), k.sum(_SPEND, w, w))),
    Feature("order_change_{w}d", "potential", "ratio", "近{w}天与此前{w}天订单数的变化(-1到1)", "orders of the last {w} days against the {w} days before, from -1 to 1",
            lambda k, w: _change(k.sum("order_count", w), k.sum("order_count", w, w))),
    Feature("recent_rate_{w}d", "potential", "ratio", "近{w}天购买日频率与历史频率之比", "purchase days per day in the last {w} days (of the customer's life) over those since the first purchase",
            lambda k, w: ratio(k.sum("purchase_days", w) / np.minimum(w, k.since_first), ratio(k.sum("purchase_days"), k.since_first))),
    Feature("peak_day_amount", "potential", "amount", "单日最高净额", "net amount of the best purchase day", lambda k, _: k.rhythm("amount_peak_day")),
    Feature("peak_month_amount", "potential", "amount", "最高30天净额", "net amount of the best 30-day block since the first purchase", lambda k, _: k.rhythm("amount_peak_block")),
    Feature("peak_ratio", "potential", "ratio", "近30天净额与最高30天净额之比", "net amount of the last 30 days over that of the best 30-day block",
            lambda k, _: ratio(k.sum(_SPEND, 30), k.rhythm("amount_peak_block"))),
    Feature("new_product_count_{w}d", "potential", "count", "近{w}天首次购买的商品数", "products bought for the first time in the last {w} days",
            lambda k, w: k.sum("new_product_count", w)),
    Feature("new_category_count_{w}d", "potential", "count", "近{w}天首次购买的品类数", "categories bought for the first time in the last {w} days",
            lambda k, w: k.sum("new_category_count", w)),
)  # fmt: skip


CORE = frozenset({
    "days_since_last", "order_count_{w}d", "order_count_total", "net_amount_{w}d", "net_amount_total", "order_amount_mean",
    "days_since_first", "purchase_days_{w}d", "purchase_days_total", "gap_days_mean", "gap_days_max", "active_share",
})  # fmt: skip
"""Built whatever groups are chosen: schemes, ladders, segments and the buy-till-you-die models stand on them."""


class _Asked(dict[Any, Floats]):
    """Answer every question with nothing and remember it."""

    def __missing__(self, question: Request | Latest) -> Floats:
        return self.setdefault(question, np.empty(0, dtype=np.float64))


def needs_of(features: Iterable[Feature]) -> tuple[tuple[Request, ...], tuple[Latest, ...]]:
    """Learn which sums and latest rows the formulas need, by running each once on no customers at all."""
    sums, latest = _Asked(), _Asked()
    known = Known(np.empty(0, dtype=np.int32), np.empty((len(RHYTHM), 0)), sums, latest)
    for feature in features:
        feature.compute(known)
    return tuple(sums), tuple(latest)


def known_from(chunk: Chunk, plan: Plan) -> Known:
    """Give formulas what the walk noted."""
    sums = dict(zip(plan.requests, chunk.sums, strict=True))
    return Known(chunk.as_of, chunk.rhythm, sums, dict(zip(plan.latest, chunk.latest, strict=True)))


def columns_of(feature: Feature) -> frozenset[str]:
    """Name the optional columns, kinds of events and tables that a feature stands on."""
    sums, latest = needs_of([feature])
    found = {need for request in sums for need in MEASURES[request.measure].needs}
    for asked in latest:
        of_kind = {"profile": (asked.column,), "signup": ("signup",), "paid": ("invoices",)}
        found.update(of_kind.get(asked.kind, (asked.kind, "value") if asked.column == "value" else (asked.kind,)))
    return frozenset(found)


def expand(features: Features, columns: Iterable[str]) -> tuple[Feature, ...]:
    """Make the features of the groups, and `CORE`, for every window, as far as the mapped columns allow.

    Then come the attributes asked for, each as known at the date.

    >>> found = expand(Features(groups=("potential",), windows_days=(30,)), [])
    >>> [f.name for f in found if "amount" in f.name and "30d" in f.name]
    ['net_amount_30d', 'amount_change_30d']
    """
    present = set(columns)
    made = (
        replace(f, name=f.name.format(w=w), zh=f.zh.format(w=w), en=f.en.format(w=w), window=w)
        for f in CATALOGUE
        if f.group in features.groups or f.name in CORE
        for w in (features.windows_days if "{w}" in f.name else (0,))
        if w <= f.longest
    )
    attributes = (
        Feature(f"attribute_{name}", "attribute", "number", f"客户属性：{name}", f"attribute {name}", _attribute(name))
        for name in features.attributes
    )
    return tuple(f for f in (*made, *attributes) if columns_of(f) <= present)


def _attribute(name: str) -> Callable[[Known, int], Floats]:
    return lambda known, _: known.latest("profile", f"attribute_{name}")


def left_out(features: Features, columns: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Name, for every group asked for of which not one feature can be built, what is missing.

    >>> left_out(Features(groups=("rfm", "credit")), [])
    {'credit': ('invoices',)}
    """
    present = set(columns)
    built = {f.group for f in expand(features, present)}
    missing: dict[str, tuple[str, ...]] = {}
    for group in features.groups:
        if group not in built:
            needed = (columns_of(replace(f, window=30)) - present for f in CATALOGUE if f.group == group)
            missing[group] = min((tuple(sorted(names)) for names in needed), key=lambda names: (len(names), names))
    return missing
