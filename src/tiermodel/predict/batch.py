"""Scoring of a project's customers with a bundle, batch by batch, and the changes that move each customer up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import EmptyInputError, ModelError, ProjectError
from tiermodel.features.dates import one_date, stale_words
from tiermodel.features.export import write_nothing, write_rows
from tiermodel.features.panel import Snapshots, Tally, build_panel, snapshot_batches
from tiermodel.ledger.calendar import before_scoring, next_grading
from tiermodel.ledger.files import Levels, journal_of
from tiermodel.ledger.ledger import writing
from tiermodel.ledger.rows import MOVES, Added, Before, from_batch, graded_rows, position_in, with_ledger_columns
from tiermodel.ledger.tombstones import read_tombstones
from tiermodel.output import staged, write_table
from tiermodel.policy.service_columns import ServiceColumns, service_columns
from tiermodel.predict.capacity import has_capacity, keep_capacity, with_claims
from tiermodel.predict.manual import manual_decisions, with_manual
from tiermodel.predict.table import checked, predict, score_schema
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, project_key
from tiermodel.tables.source import refuse_outputs, scratch_folder
from tiermodel.tiers.capacity import LevelPlaces
from tiermodel.tiers.explain.next_tier import next_tier_actions
from tiermodel.tiers.stability.grading import grade

__all__ = ["Scored", "fitting_project", "score", "upgrades"]


@dataclass(frozen=True)
class Scored:
    """Result of a scoring run.

    `accounts` has the accounts of the tables read, `customers` the number of rows written, `tiers` the customers by
    tier code, `added` what the ledger got (None: no ledger was given), and `day` the date scored (None: no row).
    `capacity` has, for each level with a capacity, the highest first, its `places`, how many `asked` for one, how many
    of them were `fixed` (set there by hand, or kept between two gradings), how many found `no_place`, and the priority
    of the last one in (`cut`).
    """

    accounts: dict[str, Accounting]
    customers: int
    tiers: dict[str, int]
    added: Added | None = None
    day: date | None = None
    capacity: tuple[dict[str, Any], ...] = ()

    @property
    def trained_later(self) -> bool:
        """Whether the model was trained on what followed the date of the scores."""
        return any(words.startswith("TM4001") for words in self.accounts["transactions"].warnings)


def score(  # noqa: PLR0913  the options of the verb
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    out: str | Path,
    *,
    history: History | None = None,
    allow_empty: bool = False,
    ledger: str | Path | None = None,
    regrade_reason: str | None = None,
) -> Scored:
    """Write the score table of a date, one row for every customer known then, and return the accounts of the run.

    A customer is known from the first row before `as_of` on, whether that row is a purchase or not. The features are
    those that the bundle was trained with, whatever the project file says now.

    Where levels have a capacity, they are filled once all customers of the date are graded, by `tiers.capacity`: those
    who find no place get the tier below, with the full level as their first reason. This is the one step in which a
    customer's tier depends on the others. `model_tier`, `upgrades` and the rules as SQL speak of the tier before it;
    so does the previous tier where no ledger is given, since without one nobody knows who had a place. Between two
    gradings those who have a tier keep it, and only those who are new stand in line.

    Where the project names a service policy, `policy` has the benefits of the tier in it, in the project's language,
    and the columns `policy_id` and `policy_name` come last; without one the table is as it was before there were any.
    Where the project maps `no_automated_decision`, the column `manual_decision` follows: who asked for that has the
    service of the lowest level, and waits for a person, until a tier is set by hand.

    Parameters
    ----------
    project
        The project whose tables are scored.
    model
        A bundle, or the folder of one.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row.
    out
        The file to write, .parquet or .csv, with the columns of `score_schema`. Rows that break the contract go to
        `NAME.quarantine.csv` beside it.
    history
        The project's tables, opened before; without it the project's files are read.
    allow_empty
        Whether transactions without a row give a table without a row instead of an `EmptyInputError`.
    ledger
        The folder of a tier ledger. A stability rule starts from the tiers in it, and the grading is added to it
        (on the project's grading dates, `tiers.grade`; on other days customers keep the tier of the ledger, and those
        whom it does not know get that of a grading on this day, and enter it at the next one)
        together with the scores: both are new, or both as they were. Without a ledger the rule is replayed on the
        snapshots before `as_of`.
    regrade_reason
        Why a date is graded that the ledger has graded already, or that is before its last grading: the new grading
        takes the place of that of the date and of all later ones, which are then to be graded again, in order.

    Returns
    -------
    Scored
        The accounts of the tables, the customers by tier code, and the rows added to the ledger.

    Raises
    ------
    ModelError
        If the bundle cannot be read, needs a column that the project does not map, or was trained with another time
        zone, currency or measure of value.
    DataError
        If no customer is known at `as_of`, or the rows end more than `data.max_stale_days` before it.
    ProjectError
        If the service policy is wrong, or lacks a level of the scheme; if `as_of` is not one date; lies before the last
        grading of the ledger, or was graded with another result, and there is no `regrade_reason`; if a reason is given
        without a ledger, or is empty.
    OutputBusyError
        If another run writes to the same file or ledger at the moment.
    LedgerError
        If a file of the ledger is damaged.

    Examples
    --------
    >>> from tiermodel import Project, score
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> score(project, "no-bundle", "latest", "scores.parquet")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tiermodel.errors.ModelError: no-bundle: there is no manifest.json, so this is no bundle; ...

    """
    _refuse_reason(ledger, regrade_reason)
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    service = service_columns(project, bundle.scheme.scheme.codes)
    written = score_schema(bundle) if service is None else service.schema(score_schema(bundle))
    written = with_manual(project, written)
    try:
        history = open_history(project) if history is None else history
    except EmptyInputError:
        if not allow_empty:
            raise
        nobody = write_nothing(written, Path(out))
        return Scored(nobody.accounts, 0, dict.fromkeys(bundle.scheme.scheme.codes, 0))
    scored_project = fitting_project(project, bundle, history)
    day = one_date(as_of, history)
    every = timedelta(bundle.settings["panel"]["every_days"])
    earlier = tuple(day - every * k for k in reversed(range(1, bundle.scheme.memory(every.days) + 1)))
    snapshots = Snapshots(scored_project, frozenset(bundle.columns), (*earlier, day))
    stale = stale_words(history, day, every.days, project.data.max_stale_days)
    tally, counts, filled = Tally(), dict.fromkeys(bundle.scheme.scheme.codes, 0), list[LevelPlaces]()
    with nullcontext() if ledger is None else writing(ledger) as book:
        dates, asked = project.tiers.grade, regrade_reason is not None
        before = None if book is None else before_scoring(book, day, dates, regrade=asked)
        graded: list[pa.RecordBatch] = []
        batches = snapshot_batches(history, snapshots, tally, _Scoring(bundle, day, before))
        batches = batches if book is None else read_tombstones(book.folder).left_out(batches)
        if has_capacity(bundle):
            scratch = scratch_folder(history.connection)
            batches = keep_capacity(bundle, batches, scratch, filled, ledger=book is not None)
        added = None
        scored = _scored(batches, score_schema(bundle).names, counts, None if book is None else graded)
        scored = scored if service is None else service.added(scored)
        manual = manual_decisions(project, history, _floor(bundle, service), bundle.language, before)
        if manual is not None:
            scored = manual.added(scored)
        with staged(None if book is None else journal_of(book.folder)) as files:
            write_rows(scored, written, Path(out), history, tally, before=day, into=files)
            if book is not None and before is not None and before.grades:
                rows, levels = pa.Table.from_batches(graded), _level_names(project, bundle)
                added = book.append(day, rows, regrade_reason=regrade_reason, levels=levels, into=files)
            elif book is not None and book.last_graded is not None:
                added = Added(0, dict.fromkeys(MOVES, 0), next_grading=next_grading(dates, book.last_graded))
    tally.warn(stale)
    tally.warn(_past_words(bundle, day))
    tally.warn("" if manual is None else manual.account())
    places = tuple(level.to_dict(bundle.scheme.scheme.codes) for level in filled)
    return Scored(tally.accounts, sum(counts.values()), counts, added, day, places)


def _refuse_reason(ledger: str | Path | None, reason: str | None) -> None:
    """Raise `ProjectError` for a reason without words, or without a ledger that could keep it."""
    if reason is not None and not reason.strip():
        raise ProjectError("a grading that corrects the ledger needs a reason; give one: --regrade --reason TEXT")
    if reason is not None and ledger is None:
        raise ProjectError("only a ledger can be graded again; name its folder: --ledger DIR --regrade --reason TEXT")


def _floor(bundle: Bundle, service: ServiceColumns | None) -> dict[str, str]:
    """Return the service of the lowest level by column."""
    levels = bundle.scheme.scheme
    return {"policy": levels.policies(bundle.language)[0]} if service is None else service.of_level(levels.codes[0])


def _level_names(project: Project, bundle: Bundle) -> Levels:
    """Return the project's language and the names of the bundle's levels, for the ledger."""
    levels = bundle.scheme.scheme.levels
    return Levels(project.language, tuple((level.code, level.name_zh, level.name_en) for level in levels))


def _past_words(bundle: Bundle, day: date) -> str:
    """Return a warning where the bundle learned from days on or after the date that it scores, else nothing."""
    learned = date.fromisoformat(str(bundle.facts["as_of"]))
    if day >= learned:
        return ""
    return (
        f"TM4001 the model {bundle.version} was trained as of {learned} and so knows what followed {day}: its scores "
        "of that date look better than they are; to judge a model on the past, use `tiermodel backtest`"
    )


def _scored(
    batches: Iterable[pa.RecordBatch], names: list[str], counts: dict[str, int], graded: list[pa.RecordBatch] | None
) -> Iterator[pa.RecordBatch]:
    """Yield the score columns of batches; add the customers to `counts` by tier, and the ledger rows to `graded`."""
    for batch in batches:
        for found in pc.value_counts(batch.column("tier_code")).to_pylist():
            counts[found["values"]] += found["counts"]
        if graded is not None:
            graded.append(from_batch(batch))
        yield batch.select(names)


def fitting_project(project: Project, bundle: Bundle, history: History) -> Project:
    """Return the project with the bundle's features; `ModelError` where the project does not fit the bundle."""
    missing = sorted(set(bundle.columns) - history.columns)
    if missing:
        raise ModelError(
            f"the bundle {bundle.version} needs {', '.join(map(project_key, missing))}, which the project does not map"
        )
    _refuse_other_meaning(project, bundle)
    return Project.model_validate({**project.model_dump(exclude_none=True), "features": bundle.settings["features"]})


