"""Promotion: the gate's verdict on a registered version, the champion's alias, and the way back.

MLflow sets an alias without looking at what it was, so the champion is compared and swapped under a lock of ours: that
of the database on SQLite, one on this machine for other stores. MLflow has no swap that two machines could share.
"""

from __future__ import annotations

import getpass
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from tiermodel.errors import GateError, ModelError
from tiermodel.locks import database_lock, database_of
from tiermodel.tracking.checks import Situation
from tiermodel.tracking.connection import opened_store
from tiermodel.tracking.descriptions import GATE, described, gate_tag
from tiermodel.tracking.gate import judge, judge_segments
from tiermodel.tracking.registry import (
    CHALLENGER,
    CHAMPION,
    aliases_of,
    bundle_of,
    champion_version,
    changes_of,
    evaluation_of,
    find_version,
    log_verdict,
    origin_of,
    reference_parts,
)
from tiermodel.tracking.verdict import Acceptance, Promotion, Verdict

__all__ = ["PREVIOUS", "gate", "promote", "promotion_record", "rollback"]


PREVIOUS = "previous"
"""The alias of the champion before the present one."""
NO_CHAMPION = "none"
"""What `expect` says where no champion is expected."""
_HISTORY, _RECORD, _ROLLED_BACK = "champions", "gate", "rolled_back"
_MOST_KEPT = 500
_DEFAULT_STORE = "sqlite:///mlflow.db"


def gate(
    name: str, challenger: str | None = None, *, tracking_uri: str, acceptance: Acceptance | None = None
) -> Verdict:
    """Return the gate's verdict on a registered version, without promoting it.

    Parameters
    ----------
    name : str
        The registered model, which has the name of its project.
    challenger : str, optional
        The number of the version; by default the one with the alias `challenger`.
    tracking_uri : str
        The MLflow store, such as `sqlite:///mlflow.db`.
    acceptance : Acceptance, optional
        The advisory checks that a person accepts as failed.

    Raises
    ------
    GateError
        Where the models cannot be compared, or the version is the champion already.
    ModelError
        Where there is no such version.
    TrackingError
        Where the store does not answer.

    Examples
    --------
    >>> gate("shop", tracking_uri="sqlite:///no/mlflow.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.TrackingError: sqlite:///no/mlflow.db: there is no such database; train with --register first, ...

    """
    with opened_store(tracking_uri) as client:
        found = find_version(client, name, alias=None if challenger else CHALLENGER, version=challenger)
        return _judged(client, found, tracking_uri, acceptance)


def promote(
    name: str,
    challenger: str | None = None,
    *,
    tracking_uri: str,
    expect: str | None = None,
    acceptance: Acceptance | None = None,
) -> Promotion:
    """Make a registered version the champion if it passes the gate; the champion before it becomes `previous`.

    Parameters
    ----------
    name : str
        The registered model, which has the name of its project.
    challenger : str, optional
        The number of the version; by default the one with the alias `challenger`.
    tracking_uri : str
        The MLflow store, such as `sqlite:///mlflow.db`.
    expect : str, optional
        The version that must be the champion before, `none` for no champion: another one ends in a `GateError`.
    acceptance : Acceptance, optional
        The advisory checks that a person accepts as failed; kept with the version, in the store and on its card.

    Returns
    -------
    Promotion
        The new champion, the version before it, and the gate's verdict.

    Raises
    ------
    GateError
        Where a check fails and is not accepted (`verdict` has every check, the message what to do), the models cannot
        be compared, the version is the champion already, or another version than expected is.
    ModelError
        Where there is no such version.
    OutputBusyError
        Where another promotion takes minutes.
    TrackingError
        Where the store does not answer.

    Examples
    --------
    >>> promote("shop", tracking_uri="sqlite:///no/mlflow.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.TrackingError: sqlite:///no/mlflow.db: there is no such database; train with --register first, ...

    """
    with opened_store(tracking_uri) as client, _alone(tracking_uri, name):
        found = find_version(client, name, alias=None if challenger else CHALLENGER, version=challenger)
        _refuse_unexpected(client, name, expect)
        verdict = _judged(client, found, tracking_uri, acceptance)
        before = verdict.situation.champion
        _tag_verdict(client, found, verdict)
        if not verdict.passed:
            raise GateError(verdict.to_text(), verdict)
        if _champion(client, name) != before:
            raise GateError(f"{name}: the champion changed while the gate was at work; run it again")
        told = _keep_record(client, found, verdict)
        _put(client, name, [*_history(client, name, before), str(found.version)])
        client.update_registered_model(name, told)
        return Promotion(name, str(found.version), before, verdict)


