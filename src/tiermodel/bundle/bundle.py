"""The bundle: everything that a score depends on, in one folder of hashed JSON and LightGBM text files.

Loading a bundle runs no foreign code. The hash of every file is checked before any parser sees a byte, then the
structure of every file before a model is built from it (`proof`), because LightGBM's text parser crashes on damaged
ones. Last, made-up customers are scored: they must get the scores that they got when the bundle was made (`golden`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiermodel import disk
from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.bundle.files import CARD, FORMAT, GOLDEN, JSON, MANIFEST, digest, read_files
from tiermodel.bundle.golden import golden_data, refuse_other_scores
from tiermodel.bundle.model_card import model_card
from tiermodel.bundle.proof import PROSPECTS, checked_data, tier_file
from tiermodel.config.project import Features
from tiermodel.config.targets import Churn, Outcome, Value
from tiermodel.errors import ModelError, ProjectError
from tiermodel.evaluation.profit import Campaign
from tiermodel.features.catalogue import expand
from tiermodel.features.formula import Feature
from tiermodel.features.frame import with_columns
from tiermodel.features.outcome import ChurnLabel, ValueLabel, at_risk
from tiermodel.models.btyd.clv import lifetime_value
from tiermodel.models.calibrated_ensemble import CalibratedEnsemble
from tiermodel.models.calibration.level import LevelForecast
from tiermodel.models.churn import ChurnModel
from tiermodel.models.design_matrix import DesignMatrix
from tiermodel.models.future_tier import TierModel
from tiermodel.models.learners.boosting import Boosted
from tiermodel.models.learners.linear import Linear
from tiermodel.models.potential import PeerGroups
from tiermodel.models.upgrade import p_upgrade
from tiermodel.models.value import ValueModel
from tiermodel.models.value_spread import Spread
from tiermodel.output import atomic_folder, check_writable, to_jsonable
from tiermodel.tiers.customer_scores import EXPECTED_GROWTH
from tiermodel.tiers.fitted_features import FittedFeatures
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.words import in_language, notebook_table, words

__all__ = ["Bundle", "bundle_of", "check_bundle_folder", "load_bundle", "save_bundle"]


@dataclass(frozen=True)
class Bundle:
    """A fitted model: the scheme, the models of every target, and all that scoring needs beside them.

    `settings` are the sections of the project that scoring and the model card read. `columns` are the mapped columns
    that the features are built from. `facts` are the origin of the model and its metrics on later snapshots.
    `typical_rhythm` is in days. `upgrade` is the share of those who rise who stay. `prospects` is
    None where too few prospects made a first purchase to fit a model. `scores` are the customer scores (None in bundles
    of earlier versions).
    """

    name: str
    settings: dict[str, Any]
    columns: tuple[str, ...]
    inputs: DesignMatrix
    scheme: FittedScheme
    churn: ChurnModel
    value: ValueModel
    tier: TierModel
    segments: dict[str, Any]
    peers: PeerGroups
    typical_rhythm: float
    facts: dict[str, Any]
    upgrade: float = 1.0
    prospects: CalibratedEnsemble | None = None
    scores: FittedFeatures | None = None

    @property
    def language(self) -> str:
        """The language of names and reasons, `zh` or `en`."""
        return str(self.settings["language"])

    def at_risk(self, frame: pd.DataFrame) -> Flags:
        """Return which rows of a snapshot are at risk of churn, by the definition of churn that the model learned."""
        return at_risk(ChurnLabel.of(self._churn_settings, self._outcome_settings), frame)

    def lifetime_value(self, buyers: pd.DataFrame, value: Floats) -> Floats:
        """Return buyers' lifetime value as `value.clv` defines it, given their expected value in the outcome window."""
        clv, model = self.value_settings.clv, self.inputs.forecaster.purchases
        window = ValueLabel.of(self.value_settings, self._churn_settings, self._outcome_settings).window
        return lifetime_value(model, clv.horizon_days, clv.annual_rate, window, buyers, value)

    def with_expected_growth(self, frame: pd.DataFrame, value: Floats) -> pd.DataFrame:
        """Return snapshot rows with the expected value less that of an equal time before, in currency units.

        The time before is the longest window, or the time since the first purchase where that is shorter. Without a
        feature of the measure of value the rows stay as they are.
        """
        window = ValueLabel.of(self.value_settings, self._churn_settings, self._outcome_settings).window
        longest = max(Features.model_validate(self.settings["features"]).windows_days)
        measure = f"{'margin' if self.value_settings.measure == 'margin' else 'net_amount'}_{longest}d"
        if measure not in frame:
            return frame
        horizon = window.last - window.first
        known = frame["days_since_first"].to_numpy(dtype=np.float64).clip(horizon, max(longest, horizon))
        before = frame[measure].to_numpy(dtype=np.float64) * horizon / known
        return with_columns(frame, {EXPECTED_GROWTH: value - before})

    @property
    def campaign(self) -> Campaign | None:
        """The campaign that keeps customers; None where the project states no costs."""
        costs = self._churn_settings.campaign
        return None if costs is None else Campaign.of(costs)

    def p_upgrade(self, forecast: Floats, tier: Ints) -> Floats:
        """Return P(rises above `tier` and stays), given the forecast of the future tier, shape (rows, levels)."""
        return p_upgrade(forecast, tier, self.upgrade)

    def p_conversion(self, frame: pd.DataFrame) -> Floats:
        """Return P(first purchase in the outcome window), for rows of prospects; NaN without a conversion model."""
        if self.prospects is None or not len(frame):
            return np.full(len(frame), np.nan)
        return self.prospects.predict(frame[list(self.prospects.names)].to_numpy(dtype=np.float64))

    @property
    def value_settings(self) -> Value:
        """The definitions of value and lifetime value."""
        return Value.model_validate(self.settings["value"])

    @property
    def _churn_settings(self) -> Churn:
        return Churn.model_validate(self.settings["churn"])

    @property
    def _outcome_settings(self) -> Outcome:
        return Outcome.model_validate(self.settings["outcome"])

    @cached_property
    def features(self) -> dict[str, Feature]:
        """The catalogue entries of the features, by name."""
        features = Features.model_validate(self.settings["features"])
        return {f.name: f for f in expand(features, self.columns)}

    @cached_property
    def scheme_version(self) -> str:
        """The code of the scheme and a short hash of the fitted scheme."""
        return f"{self.scheme.scheme.code}-{digest(_dump(self.scheme.to_dict(), sort_keys=True))[:8]}"

    @cached_property
    def version(self) -> str:
        """The name and a short hash of the whole bundle; of one that was read, that of its files.

        It is equal for the same data, project and seed on one kind of processor; on another one, fits differ in their
        last digits.
        """
        return f"{self.name}-{digest(self._files[MANIFEST])[:12]}"

    def __repr__(self) -> str:
        """Return one line: the fields hold the model, a megabyte of text."""
        facts = self.facts
        return f"<Bundle {self.version}: {self.scheme_version}, as of {facts['as_of']}, {facts['customers']} customers>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: date, customers, scheme with its levels, and the number of inputs."""
        say, scheme = words(self.language), self.scheme.scheme
        rows = [
            (say["shown_as_of"], self.facts["as_of"]),
            (say["customers"], self.facts["customers"]),
            (say["scheme"], in_language(self.language, scheme.name_zh, scheme.name_en)),
            (say["shown_levels"], ", ".join(scheme.names(self.language))),
            (say["shown_inputs"], len(self.inputs.names)),
        ]
        return notebook_table(self.language, say["shown_bundle"].format(version=self.version), rows)

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        """The content of the folder, by name; of a bundle that was read, as it was: a card is never written anew."""
        texts = {"churn.txt": self.churn.boosted.text, "value.txt": self.value.boosted.text}
        if (chance := self.prospects) is not None:
            texts[PROSPECTS] = chance.boosted.text
        texts |= {tier_file(k): b.text for k, b in enumerate(self.tier.boosted) if b is not None}
        scheme, trees = self.scheme.to_files()
        texts |= trees
        data = {
            "format": FORMAT,
            "name": self.name,
            "settings": self.settings,
            "columns": self.columns,
            "features": self.inputs.names,
            "inputs": self.inputs.to_dict(),
            "scheme": scheme,
            "churn": {
                "linear": self.churn.linear.to_dict(),
                "compact": self.churn.compact.to_dict(),
                "blend": self.churn.blend,
                "level": self.churn.level,
            },
            "value": {
                "linear": self.value.linear.to_dict(),
                "chance": self.value.chance.to_dict(),
                "least_amount": self.value.least_amount,
                "factors": self.value.factors,
                "spread": self.value.spread.to_dict(),
                "level": self.value.level,
                **_beyond(self.value),
            },
            "tier": {"share_above": self.tier.share_above, "mass": self.tier.mass},
            "segments": self.segments,
            "peers": vars(self.peers),
            "typical_rhythm": self.typical_rhythm,
            "upgrade": self.upgrade,
            "facts": self.facts,
        }
        if self.scores is not None:
            data["scores"] = self.scores.to_dict()
        if self.prospects is not None:
            chance = self.prospects
            data["prospects"] = {
                "names": chance.names,
                "linear": chance.linear.to_dict(),
                "calibration": chance.calibration,
            }
        files = {name: text.encode() for name, text in texts.items()}
        card = model_card(self.name, self.settings, self.facts, self.features, self.scheme, self.segments)
        files |= {JSON: _dump(data), GOLDEN: _dump(golden_data(self), indent=None), CARD: card.encode()}
        manifest = {"format": FORMAT, "files": {name: digest(files[name]) for name in sorted(files)}}
        return {**files, MANIFEST: _dump(manifest)}