def upgrades(
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    out: str | Path,
    *,
    language: str | None = None,
    tally: Tally | None = None,
) -> tuple[int, int]:
    """Write, for each customer, the single changes that would lead to a higher tier, and return how many there are.

    The tier is that of the rules: before the stability rule, overrides and capacity.

    Parameters
    ----------
    project
        The project whose customers are looked at.
    model
        A bundle, or the folder of one.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`, the day after the last row.
    out
        The file to write, .parquet or .csv: a row has the customer, the tier now and then, the feature and its change.
    language
        `zh` or `en`, for the words of a change; by default the bundle's language.
    tally
        The counts to add to; at the end it has the account of every table.

    Returns
    -------
    tuple[int, int]
        The number of rows written, and of customers with at least one row.

    Raises
    ------
    ModelError, DataError
        As `score` does.
    ProjectError
        If `as_of` is not one date, or the scheme has no rules that state where the level changes.

    Examples
    --------
    >>> from tiermodel import Project, upgrades
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> upgrades(project, "no-bundle", "latest", "upgrades.csv")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    tiermodel.errors.ModelError: no-bundle: there is no manifest.json, so this is no bundle; ...

    """
    bundle = model if isinstance(model, Bundle) else load_bundle(model)
    history = open_history(project)
    refuse_outputs((table.source for table in history.tables.values()), Path(out))
    scored_project = fitting_project(project, bundle, history)
    snapshot = build_panel(scored_project, [one_date(as_of, history)], history=history, tally=tally)
    found = next_tier_actions(bundle.scheme, checked(bundle, snapshot), bundle.features, language or bundle.language)
    dates = pa.field("as_of", pa.date32())
    texts = {"customer_id", "tier_code", "reached_code", "feature", "words"}
    schema = pa.schema([
        dates if name == "as_of" else pa.field(name, pa.string() if name in texts else pa.float64()) for name in found
    ])  # fmt: skip
    write_table(pa.Table.from_pandas(found, schema=schema, preserve_index=False), Path(out))
    return len(found), int(found["customer_id"].nunique())


