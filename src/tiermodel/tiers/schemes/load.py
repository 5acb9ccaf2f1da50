"""Reading of schemes: from presets, files and mappings, and settled on the features that are built."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from tiermodel.config.packaged import packaged
from tiermodel.config.project import Project
from tiermodel.config.yaml_reader import YamlSource
from tiermodel.errors import ProjectError
from tiermodel.features.catalogue import ATTRIBUTE
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.tiers.schemes.scheme_kinds import SCHEMES

__all__ = [
    "Scheme",
    "load_preset",
    "load_scheme",
    "parse_scheme",
    "preset_names",
    "scheme_data",
    "settle",
    "settle_part",
]


Scheme = BaseScheme
_LATER: Mapping[str, Any] = {
    "key_share": None, "veto": [], "stability": None, "quantiles": None, "capacity": None, "learner": "tree",
    "label": None, "sharp": False, "labels": None, "policy_zh": "",
    "managers": None, "customers_per_manager": None, "priority": None, "is": None, "is_not": None, "strata": None,
    "best_ties": False,
}  # fmt: skip
"""Defaults of the keys that older schemes do not have."""


@cache
def _adapter(schemes: tuple[type[BaseScheme], ...]) -> TypeAdapter[Scheme]:
    union: Any = functools.reduce(operator.or_, schemes)
    return TypeAdapter(Annotated[union, Field(discriminator="kind")])


def preset_names() -> list[str]:
    """Return the names of the schemes that come with the package, sorted."""
    return sorted(path.stem for path in packaged("schemes").glob("*.yaml"))


def load_scheme(project: Project) -> Scheme:
    """Return the project's scheme: a preset by name, a scheme file by path, or a scheme written in the project file.

    `{longest}`, `{middle}` and `{shortest}` in the name of a feature stand for the project's window lengths. Raises
    `ProjectError` that names the file and the wrong key, cell or level.
    """
    scheme = _given(project)
    if project.tiers.strata is not None:
        strata = project.tiers.strata.model_dump()
        scheme = parse_scheme({**scheme_data(scheme), "strata": strata}, "tiers", project.features.windows_days)
    _label_is_dated(scheme, project)
    _categories_are_mapped(scheme, project)
    stability = project.tiers.stability
    return scheme if stability is None else scheme.model_copy(update={"stability": stability})


def _label_is_dated(scheme: Scheme, project: Project) -> None:
    """Raise `ProjectError` for labels that are not read or not dated: today's label beside past features is a leak."""
    if scheme.label_feature is None:
        return
    label = scheme.label_feature.removeprefix("attribute_")
    customers = project.data.customers
    if label not in project.features.attributes:
        raise ProjectError(
            f"tiers.scheme: label {label!r} is not one of features.attributes {list(project.features.attributes)}; "
            "map it under data.customers.attributes, and name it there"
        )
    if customers is None or customers.columns.valid_from is None:
        raise ProjectError(
            f"tiers.scheme: label {label!r} needs data.customers.columns.valid_from, the day from which on a customer "
            "had it: without it, past customers would be told by what was decided later"
        )


def _categories_are_mapped(scheme: Scheme, project: Project) -> None:
    """Raise `ProjectError` for strata, or values in a condition, of an attribute that is not declared as text."""
    customers = project.data.customers
    known = {} if customers is None else customers.categories
    built = {f"{ATTRIBUTE}_{name}" for name in known}
    needed = [name for when in scheme.given_conditions() if when.text and not when.optional for name in [when.feature]]
    needed += [] if scheme.strata is None else [scheme.strata.feature]
    for feature in needed:
        if not built & set(_names({"feature": feature})):
            name = feature.removeprefix(f"{ATTRIBUTE}_")
            raise ProjectError(
                f"tiers.scheme: {name!r} is read as text, but it is not one of data.customers.categories "
                f"{sorted(known)}; map its column there"
            )


def _given(project: Project) -> Scheme:
    given = project.tiers.scheme
    if isinstance(given, Mapping):
        return parse_scheme(given, "tiers.scheme", project.features.windows_days)
    if given in preset_names():
        return load_preset(given, project.features.windows_days)
    path = Path(project.resolve(given))
    if not path.is_file():
        raise ProjectError(
            f"tiers.scheme: {given!r} is neither a preset ({', '.join(preset_names())}) nor a file at {path}"
        )
    return _read_scheme(path, project.features.windows_days)


def load_preset(name: str, windows_days: Iterable[int]) -> Scheme:
    """Return a scheme that comes with the package, for the given window lengths in days; cached."""
    return _preset(name, tuple(windows_days))


@cache
def _preset(name: str, windows_days: tuple[int, ...]) -> Scheme:
    return _read_scheme(packaged("schemes") / f"{name}.yaml", windows_days)


def _read_scheme(path: Path, windows_days: Iterable[int]) -> Scheme:
    source = YamlSource(path)
    read = source.read()
    source.refuse_problems()
    return parse_scheme(read, str(path), windows_days)


