"""The catalogue of features: each has a name, group, unit, meaning in Chinese and English, and a formula.

To add one, append a `Feature` to `PURCHASES` or `CONTACTS`. Its formula takes a `FeatureContext`, all that is known of
every customer before the date, and returns a float64 for each customer, NaN where the feature is not defined. A name
with `{w}` makes a feature for every window of the project. The data dictionary, the Parquet schema and the parametrised
tests read this list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from tiermodel.arrays import Floats
from tiermodel.config.project import Features
from tiermodel.features.contacts import CONTACTS
from tiermodel.features.custom import custom_features
from tiermodel.features.formula import Feature, FeatureContext, columns_of
from tiermodel.features.purchases import PURCHASES
from tiermodel.tables.categories import is_text, text_column

__all__ = ["ATTRIBUTE", "AUDITED", "CATALOGUE", "CORE", "expand", "left_out"]


ATTRIBUTE = "attribute"
"""The prefix of attributes; those of text are never inputs of a model."""

AUDITED = "audited"
"""The prefix of attributes that serve audits only and are never inputs of a model."""

CATALOGUE: tuple[Feature, ...] = (*PURCHASES, *CONTACTS)

CORE = frozenset({
    "days_since_last", "order_count_{w}d", "order_count_total", "net_amount_{w}d", "net_amount_total",
    "order_amount_mean", "days_since_first", "purchase_days_{w}d", "purchase_days_total", "gap_days_mean",
    "gap_days_max", "active_share", "contract_days_left",
})  # fmt: skip
"""Features built whatever groups are chosen: schemes, lifecycle stages, segments, churn and buy-till-you-die models
need them."""


def expand(features: Features, columns: Iterable[str]) -> tuple[Feature, ...]:
    """Return the features of the chosen groups and `CORE` for every window, as far as the mapped columns allow.

    After them come the customer attributes of the project, each as known at the date; attributes for audits are named
    `audited_…`. Then come the custom features, and last text attributes: all that `columns` has.

    Raises `ProjectError` for a custom feature whose name is taken, or whose formula reads what is not there.

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
    texts = [name.removeprefix(text_column("")) for name in sorted(filter(is_text, present))]
    attributes = (_attribute(ATTRIBUTE, name) for name in features.attributes)
    audited = (_attribute(AUDITED, name) for name in features.audited if name not in texts)
    categories = (_category(ATTRIBUTE, name) for name in texts)
    audited_texts = (_category(AUDITED, name) for name in features.audited if name in texts)
    own = custom_features(features, CATALOGUE, present)
    every = (*made, *attributes, *audited, *own, *categories, *audited_texts)
    return tuple(f for f in every if columns_of(f) <= present)


def _category(prefix: str, name: str) -> Feature:
    def latest(known: FeatureContext, _: int) -> Any:
        return known.text(name)

    return Feature(f"{prefix}_{name}", "attribute", "text", f"客户属性 {name}", f"attribute {name}", latest)


def _attribute(prefix: str, name: str) -> Feature:
    def latest(known: FeatureContext, _: int) -> Floats:
        return known.latest("profile", f"attribute_{name}")

    return Feature(f"{prefix}_{name}", "attribute", "number", f"客户属性：{name}", f"attribute {name}", latest)


def left_out(features: Features, columns: Iterable[str]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Return the chosen groups of which no feature can be built, each with the smallest sets of columns that it lacks.

    >>> left_out(Features(groups=("rfm", "credit", "value")), [])
    {'credit': (('invoices',),), 'value': (('acquisition_cost',), ('cost',), ('costs',))}
    """
    present = set(columns)
    built = {f.group for f in expand(features, present)}
    missing: dict[str, tuple[tuple[str, ...], ...]] = {}
    for group in features.groups:
        if group not in built:
            lacked = {columns_of(replace(f, window=30)) - present for f in CATALOGUE if f.group == group}
            fewest = min(map(len, lacked))
            missing[group] = tuple(sorted(tuple(sorted(names)) for names in lacked if len(names) == fewest))
    return missing
