"""Describe a tier scheme as data: ordered levels, how customers are assigned, and proof that it holds together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from tiermodel.config import Project
from tiermodel.errors import ProjectError
from tiermodel.yaml_source import YamlSource

__all__ = [
    "LearnedScheme",
    "Level",
    "RfmScheme",
    "Scheme",
    "ShareScheme",
    "load_preset",
    "load_scheme",
    "parse_scheme",
    "preset_names",
]

Share = Annotated[float, Field(gt=0, le=1)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Level(_Data):
    """Name one level. `key` marks the levels whose customers count as key accounts, `policy` is what they get."""

    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")]
    name_zh: str
    name_en: str
    policy: str = ""
    key: bool = False


class _Scheme(_Data):
    code: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,40}$")]
    name_zh: str
    name_en: str
    levels: Annotated[tuple[Level, ...], Field(min_length=2, max_length=12)]
    no_purchase: str | None = None
    """The level of customers without a purchase, decided by this rule alone; the lowest where it is not set."""

    @model_validator(mode="after")
    def _levels_hold_together(self) -> Self:
        codes = self.codes
        for name, values in (("code", codes), ("name_zh", self.names("zh")), ("name_en", self.names("en"))):
            twice = sorted({v for v in values if values.count(v) > 1})
            if twice:
                raise ValueError(f"levels: {name} {twice[0]!r} is used twice")
        if self.no_purchase is not None and self.no_purchase not in codes:
            raise ValueError(f"no_purchase: {self.no_purchase!r} is not a level; levels are {', '.join(codes)}")
        keys = [level.key for level in self.levels]
        if keys != sorted(keys):
            lowest = codes[keys.index(True)]
            raise ValueError(
                f"levels: {lowest!r} is a key level but a higher level is not; levels go from lowest to highest"
            )
        return self

    @property
    def codes(self) -> list[str]:
        """List the codes, lowest first."""
        return [level.code for level in self.levels]

    def names(self, language: str) -> list[str]:
        """List the names, lowest first."""
        return [level.name_zh if language == "zh" else level.name_en for level in self.levels]

    @property
    def no_purchase_level(self) -> int:
        """Give the number of the level for customers without a purchase."""
        return 0 if self.no_purchase is None else self.codes.index(self.no_purchase)

    @property
    def bought_levels(self) -> list[str]:
        """List the levels that customers with a purchase can reach, lowest first."""
        return [code for code in self.codes if code != self.no_purchase]


def _check_shares(shares: Mapping[str, float], scheme: _Scheme) -> None:
    missing = [c for c in scheme.bought_levels if c not in shares]
    unknown = [c for c in shares if c not in scheme.bought_levels]
    if missing or unknown:
        raise ValueError(f"shares: missing {missing}, not a level {unknown}; each of {scheme.bought_levels} needs one")
    total = sum(shares.values())
    if abs(total - 1) > 1e-9:
        raise ValueError(f"shares: they add up to {total:g}, not 1")


class ShareScheme(_Scheme):
    """Give each level a share of the customers, or of the cumulated value, ranked by one feature."""

    kind: Literal["share"]
    feature: str
    of: Literal["customers", "value"] = "customers"
    shares: dict[str, Share]

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        _check_shares(self.shares, self)
        return self


class Score(_Data):
    """Score one feature from 1 to `bins`: at cut points given, or fitted as quantiles or Jenks natural breaks."""

    feature: str
    better: Literal["higher", "lower"] = "higher"
    bins: Annotated[int, Field(ge=2, le=10)] = 5
    cuts: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | Literal["quantile", "jenks"] = "quantile"

    @model_validator(mode="after")
    def _cuts_ascend(self) -> Self:
        if isinstance(self.cuts, tuple):
            if len(self.cuts) != self.bins - 1:
                raise ValueError(f"cuts: {self.bins} bins need {self.bins - 1} cut points, not {len(self.cuts)}")
            if any(a >= b for a, b in itertools.pairwise(self.cuts)):
                raise ValueError(f"cuts: {list(self.cuts)} do not increase")
        return self


class Cell(_Data):
    """Name the customers whose scores lie in the given sets, and their level."""

    name_zh: str
    name_en: str
    level: str
    r: tuple[int, ...]
    f: tuple[int, ...]
    m: tuple[int, ...]


class RfmScheme(_Scheme):
    """Score recency, frequency and money, and map every combination of scores to one named cell."""

    kind: Literal["rfm"]
    r: Score
    f: Score
    m: Score
    cells: tuple[Cell, ...]

    @model_validator(mode="after")
    def _cells_partition_the_scores(self) -> Self:
        for cell in self.cells:
            if cell.level not in self.bought_levels:
                raise ValueError(
                    f"cells: {cell.name_en!r} goes to {cell.level!r}, which is not a level of customers who bought"
                )
        spans = [range(1, score.bins + 1) for score in (self.r, self.f, self.m)]
        for cell in self.cells:
            for axis, given, span in zip("RFM", (cell.r, cell.f, cell.m), spans, strict=True):
                unknown = [s for s in given if s not in span]
                if unknown:
                    raise ValueError(
                        f"cells: {cell.name_en!r} has {axis}{unknown[0]}, but scores go from 1 to {len(span)}"
                    )
        for combination in itertools.product(*spans):
            found = [
                cell.name_en
                for cell in self.cells
                if all(s in c for s, c in zip(combination, (cell.r, cell.f, cell.m), strict=True))
            ]
            if len(found) != 1:
                where = "R{} F{} M{}".format(*combination)
                what = "no cell" if not found else f"{len(found)} cells ({', '.join(found)})"
                raise ValueError(f"cells: {where} belongs to {what}; each combination needs exactly one")
        return self


class LearnedScheme(_Scheme):
    """Learn levels from the value that followed, or discover clusters; a tree of few leaves gives the rules."""

    kind: Literal["learned"]
    target: Literal["future_value", "clusters"] = "future_value"
    shares: dict[str, Share] | None = None
    max_leaves: Annotated[int, Field(ge=2, le=64)] = 12
    min_leaf_share: Annotated[float, Field(gt=0, le=0.5)] = 0.02

    @model_validator(mode="after")
    def _target_and_shares_fit(self) -> Self:
        if self.target == "future_value":
            if self.shares is None:
                raise ValueError("shares: target future_value needs a share for every level")
            _check_shares(self.shares, self)
        elif self.shares is not None:
            raise ValueError("shares: clusters find their own sizes; leave shares out")
        if self.max_leaves < len(self.bought_levels):
            raise ValueError(f"max_leaves: {self.max_leaves} leaves cannot make {len(self.bought_levels)} levels")
        return self


Scheme = Annotated[ShareScheme | RfmScheme | LearnedScheme, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[ShareScheme | RfmScheme | LearnedScheme] = TypeAdapter(Scheme)


def _preset_folder() -> Path:
    packed = Path(str(resources.files("tiermodel"))) / "_data" / "schemes"
    return packed if packed.is_dir() else Path(__file__).resolve().parents[3] / "configs" / "schemes"


def preset_names() -> list[str]:
    """List the schemes that come with the package."""
    return sorted(path.stem for path in _preset_folder().glob("*.yaml"))


def load_scheme(project: Project) -> ShareScheme | RfmScheme | LearnedScheme:
    """Read the project's scheme: a preset's name, the path of a scheme file, or the scheme itself.

    `{longest}` and `{shortest}` in a feature's name become the project's window lengths. Raises `ProjectError` naming
    the file and the key, cell or level at fault.
    """
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


def load_preset(name: str, windows_days: Iterable[int]) -> ShareScheme | RfmScheme | LearnedScheme:
    """Read a scheme that comes with the package, for the given window lengths."""
    return _read_scheme(_preset_folder() / f"{name}.yaml", windows_days)


def _read_scheme(path: Path, windows_days: Iterable[int]) -> ShareScheme | RfmScheme | LearnedScheme:
    source = YamlSource(path)
    read = source.read()
    source.refuse_problems()
    return parse_scheme(read, str(path), windows_days)


def parse_scheme(data: Any, where: str, windows_days: Iterable[int]) -> ShareScheme | RfmScheme | LearnedScheme:
    """Check a scheme given as data; `where` is what errors call it."""
    windows = tuple(windows_days)
    try:
        return _ADAPTER.validate_python(_fill(data, {"longest": max(windows), "shortest": min(windows)}))
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, e['loc'][1:])) or 'scheme'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        ]
        raise ProjectError(f"{where}: " + "; ".join(lines)) from None


def _fill(data: Any, windows: Mapping[str, int]) -> Any:
    if isinstance(data, Mapping):
        return {key: _fill(value, windows) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_fill(value, windows) for value in data]
    if isinstance(data, str):
        for name, days in windows.items():
            data = data.replace(f"{{{name}}}", str(days))
    return data