def parse_scheme(data: Any, where: str, windows_days: Iterable[int]) -> Scheme:
    """Return the scheme that plain data describe; `ProjectError`, whose text begins with `where`, if they are wrong."""
    try:
        return _adapter(tuple(SCHEMES.values())).validate_python(_fill(data, _by_length(windows_days)))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'][1:])) or 'scheme'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise ProjectError(f"{where}: " + "; ".join(lines)) from None


def _by_length(windows_days: Iterable[int]) -> dict[str, int]:
    windows = sorted(windows_days)
    return {"longest": windows[-1], "middle": windows[(len(windows) - 1) // 2], "shortest": windows[0]}


def _fill(data: Any, windows: Mapping[str, int]) -> Any:
    if isinstance(data, Mapping):
        return {key: _fill(value, windows) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_fill(value, windows) for value in data]
    if isinstance(data, str):
        for name, days in windows.items():
            data = data.replace(f"{{{name}}}", str(days))
    return data


def scheme_data(scheme: Scheme) -> dict[str, Any]:
    """Return a scheme as plain data, from which `parse_scheme` makes the same scheme."""
    return dict(_without_later_defaults(scheme.model_dump(mode="json")))


def _without_later_defaults(data: Any) -> Any:
    """Return the data without unset keys that older versions did not have, so that scheme versions do not change."""
    if isinstance(data, list):
        return [_without_later_defaults(item) for item in data]
    if not isinstance(data, dict):
        return data
    kept = {key: value for key, value in data.items() if key not in _LATER or value != _LATER[key]}
    return {key: _without_later_defaults(value) for key, value in kept.items()}


def settle(scheme: Scheme, built: Collection[str]) -> tuple[Scheme, list[str]]:
    """Return the scheme on the features that are built, and the names of the features that were left out.

    Of alternatives `a | b` the first that is built is chosen; optional parts without their feature are left out.
    Declared weights of the remaining dimensions are scaled to add up to one.
    """
    left: list[str] = []
    data = _settled(scheme.model_dump(mode="json"), built, left)
    return parse_scheme(data, f"scheme {scheme.code}", (1,)), left


def settle_part(part: Mapping[str, Any], windows_days: Iterable[int], built: Collection[str]) -> dict[str, Any]:
    """Return a part of a scheme, as plain data, for given window lengths in days and settled as `settle` does."""
    return _settled_part(_fill(part, _by_length(windows_days)), built, [])


def _settled(data: Any, built: Collection[str], left: list[str]) -> Any:
    if isinstance(data, list):
        kept = [_settled(item, built, left) for item in data if not _missing(item, built, left)]
        # a rule that has lost all its conditions would apply to every customer
        return [new for new in kept if not _emptied(new)]
    return _settled_part(data, built, left) if isinstance(data, dict) else data


def _settled_part(part: dict[str, Any], built: Collection[str], left: list[str]) -> dict[str, Any]:
    """Return a part of a scheme on the built features; `_emptied` marks a rule that has lost all its conditions."""
    new = {key: _settled(value, built, left) for key, value in part.items()}
    if isinstance(new.get("feature"), str) and "|" in new["feature"]:
        names = _names(new)
        new["feature"] = next((name for name in names if name in built), names[-1])
    if part.get("when") and not new["when"]:
        new["_emptied"] = True
    return _reweighed(part, new)


def _missing(item: Any, built: Collection[str], left: list[str]) -> bool:
    """Return whether an optional part lacks its feature, or an optional rule that of a condition; add it to `left`."""
    if not (isinstance(item, dict) and item.get("optional")):
        return False
    needed = [part for part in item["when"] if not part["optional"]] if "when" in item else [item]
    lacking = [_names(part)[0] for part in needed if not any(name in built for name in _names(part))]
    left.extend(lacking)
    return bool(lacking)


def _emptied(item: Any) -> bool:
    return isinstance(item, dict) and bool(item.pop("_emptied", False))


def _reweighed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return a part with the declared weights scaled, or the AHP comparisons cut, to the dimensions that remain."""
    old, new = before.get("dimensions"), after.get("dimensions")
    if not old or not new or len(old) == len(new):
        return after
    if before.get("weights") == "declared":
        total = sum(d["weight"] for d in new)
        return {**after, "dimensions": [{**d, "weight": d["weight"] / total} for d in new]}
    if before.get("comparisons"):
        stays = _positions(old, new)
        return {**after, "comparisons": [[before["comparisons"][i][j] for j in stays] for i in stays]}
    return after


def _positions(old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the positions of the dimensions that remain; each now names one of its alternatives."""
    return [n for n, before in enumerate(old) if any(set(_names(after)) <= set(_names(before)) for after in new)]


def _names(dimension: Mapping[str, Any]) -> list[str]:
    return [name.strip() for name in dimension["feature"].split("|")]