def rollback(name: str, *, tracking_uri: str) -> Promotion:
    """Make the champion before the present one the champion again, without the gate; a second time, the one before it.

    Returns
    -------
    Promotion
        The champion now; `previous` is the version that was rolled back.

    Raises
    ------
    GateError
        Where there is no champion, or none before it.
    ModelError
        Where there is no such model, or no earlier champion can be read.
    OutputBusyError, TrackingError
        As for `promote`.

    Examples
    --------
    >>> rollback("shop", tracking_uri="sqlite:///no/mlflow.db")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    tiermodel.errors.TrackingError: sqlite:///no/mlflow.db: there is no such database; train with --register first, ...

    """
    with opened_store(tracking_uri) as client, _alone(tracking_uri, name):
        now = _champion(client, name)
        if now is None:
            raise GateError(f"{name}: there is no champion, so nothing to roll back; run `tiermodel promote {name}`")
        earlier = _history(client, name, now)[:-1]
        while earlier:
            try:
                bundle = bundle_of(client, find_version(client, name, alias=None, version=earlier[-1]))
                break
            except ModelError:  # deleted in MLflow, or damaged: the one before it
                earlier.pop()
        else:
            raise GateError(
                f"{name}: version {now} is the first champion that can still be read, so there is nothing to roll back "
                f"to; to put another version in place: tiermodel promote {name} --challenger VERSION"
            )
        _put(client, name, earlier)
        client.set_model_version_tag(name, now, _ROLLED_BACK, "true")
        client.update_registered_model(name, client.get_model_version(name, earlier[-1]).description or "")
        return Promotion(name, earlier[-1], now, language=bundle.language)


def promotion_record(reference: str, tracking_uri: str) -> dict[str, Any] | None:
    """Return the verdict with which `NAME@alias` or `NAME/version` became champion; None where it never did."""
    with opened_store(tracking_uri) as client:
        tags = find_version(client, **reference_parts(reference)).tags
    if _RECORD not in tags:
        return None
    return {**json.loads(tags[_RECORD]), "rolled_back": _ROLLED_BACK in tags}


@contextmanager
def _alone(tracking_uri: str, name: str) -> Iterator[None]:
    """Let no other promotion of this user run on this machine; on SQLite the database is locked already."""
    if database_of(tracking_uri) is not None:
        yield
        return
    which = hashlib.sha256(f"{tracking_uri}\n{name}".encode()).hexdigest()[:24]
    with database_lock(Path(tempfile.gettempdir(), f"tiermodel-{getpass.getuser()}-{which}")):
        yield


def _champion(client: Any, name: str) -> str | None:
    found = champion_version(client, name)
    return None if found is None else str(found.version)


def _refuse_unexpected(client: Any, name: str, expect: str | None) -> None:
    now = _champion(client, name)
    if expect is not None and (now or NO_CHAMPION) != expect:
        told = "there is no champion" if now is None else f"version {now} is the champion"
        raise GateError(
            f"{name}: {told}, not {expect} as expected: nothing was changed; look at it, then promote again"
        )


def _judged(client: Any, found: Any, tracking_uri: str, acceptance: Acceptance | None) -> Verdict:
    """Return the gate's verdict on a version; `GateError` where it is the champion already."""
    name, champion = found.name, champion_version(client, found.name)
    if champion is not None and champion.version == found.version:
        raise GateError(f"{name}: version {found.version} is the champion already")
    bundle, origin = bundle_of(client, found), origin_of(client, found)
    before = {} if champion is None else origin_of(client, champion)
    every = int(bundle.settings["panel"]["every_days"])
    situation = Situation(
        name=name,
        challenger=str(found.version),
        champion=None if champion is None else str(champion.version),
        refresh=_is_refresh(origin, before),
        rolled_back=_ROLLED_BACK in found.tags,
        aligned=_aligned(origin, before, every),
        waits=_waits(bundle.facts, origin, every),
        store=None if tracking_uri == _DEFAULT_STORE or "@" in tracking_uri else tracking_uri,  # no password is shown
        language=bundle.language,
    )
    theirs = None if champion is None else evaluation_of(client, champion)
    changes = changes_of(client, found)
    if changes is not None and changes.get("champion") != before.get("bundle"):
        changes = None  # another version was champion at the training
    checks = judge(evaluation_of(client, found), theirs, situation, changes)
    return Verdict(situation, (*checks, judge_segments(bundle.segments, situation)), acceptance)