def save_bundle(bundle: Bundle, folder: str | Path) -> Path:
    """Write a bundle to a folder, whole or not at all.

    Parameters
    ----------
    bundle : Bundle
        The model, such as `train(project).bundle`.
    folder : str or Path
        A folder that does not exist, is empty, or holds an earlier bundle, which is replaced.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ProjectError
        Where the folder holds anything but a bundle; it is left as it is.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> bundle = ...  # train(project).bundle
    >>> with TemporaryDirectory() as folder:
    ...     _ = Path(folder, "notes.txt").write_text("not of a bundle")
    ...     save_bundle(bundle, folder)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.ProjectError: ... holds something that is no bundle, and it would be replaced: give another folder

    """
    target = Path(folder)
    _refuse_others(target)
    bundle = _require_bundle(bundle)
    with atomic_folder(target) as temporary:
        for name, content in bundle._files.items():  # noqa: SLF001
            disk.write_bytes(temporary / name, content)
    return target


def check_bundle_folder(folder: str | Path) -> None:
    """Raise, before a fit, what `save_bundle` would raise after it: ProjectError or OutputError."""
    _refuse_others(Path(folder))
    check_writable(Path(folder))


def _refuse_others(target: Path) -> None:
    if target.exists() and not _is_ours(target):
        raise ProjectError(f"{target} holds something that is no bundle, and it would be replaced: give another folder")


