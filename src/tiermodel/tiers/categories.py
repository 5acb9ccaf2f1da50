"""Text attributes in schemes: what is read as text and as a number, values that nobody has, and states by stratum."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import pandas as pd

from tiermodel.errors import DataError, ProjectError
from tiermodel.features.frame import category_names, feature_names, texts_of
from tiermodel.tiers.schemes.protocol import State
from tiermodel.tiers.schemes.schema import BaseScheme
from tiermodel.words import words

__all__ = ["refuse_unknown_features", "states_by_stratum", "unseen_lines", "unseen_values"]

_SHOWN = 10


def refuse_unknown_features(scheme: BaseScheme, buyers: pd.DataFrame) -> None:
    """Raise `ProjectError` for a needed feature that is not built or of the other type, `DataError` for an empty one.

    An empty feature is a number that no customer has; nobody has to have a text attribute.
    """
    numbers, texts = feature_names(buyers), category_names(buyers)
    for name in scheme.text_features:
        if name in numbers:
            raise ProjectError(
                f"scheme {scheme.code}: {name!r} is a number, and is read as text here: give a bound such as at_least, "
                "or declare the attribute under data.customers.categories"
            )
        if name not in texts:
            raise ProjectError(f"scheme {scheme.code}: text attribute {name!r} is not built; there are {texts}")
    for name in _read_as_numbers(scheme):
        if name in texts:
            raise ProjectError(
                f"scheme {scheme.code}: {name!r} is text (data.customers.categories), and is read as a number here: "
                "text is read by `is`, `is_not` and strata only"
            )
        if name not in numbers:
            raise ProjectError(f"scheme {scheme.code}: feature {name!r} is not built; there are {', '.join(numbers)}")
        if buyers[name].isna().all():
            raise DataError(f"scheme {scheme.code}: no customer has a {name!r}; rank by another feature")


def _read_as_numbers(scheme: BaseScheme) -> dict[str, None]:
    conditions = list(scheme.given_conditions())
    bounded = [when.feature for when in conditions if when.text is None]
    bounded += [] if scheme.priority is None else [scheme.priority]
    return dict.fromkeys((*(n for n in scheme.ranked() if n not in scheme.text_features), *bounded))


def unseen_values(scheme: BaseScheme, snapshot: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the values of conditions that no customer of a snapshot has, with those that there are, closest first.

    A rare value may be missing in a small sample. Raises `ProjectError` for a value that differs only in case, width or
    spaces from one that customers have and the condition does not list: it is a typing error.
    """
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for feature, listed in _listed_values(scheme):
        known = sorted(set(texts_of(snapshot, feature).dropna()))
        for value in [value for value in listed if value not in known]:
            same = [other for other in known if _folded(other) == _folded(value) and other not in listed]
            if same:
                raise ProjectError(
                    f"scheme {scheme.code}: no customer has {feature} {value!r}, but there is {same[0]!r}: write that"
                )
            closest = difflib.get_close_matches(value, known, n=3)
            others = [*closest, *(other for other in known if other not in closest)]
            found[feature, value] = {"feature": feature, "value": value, "there_are": others[:_SHOWN]}
    return list(found.values())


def _listed_values(scheme: BaseScheme) -> Iterator[tuple[str, tuple[str, ...]]]:
    for when in scheme.given_conditions():
        if when.text is not None:
            yield when.feature, when.text.listed


def _folded(value: str) -> str:
    return "".join(unicodedata.normalize("NFKC", value).casefold().split())


def unseen_lines(state: Mapping[str, Any], language: str) -> list[str]:
    """Return a warning for each value of a condition that no customer had when the scheme was fitted."""
    say = words(language)
    return [
        say["note_unseen"].format(
            feature=item["feature"],
            value=item["value"],
            there_are=say["comma"].join(map(repr, item["there_are"])) or say["note_none"],
        )
        for item in state.get("unseen_values", [])
    ]


def states_by_stratum(
    scheme: BaseScheme, buyers: pd.DataFrame, common: State, fit: Callable[[pd.DataFrame], State]
) -> dict[str, dict[str, Any]]:
    """Return the state of every stratum by value, sorted: the number of `buyers`, and what differs from `common`.

    Left out are values of too few buyers, and those whose buyers all lack a feature that the scheme needs.
    """
    if scheme.strata is None:
        return {}
    values = texts_of(buyers, scheme.strata.feature)
    counts = values.value_counts()
    found = {}
    for value in sorted(counts.index[counts >= scheme.strata.at_least]):
        rows = buyers[(values == value).to_numpy()]
        if _all_known(rows, _read_as_numbers(scheme)):
            own = fit(rows)
            differs = {key: part for key, part in own.items() if key not in common or common[key] != part}
            found[str(value)] = {"buyers": len(rows), "state": differs}
    return found


def _all_known(rows: pd.DataFrame, names: Collection[str]) -> bool:
    return bool(rows[list(names)].notna().any().all())
