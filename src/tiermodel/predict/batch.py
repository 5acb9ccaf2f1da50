"""Scoring of a project's customers with a bundle, batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple, overload

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetWriter

from tiermodel.bundle.bundle import Bundle, bundle_of
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.errors import EmptyInputError, ProjectError
from tiermodel.features.dates import one_date, stale_words
from tiermodel.features.export import write_nothing, write_rows
from tiermodel.features.panel import Snapshots, Tally, snapshot_batches
from tiermodel.ledger.calendar import before_scoring, next_grading
from tiermodel.ledger.files import Levels, journal_of
from tiermodel.ledger.ledger import writing
from tiermodel.ledger.rows import MOVES, SCHEMA, Added, from_batch
from tiermodel.ledger.tombstones import read_tombstones
from tiermodel.output import staged
from tiermodel.policy.service_columns import service_columns
from tiermodel.predict.capacity import has_capacity, keep_capacity
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.predict.manual import floor_of, manual_decisions, with_manual
from tiermodel.predict.scoring import Scoring
from tiermodel.predict.shadow import Shadow
from tiermodel.predict.table import score_schema
from tiermodel.tables.contract import Accounting
from tiermodel.tables.frames import in_memory
from tiermodel.tables.source import scratch_folder
from tiermodel.tiers.capacity import LevelPlaces
from tiermodel.words import notebook_table, words

__all__ = ["Scored", "past_words", "score"]


@dataclass(frozen=True)
class Scored:
    """Result of a scoring run.

    `accounts` has the accounts of the tables read, `customers` the number of rows written, `tiers` the customers by
    tier code, `added` what the ledger got (None: no ledger was given), and `day` the date scored (None: no row).
    `capacity` has, for each level with a capacity, the highest first, its `places`, how many `asked` for one, how many
    of them were `fixed` (set there by hand, or kept between two gradings), how many found `no_place`, and the priority
    of the last one in (`cut`). `shadow` has the summary of the comparison with a shadow (None: none was given).
    """

    accounts: dict[str, Accounting]
    customers: int
    tiers: dict[str, int]
    added: Added | None = None
    day: date | None = None
    capacity: tuple[dict[str, Any], ...] = ()
    shadow: dict[str, Any] | None = None
    language: str = "en"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the customers by tier, and the warnings of the transactions."""
        say = words(self.language)
        rows: list[tuple[str, object]] = [(say["customers"], self.customers), *self.tiers.items()]
        rows += [(say["shown_warning"], text) for text in self.accounts["transactions"].warnings]
        return notebook_table(self.language, say["shown_scored"].format(day=self.day), rows)

    @property
    def trained_later(self) -> bool:
        """Whether the model was trained on what followed the date of the scores."""
        return any(told.startswith("TM4001") for told in self.accounts["transactions"].warnings)


@overload
def score(
    project: Project, model: Bundle | str | Path, as_of: date | str, out: None = None, *, history: Rows = None,
    allow_empty: bool = False, ledger: str | Path | None = None, regrade_reason: str | None = None,
    shadow: Bundle | str | Path | None = None,
) -> pd.DataFrame: ...  # fmt: skip


@overload
def score(
    project: Project, model: Bundle | str | Path, as_of: date | str, out: str | Path, *, history: Rows = None,
    allow_empty: bool = False, ledger: str | Path | None = None, regrade_reason: str | None = None,
    shadow: Bundle | str | Path | None = None,
) -> Scored: ...  # fmt: skip


