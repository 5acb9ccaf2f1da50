"""Find the parts of a report that belong together: beside the scores, in a refresh's run folder, with the bundle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiermodel.errors import TierModelError
from tiermodel.reporting.inputs import read_source
from tiermodel.words import words

__all__ = ["Parts", "find_parts"]

_NAMES = {
    "scores": ("scores.parquet", "scores.csv"),
    "features": ("features.parquet", "features.csv"),
    "bundle": ("bundle", "model"),
    "backtest": ("backtest.json",),
    "predictions": ("predictions.parquet", "predictions.csv"),
    "outcomes": ("outcomes.parquet", "outcomes.csv"),
    "check": ("check.json",),
    "monitor": ("monitor.json",),
    "gate": ("gate.json", "promote.json"),
    "ledger": ("ledger",),
    "policy": ("policy.yaml",),
}
"""What the verbs' examples and the nightly job call each part."""
_OF_CUSTOMERS = {"scores", "features", "predictions", "ledger"}
_CURRENT = "CURRENT"


@dataclass(frozen=True)
class Parts:
    """The sources of a report: those given and found by kind, those left out with a reason, and the kinds missing.

    `language` is that of the bundle, where there is one.
    """

    paths: dict[str, Path]
    found: tuple[str, ...]
    left_out: tuple[tuple[Path, str], ...]
    missing: tuple[str, ...]
    language: str | None

    def lines(self, language: str) -> list[str]:
        """Return what was found, left out and is missing, a line each."""
        wording = words(language)
        told = []
        if self.found:
            names = wording["comma"].join(str(self.paths[kind]) for kind in self.found)
            told.append(wording["parts_found"].format(names=names))
        told += [wording["parts_left_out"].format(path=path, reason=reason) for path, reason in self.left_out]
        if self.missing:
            names = wording["comma"].join(wording[f"part_{kind}"] for kind in self.missing)
            told.append(wording["parts_missing"].format(names=names))
        return told


def find_parts(sources: Sequence[str | Path]) -> Parts:
    """Return the sources given, and the parts near them that belong to the same scores.

    A folder that is no bundle and no ledger is looked into: what a demo or a refresh left there; a folder of runs leads
    to the last complete run. Parts are looked for under their usual names beside the sources, and a ledger also one
    folder up, where a refresh keeps it. One of another date, model or project is left out. Tables of customers are
    added to a folder or to tables of customers only: a page of a model or a backtest alone names nobody. Errors as
    `read_source` has them, for a source that was given; a part that cannot be read is left out.
    """
    given: dict[str, Path] = {}
    contents: dict[str, Any] = {}
    folders: list[Path] = []
    for path in map(Path, sources):
        folder = _folder(path)
        if folder is not None:
            folders.append(folder)
            continue
        kind, contents[kind] = read_source(path)
        given[kind] = path
        folders.append(path.parent)
    paths, left_out = dict(given), list[tuple[Path, str]]()
    asked_for_customers = any(map(_folder, map(Path, sources))) or not _OF_CUSTOMERS.isdisjoint(given)
    for kind in _NAMES:  # scores and features first: they say to which date and model the rest must belong
        for place in _places(kind, folders):
            if kind in paths or (kind in _OF_CUSTOMERS and not asked_for_customers):
                break
            try:
                found, content = read_source(place)
            except TierModelError as error:
                left_out.append((place, str(error)))
                continue
            if reason := (found if found != kind else _stranger(kind, content, contents)):
                left_out.append((place, reason))
            else:
                paths[kind], contents[kind] = place, content
    if not paths and sources:  # a folder without any part: let the reader of sources say what it wants
        read_source(Path(sources[0]))
    missing = tuple(kind for kind in _NAMES if kind not in paths and kind not in {"gate", "monitor", "check", "policy"})
    language = contents["bundle"].language if "bundle" in contents else None
    return Parts(paths, tuple(kind for kind in paths if kind not in given), tuple(left_out), missing, language)


def _folder(path: Path) -> Path | None:
    """Return the folder to look into; None for a file, a bundle or a ledger."""
    if not path.is_dir() or (path / "bundle.json").is_file():
        return None
    if (path / _CURRENT).is_dir():
        return (path / _CURRENT).resolve()
    known = any((path / name).exists() for names in _NAMES.values() for name in names)
    return path if known else None


def _places(kind: str, folders: Sequence[Path]) -> list[Path]:
    near = [folder / name for folder in folders for name in _NAMES[kind]]
    if kind == "ledger":
        near += [folder.parent / name for folder in folders for name in _NAMES[kind]]
    return [place for place in dict.fromkeys(near) if place.exists()]


def _stranger(kind: str, content: Any, known: dict[str, Any]) -> str:
    """Return why a part does not belong to what is known already; empty where it does."""
    scores, bundle = known.get("scores"), known.get("bundle")
    if kind == "backtest" and bundle is not None:
        return "" if content.get("project") == bundle.name else f"{content.get('project')}, bundle {bundle.name}"
    if scores is None or kind not in {"features", "bundle", "ledger", "policy"}:
        return ""
    return _stranger_to_scores(kind, content, scores)


def _stranger_to_scores(kind: str, content: Any, scores: Any) -> str:
    day, made_by = str(scores["as_of"].iloc[0]), scores["model_version"].iloc[0]
    codes = {name.removeprefix("p_") for name in scores.columns if name.startswith("p_")}
    if kind == "features" and day not in set(content["as_of"]):
        return f"as_of {content['as_of'].max()}, scores {day}"
    if kind == "bundle" and content.version != made_by:
        return f"{content.version}, scores {made_by}"
    if kind == "ledger" and (not set(content.codes) <= codes or str(content.graded[0]) > day):
        return f"{', '.join(content.codes)} {content.graded[0]}; scores {', '.join(sorted(codes))} {day}"
    if kind == "policy" and not codes <= set(content.levels):
        return f"levels {', '.join(content.levels)}; scores {', '.join(sorted(codes))}"
    return ""