def _is_refresh(origin: dict[str, str], before: dict[str, str]) -> bool:
    """Return whether a run has the design of the champion's and data that are not older."""
    same = "design" in origin and origin["design"] == before.get("design")
    return same and origin["as_of"] >= before["as_of"]


def _aligned(origin: dict[str, str], before: dict[str, str], every_days: int) -> str | None:
    """Return the latest date as of which a training would share snapshot dates with the champion; None if it does."""
    if not {"as_of"} <= set(origin) & set(before):
        return None
    first, last = (date.fromisoformat(tags["as_of"]) for tags in (before, origin))
    steps, rest = divmod((last - first).days, every_days)
    return str(first + timedelta(every_days * max(steps, 1))) if rest and steps >= 0 else None


def _waits(facts: dict[str, Any], origin: dict[str, str], every_days: int) -> str | None:
    """Return the day up to which the log must reach so that a snapshot lies an outcome window after the first."""
    if "label_delay_days" not in origin:
        return None
    delay = int(origin["label_delay_days"])
    return str(date.fromisoformat(facts["first_snapshot"]) + timedelta(2 * delay + every_days))


def _history(client: Any, name: str, champion: str | None) -> list[str]:
    """Return the versions that were champion, the present one last; what MLflow's aliases say counts.

    Registries of older versions have no more than the alias `previous`.
    """
    if champion is None:
        return []
    kept = [one for one in client.get_registered_model(name).tags.get(_HISTORY, "").split(",") if one]
    if champion in kept:  # a killed rollback may leave later ones behind it
        return kept[: len(kept) - kept[::-1].index(champion)]
    before = aliases_of(client, name).get(PREVIOUS)
    return [*(kept or [str(before)] if before is not None else kept), champion]


def _put(client: Any, name: str, history: Sequence[str]) -> None:
    """Set the champion and the alias of the one before it, and keep the history; `GateError` if another got ahead."""
    champion = history[-1]
    client.set_registered_model_alias(name, CHAMPION, champion)
    if len(history) > 1:
        client.set_registered_model_alias(name, PREVIOUS, history[-2])
    elif PREVIOUS in aliases_of(client, name):
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_tag(name, _HISTORY, ",".join(history[-_MOST_KEPT:]))
    if _champion(client, name) != champion:
        raise GateError(f"{name}: another promotion set the champion at the same moment; look at it, then run it again")


def _tag_verdict(client: Any, found: Any, verdict: Verdict) -> None:
    """Let a version and its run be found by the verdict, passed or not."""
    told = gate_tag(verdict)
    client.set_model_version_tag(found.name, str(found.version), GATE, told)
    if origin_of(client, found):
        client.set_tag(str(found.run_id), GATE, told)


def _keep_record(client: Any, found: Any, verdict: Verdict) -> str:
    """Keep the verdict with the version: tags, description, the model card of its run; return the description."""
    name, version, record = found.name, str(found.version), verdict.to_dict()
    client.set_model_version_tag(name, version, _RECORD, json.dumps(record, ensure_ascii=False))
    for check in verdict.accepted:
        told = json.dumps({"check": check, **record["accepted"]}, ensure_ascii=False)
        client.set_model_version_tag(name, version, f"accepted.{check}", told)
    if _ROLLED_BACK in found.tags:
        client.delete_model_version_tag(name, version, _ROLLED_BACK)
    section = "\n".join([verdict.situation.text("card"), "", *verdict.lines(), ""])
    description = described(bundle_of(client, found), name, ["", *verdict.lines()])
    client.update_model_version(name, version, description)
    log_verdict(client, found, description, section)
    return description