def score(  # noqa: PLR0913  the options of the verb
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    out: str | Path | None = None,
    *,
    history: Rows = None,
    allow_empty: bool = False,
    ledger: str | Path | None = None,
    regrade_reason: str | None = None,
    shadow: Bundle | str | Path | None = None,
) -> Scored | pd.DataFrame:
    """Score the customers known at a date: return the score table, or write it and return the accounts of the run.

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
        `NAME.quarantine.csv` beside it. Without it the table is returned.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.
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
    shadow
        A second bundle, or the folder of one, that scores the same customers: its scores go to `NAME.shadow.parquet`
        (or .csv) beside `out`, customers whose tier or figures would change most to `NAME.shadow_changes.parquet`, and
        the summary to `NAME.shadow.json`; all files are put in place together. `out` and the ledger are as without it.

    Returns
    -------
    Scored or pandas.DataFrame
        The accounts of the tables, the customers by tier code, and the rows added to the ledger. Without `out`, the
        score table, with the warnings of the accounts in `attrs["warnings"]`.

    Raises
    ------
    ModelError
        If the bundle cannot be read, needs a column that the project does not map, or was trained with another time
        zone, currency or measure of value; if the shadow is of another project, or answers another question.
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
    require_project(project)
    _refuse_reason(ledger, regrade_reason)
    options = _Options(as_of, history, allow_empty, ledger, regrade_reason, shadow)
    bundle = bundle_of(model)
    if out is not None:
        return _write_scores(project, bundle, Path(out), options)
    if shadow is not None:
        raise ProjectError("a shadow is compared in files beside the scores: name a file, such as scores.parquet")
    return in_memory(lambda path: _write_scores(project, bundle, path, options))


class _Options(NamedTuple):
    """The options of `score`, under their names."""

    as_of: date | str
    history: Rows
    allow_empty: bool
    ledger: str | Path | None
    regrade_reason: str | None
    shadow: Bundle | str | Path | None


def _write_scores(project: Project, bundle: Bundle, out: Path, options: _Options) -> Scored:
    """Write the score table of a date, and return the accounts of the run."""
    as_of, rows, allow_empty, ledger, regrade_reason, shadow = options
    service = service_columns(project, bundle.scheme.scheme.codes)
    written = with_manual(project, score_schema(bundle) if service is None else service.schema(score_schema(bundle)))
    try:
        history = history_of(project, rows)
    except EmptyInputError:
        if not allow_empty or shadow is not None:
            raise
        nobody = write_nothing(written, out, project.language)
        return Scored(nobody.accounts, 0, dict.fromkeys(bundle.scheme.scheme.codes, 0), language=bundle.language)
    scored_project = with_bundle_features(project, bundle, history)
    beside = None if shadow is None else Shadow.of(project, bundle, shadow, history)
    day = one_date(as_of, history)
    every = timedelta(bundle.settings["panel"]["every_days"])
    stale = stale_words(history, day, every.days, project.data.max_stale_days, project.language)
    earlier = tuple(day - every * k for k in reversed(range(1, bundle.scheme.memory(every.days) + 1)))
    snapshots = Snapshots(scored_project, frozenset(bundle.columns), (*earlier, day))
    tally, counts, filled = Tally(), dict.fromkeys(bundle.scheme.scheme.codes, 0), list[LevelPlaces]()
    with ExitStack() as locks:
        book = None if ledger is None else locks.enter_context(writing(ledger))
        dates, asked = project.tiers.grade, regrade_reason is not None
        before = None if book is None else before_scoring(book, day, dates, regrade=asked)
        kept = scratch_folder(history.connection) / "graded.parquet"
        graded = None if before is None or not before.grades else locks.enter_context(ParquetWriter(kept, SCHEMA))
        scoring, erased = Scoring(bundle, day, before), None if book is None else read_tombstones(book.folder)
        work = scoring if beside is None else beside.joins(scoring, snapshots, before)
        batches = snapshot_batches(history, snapshots, tally, work)
        batches = batches if erased is None else erased.left_out(batches)
        batches = batches if beside is None else beside.set_aside(batches, scratch_folder(history.connection))
        if has_capacity(bundle):
            scratch = scratch_folder(history.connection)
            batches = keep_capacity(bundle, batches, scratch, filled, ledger=book is not None)
        added = None
        scored = _scored(batches, score_schema(bundle).names, counts, graded)
        scored = scored if service is None else service.added(scored)
        manual = manual_decisions(project, history, floor_of(bundle, service), bundle.language, before)
        scored = scored if manual is None else manual.added(scored)
        scored = scored if beside is None else beside.noting(scored)
        with staged(None if book is None else journal_of(book.folder)) as files:
            write_rows(scored, written, out, history, tally, before=day, into=files)
            differs = None if beside is None else beside.write(out, history, erased, files)
            if book is not None and graded is not None:
                graded.close()
                added = book.append(
                    day, kept, regrade_reason=regrade_reason, levels=_level_names(project, bundle), into=files
                )
            elif book is not None and book.last_graded is not None:
                added = Added(0, dict.fromkeys(MOVES, 0), next_grading=next_grading(dates, book.last_graded))
    tally.warn(stale)
    tally.warn(past_words(bundle, day, project.language))
    tally.warn("" if manual is None else manual.account(project.language))
    places = tuple(level.to_dict(bundle.scheme.scheme.codes) for level in filled)
    return Scored(tally.accounts, sum(counts.values()), counts, added, day, places, differs, bundle.language)


def _refuse_reason(ledger: str | Path | None, reason: str | None) -> None:
    """Raise `ProjectError` for a reason without words, or without a ledger that could keep it."""
    if reason is not None and not reason.strip():
        raise ProjectError("a grading that corrects the ledger needs a reason; give one: --regrade --reason TEXT")
    if reason is not None and ledger is None:
        raise ProjectError("only a ledger can be graded again; name its folder: --ledger DIR --regrade --reason TEXT")


def _level_names(project: Project, bundle: Bundle) -> Levels:
    """Return the project's language and the names of the bundle's levels, for the ledger."""
    levels = bundle.scheme.scheme.levels
    return Levels(project.language, tuple((level.code, level.name_zh, level.name_en) for level in levels))


def past_words(bundle: Bundle, day: date, language: str) -> str:
    """Return a warning where the bundle learned from days on or after the date that it scores, else nothing."""
    learned = date.fromisoformat(str(bundle.facts["as_of"]))
    if day >= learned:
        return ""
    return words(language)["note_past"].format(model=bundle.version, learned=learned, day=day)


def _scored(
    batches: Iterable[pa.RecordBatch], names: list[str], counts: dict[str, int], graded: ParquetWriter | None
) -> Iterator[pa.RecordBatch]:
    """Yield the score columns of batches; add the customers to `counts` by tier, write the ledger rows to `graded`."""
    for batch in batches:
        for found in pc.value_counts(batch.column("tier_code")).to_pylist():
            counts[found["values"]] += found["counts"]
        if graded is not None:
            graded.write_batch(from_batch(batch))
        yield batch.select(names)