def _is_ours(folder: Path) -> bool:
    """Whether a folder is empty, or holds exactly a manifest and the files that it lists."""
    if not folder.is_dir():
        return False
    present = {path.name for path in folder.iterdir()}
    try:
        return not present or present == {*json.loads((folder / MANIFEST).read_bytes())["files"], MANIFEST}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle from its folder, after checking the hash and structure of every file, and that it scores as it did.

    Parameters
    ----------
    folder : str or Path
        The folder that `save_bundle` or `tiermodel train --out` wrote.

    Returns
    -------
    Bundle
        The model, ready for `score`.

    Raises
    ------
    ModelError
        Where the folder is no bundle or one of another format, a file is missing, extra, changed or not of the
        structure of a bundle, or the scores are other ones than when it was made: the message names file, key and
        value.

    Examples
    --------
    >>> load_bundle("models/shop")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.ModelError: models/shop: there is no manifest.json, so this is no bundle; give a folder that ...

    """
    path = Path(folder)
    files = read_files(path)
    data = checked_data(path, files)
    try:
        bundle = _read(data, files)
    except (KeyError, TypeError, ValueError, ProjectError) as error:
        raise ModelError(
            f"{folder}: {JSON} does not have the shape of format {FORMAT}: {error!r}; train it again"
        ) from error
    refuse_other_scores(bundle, path, (path / GOLDEN, files[GOLDEN]) if GOLDEN in files else None)
    vars(bundle)["_files"] = files  # else another release, with other words on the card, would change the version
    return bundle


def bundle_of(model: Bundle | str | Path) -> Bundle:
    """Return a bundle, or that of a folder; `TypeError`, with what to write instead, for anything else."""
    return load_bundle(model) if isinstance(model, str | Path) else _require_bundle(model, ", or the folder of one")


def _require_bundle(model: object, or_what: str = "") -> Bundle:
    if isinstance(model, Bundle):
        return model
    own = "; it has one: pass its .bundle" if isinstance(getattr(model, "bundle", None), Bundle) else ""
    raise TypeError(f"model: expected a bundle{or_what}, got {type(model).__name__}{own}")


def _read(data: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
    inputs = DesignMatrix.from_dict(tuple(data["features"]), data["inputs"])
    names = tuple(inputs.all_names)

    def trees(file: str) -> Boosted:
        return Boosted(names, files[file].decode())

    churn, tier = dict(data["churn"]), data["tier"]
    shares = tuple(tier["share_above"])
    boosted = tuple(trees(tier_file(k)) if tier_file(k) in files else None for k in range(len(shares)))
    logistic, compact = Linear(**churn["linear"]), Linear(**churn["compact"])
    return Bundle(
        name=data["name"],
        settings=data["settings"],
        columns=tuple(data["columns"]),
        inputs=inputs,
        scheme=FittedScheme.from_files(data["scheme"], files),
        churn=ChurnModel(
            names, logistic, compact, trees("churn.txt"), tuple(churn["blend"]), LevelForecast(*churn["level"])
        ),
        value=_value(data["value"], names, trees("value.txt")),
        tier=TierModel(names, boosted, shares, tuple(tier["mass"])),
        segments=data["segments"],
        peers=PeerGroups(**data["peers"]),
        typical_rhythm=data["typical_rhythm"],
        facts=data["facts"],
        upgrade=float(data["upgrade"]),
        prospects=_prospects(data.get("prospects"), files),
        scores=FittedFeatures.from_dict(data["scores"]) if "scores" in data else None,
    )


def _value(data: Mapping[str, Any], names: tuple[str, ...], boosted: Boosted) -> ValueModel:
    linear, chance, spread = Linear(**data["linear"]), Linear(**data["chance"]), Spread.from_dict(data["spread"])
    factors, level = tuple(data["factors"]), LevelForecast(*data["level"])
    beyond = data.get("largest", np.inf), data.get("alone", 1.0)
    return ValueModel(names, linear, boosted, chance, data["least_amount"], factors, spread, level, *beyond)


def _beyond(value: ValueModel) -> dict[str, float]:
    """Return the two numbers of customers who outweigh the others; none where there were no such customers."""
    return {"largest": value.largest, "alone": value.alone} if np.isfinite(value.largest) else {}


def _prospects(data: Mapping[str, Any] | None, files: Mapping[str, bytes]) -> CalibratedEnsemble | None:
    """Return the conversion model; None where the bundle has none."""
    if data is None:
        return None
    names = tuple(data["names"])
    trees = Boosted(names, files[PROSPECTS].decode())
    return CalibratedEnsemble(names, Linear(**data["linear"]), trees, tuple(data["calibration"]))


def _dump(data: Any, *, sort_keys: bool = False, indent: int | None = 1) -> bytes:
    """Return JSON; NaN and infinity become null. Keys keep their order, which is that of axes and rules of a scheme."""
    text = json.dumps(to_jsonable(data), ensure_ascii=False, sort_keys=sort_keys, indent=indent, allow_nan=False)
    return f"{text}\n".encode()
