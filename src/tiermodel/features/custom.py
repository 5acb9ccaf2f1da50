"""The features of `features.custom`: sums of a project's own measures, and formulas over features."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.config.custom import WINDOW, CustomFeature, custom_column, names_in, parsed
from tiermodel.config.project import Features
from tiermodel.config.validation import nearest
from tiermodel.errors import ProjectError
from tiermodel.features.formula import Feature, FeatureContext, columns_of
from tiermodel.features.outcome import OUTCOME_COLUMNS
from tiermodel.tables.history import project_key

__all__ = ["RESERVED", "custom_features"]

RESERVED = frozenset({
    "customer_id", "as_of", *OUTCOME_COLUMNS,
    # the score table, which is read beside the features
    "tier", "tier_code", "tier_name", "tier_set", "model_tier", "previous_tier", "movement", "segment",
    "lifecycle_stage", "loyalty_stage", "churn_risk", "risk_band", "expected_value", "expected_value_low",
    "expected_value_median", "expected_value_high", "potential", "upgrade_potential", "clv", "conversion_chance",
    "reason_1", "reason_2", "reason_3", "risk_reason_1", "risk_reason_2", "risk_reason_3", "policy", "policy_id",
    "policy_name", "scheme_version", "model_version", "priority", "expected_growth", "contact_threshold",
    "churn_warning",
    # features that are fitted: schemes read them like those that are built
    "silence_ratio", "headroom_amount", "headroom", "loyalty", "willingness", "need", "credit", "importance",
})  # fmt: skip
"""Names that a custom feature cannot have, beside those of the catalogue: other tables use them."""

_TAKEN = re.compile(r"(attribute|audited|p|score|scores)_.*|.*_score")


def custom_features(features: Features, catalogue: Collection[Feature], columns: Collection[str]) -> list[Feature]:
    """Return the custom features, in the order of the project file, for their windows.

    Raises `ProjectError` for a name that is taken, and for a formula that names no feature of the catalogue and none
    above it, or one that needs a column that is not mapped.
    """
    templates = {f.name: f for f in catalogue}
    made: dict[str, Feature] = {}
    for own in features.custom:
        measured = _measured(own) if own.measure is not None else ()
        windows = own.windows_days or features.windows_days
        found = list(_at(windows, measured)) if measured else list(_computed(own, windows, templates, made, columns))
        for feature in found:
            if feature.name in made or _is_taken(feature.name, templates):
                raise ProjectError(f"features.custom.{own.name}: the name {feature.name} is taken; choose another")
            made[feature.name] = feature
        templates |= {f.name: f for f in measured}  # formulas below may read any window of it
    return list(made.values())


def _measured(own: CustomFeature) -> tuple[Feature, Feature]:
    """Return the features of a measure: of a window, and so far."""
    measure, name, zh, en = custom_column(own.name), own.name, own.name_zh, own.name_en
    return (
        Feature(f"{name}_{WINDOW}d", "custom", own.unit, f"近{WINDOW}天{zh}", f"{en} in the last {WINDOW} days",
                lambda k, w: k.sum(measure, w)),
        Feature(f"{name}_total", "custom", own.unit, f"累计{zh}", f"{en} so far", lambda k, _: k.sum(measure)),
    )  # fmt: skip


def _at(windows: Collection[int], templates: Collection[Feature]) -> Iterator[Feature]:
    for f in templates:
        for w in windows if WINDOW in f.name else (0,):
            name, zh, en = (text.replace(WINDOW, str(w)) for text in (f.name, f.zh, f.en))
            yield replace(f, name=name, zh=zh, en=en, window=w)


def _is_taken(name: str, templates: Mapping[str, Feature]) -> bool:
    return name in RESERVED or _TAKEN.fullmatch(name) is not None or _from_catalogue(name, templates) is not None


def _from_catalogue(name: str, templates: Mapping[str, Feature]) -> Feature | None:
    """Return the feature of the catalogue with this name, for any length of its window."""
    if name in templates:
        return templates[name]
    found = re.fullmatch(r"(.+_)([1-9]\d{0,3})d", name)
    template = templates.get(f"{found[1]}{WINDOW}d") if found else None
    if found is None or template is None or int(found[2]) > template.longest:
        return None
    return replace(template, name=name, window=int(found[2]))


def _computed(
    own: CustomFeature,
    windows: Collection[int],
    templates: Mapping[str, Feature],
    above: Mapping[str, Feature],
    columns: Collection[str],
) -> Iterator[Feature]:
    """Yield the features of a formula."""
    formula = own.formula or ""
    for w in windows if own.windowed else (0,):
        name = f"{own.name}_{w}d" if w else own.name
        zh, en = (f"近{w}天{own.name_zh}", f"{own.name_en}, last {w} days") if w else (own.name_zh, own.name_en)
        tree = parsed(formula.replace(WINDOW, str(w)))
        read = {n: _read(own, n, templates, above, columns) for n in names_in(tree)}
        yield Feature(name, "custom", own.unit, zh, en, _formula(tree, read))


def _read(
    own: CustomFeature,
    name: str,
    templates: Mapping[str, Feature],
    above: Mapping[str, Feature],
    columns: Collection[str],
) -> Feature:
    """Return the feature that a formula names; it may belong to a group that is not chosen, and have any window."""
    key = f"features.custom.{own.name}"
    feature = above.get(name) or _from_catalogue(name, templates)
    if feature is None:
        days = re.search(r"\d+", name)  # the name for the length that was meant is nearer than one with `{w}`
        near = nearest(name, [*above, *(n.replace(WINDOW, days[0] if days else "30") for n in templates)])
        hint = f"did you mean {near}?" if near else "`tiermodel show features` prints the names"
        raise ProjectError(f"{key}: {own.formula!r}: there is no feature {name}, nor a custom one above; {hint}")
    if lacking := columns_of(feature) - set(columns):
        keys = " and ".join(sorted(map(project_key, lacking)))
        raise ProjectError(f"{key}: {own.formula!r}: {name} needs {keys}, which is not mapped; map it")
    return feature


def _formula(tree: ast.expr, read: Mapping[str, Feature]) -> Callable[[FeatureContext, int], Floats]:
    def computed(known: FeatureContext, _: int) -> Floats:
        values = {name: feature.compute(known) for name, feature in read.items()}
        with np.errstate(all="ignore"):  # what is not finite is missing
            result = np.asarray(_value(tree, values), dtype=np.float64)
        return np.where(np.isfinite(result), result, np.nan)

    return computed


def _value(node: ast.expr, values: Mapping[str, Floats]) -> Any:
    """Return the value of a formula that `config.custom.parsed` has let pass: each step is rounded as IEEE 754 says."""
    match node:
        case ast.Name(id=name):
            return values[name]
        case ast.UnaryOp(op=operation, operand=part):
            value = _value(part, values)
            return -value if isinstance(operation, ast.USub) else value
        case ast.BinOp(left=left, op=operation, right=right):
            return _OPERATIONS[type(operation)](_value(left, values), _value(right, values))
        case ast.Call(func=ast.Name(id=name), args=given):
            return _FUNCTIONS[name](*(_value(part, values) for part in given))
        case ast.Constant(value=int() | float() as number):
            return float(number)
    raise AssertionError(ast.dump(node))


_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "min": np.minimum,
    "max": np.maximum,
    "coalesce": lambda x, otherwise: np.where(np.isnan(x), otherwise, x),
}