@dataclass(frozen=True)
class _Scoring:
    """Scoring of a snapshot batch as a callable that an engine can send to another process.

    Rows at `day` are scored; rows at earlier dates are replayed through the stability rule. `before` has the latest
    ledger row of each customer (None: no ledger); with it, the columns of the new ledger rows follow those of the
    scores.
    """

    bundle: Bundle
    day: date
    before: Before | None

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        frame = batch.to_pandas(date_as_object=False)
        now = frame["as_of"] == pd.Timestamp(self.day)
        today, past = frame[now].reset_index(drop=True), frame[~now].reset_index(drop=True)
        codes, position = self.bundle.scheme.scheme.codes, None
        if self.before is not None:
            position = position_in(self.before, today["customer_id"], codes)
        features = checked(self.bundle, today)
        grading = grade(self.bundle.scheme, features, past, position)
        table = predict(self.bundle, today, grading=grading)
        scored = pa.RecordBatch.from_pandas(table, schema=score_schema(self.bundle), preserve_index=False)
        if has_capacity(self.bundle):
            scored = with_claims(scored, self.bundle, features, grading)
        if self.before is None:
            return scored
        return with_ledger_columns(scored, graded_rows(table, grading, codes, self.before))


def _refuse_other_meaning(project: Project, bundle: Bundle) -> None:
    """Raise `ModelError` where time zone, currency or value differ from those of the training."""
    now = project.model_dump(mode="json")
    then = {**bundle.settings, "value": bundle.value_settings.model_dump(mode="json")}
    for key in ("timezone", "currency", "value"):
        if now[key] != then[key]:
            words = f"the bundle {bundle.version} was trained with {key}: {then[key]}, the project says {now[key]}"
            raise ModelError(f"{words}; train again, or correct the project")
