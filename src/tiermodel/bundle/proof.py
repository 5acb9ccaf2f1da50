"""A bundle is proven before it is believed: the structure of every file is checked before a model is built from it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from tiermodel.bundle.bundle_shape import BundleShape
from tiermodel.bundle.files import CARD, GOLDEN, JSON, MANIFEST
from tiermodel.bundle.scheme_shapes import check_scheme
from tiermodel.bundle.shapes import first_problem
from tiermodel.errors import ModelError, ProjectError
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.learners.tree_text import check_tree_text
from tiermodel.tiers.schemes.load import parse_scheme

__all__ = ["PROSPECTS", "checked_data", "checked_json", "tier_file"]

PROSPECTS = "prospects.txt"
_DEEPEST, _LONGEST_TEXT, _LARGEST_WHOLE = 40, 10_000, 2**63


def tier_file(threshold: int) -> str:
    """Return the name of the file of the trees that predict a tier above a threshold."""
    return f"tier_{threshold}.txt"


def checked_data(folder: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what `bundle.json` holds, once all files have passed; `ModelError` names the file, the key and the value.

    Trees are checked as text: LightGBM has seen none of them.
    """
    if JSON not in files:
        raise ModelError(f"{folder}: {JSON} is missing; copy the bundle again")
    where = folder / JSON
    data = checked_json(where, files[JSON])
    try:
        shape = BundleShape.model_validate_json(files[JSON])
        scheme = parse_scheme(data["scheme"].get("scheme"), "scheme", (1,))
        shape.check_inputs(len(shape.features) + len(BTYD_INPUTS))
        shape.check_levels(len(scheme.levels))
        check_scheme(scheme, data["scheme"]["state"], shape.features)
    except ValidationError as error:
        _refuse(where, first_problem(error))
    except (ProjectError, ValueError, KeyError, TypeError, RecursionError) as error:
        told = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())
        _refuse(where, told)
    trees = _tree_files(data, shape, [*shape.features, *BTYD_INPUTS])
    _check_presence(folder, files, trees)
    for name, (inputs, objective) in trees.items():
        check_tree_text(_text(folder / name, files[name]), inputs, objective, folder / name)
    return data


def _refuse(where: Path, told: str) -> NoReturn:
    raise ModelError(f"{where}: {told}; copy the bundle again, or train it again") from None


_Trees = dict[str, tuple[list[str], Literal["binary", "tweedie"]]]


def _tree_files(data: Mapping[str, Any], shape: BundleShape, names: list[str]) -> _Trees:
    """Return the files of trees that a bundle has, each with its inputs and objective."""
    found: _Trees = {"churn.txt": (names, "binary"), "value.txt": (names, "tweedie")}
    for k, share in enumerate(shape.tier.share_above):
        if 0 < share < 1:  # else there was nothing to learn
            found[tier_file(k)] = names, "binary"
    if shape.prospects is not None:
        found[PROSPECTS] = shape.prospects.names, "binary"
    state = data["scheme"]["state"]
    for name in (state.get("model") or {}).get("trees", []):
        if name is not None:
            found[name] = state["names"], "binary"
    return found


def _check_presence(folder: Path, files: Mapping[str, bytes], trees: Collection[str]) -> None:
    wanted = {JSON, MANIFEST, CARD, *trees}
    for name in sorted(wanted - set(files)):
        raise ModelError(f"{folder}: {name} is missing; copy the bundle again")
    for name in sorted(set(files) - wanted - {GOLDEN}):
        raise ModelError(f"{folder}: {name} is no file of this bundle; copy the bundle again")


def _text(where: Path, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        _refuse(where, f"no UTF-8 text at byte {error.start}")


def checked_json(where: Path, content: bytes) -> dict[str, Any]:
    """Return what a JSON file holds.

    `ModelError` for a number that is not finite, a key that is there twice, and texts and nesting beyond any of ours.
    """
    try:
        data = json.loads(content, parse_constant=_no_constant, object_pairs_hook=_each_once)
        if not isinstance(data, dict):
            raise ValueError(f"expected keys, got {type(data).__name__}")  # noqa: TRY301, TRY004
        _check_values(data, "", 0)
    except RecursionError:
        _refuse(where, "nested too deeply")
    except ValueError as error:  # also of JSON and UTF-8
        _refuse(where, str(error))
    return data


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{max(names, key=names.count)[:40]!r} is there twice")
    return found


def _check_values(value: Any, key: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"{key[:40]}: nested too deeply")
    if isinstance(value, dict):
        for name, part in value.items():
            _check_values(part, f"{key}.{name}" if key else name, depth + 1)
    elif isinstance(value, list):
        for part in value:
            _check_values(part, key, depth + 1)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{key}: {value} is no finite number")
    elif isinstance(value, int) and abs(value) >= _LARGEST_WHOLE:
        raise ValueError(f"{key}: a whole number of {len(str(value))} digits")
    elif isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"{key}: a text of {len(value)} characters")
