"""Make work lists from a score table: keep, win back, develop, review, and overrides that are about to expire."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle, bundle_of
from tiermodel.errors import ProjectError
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.listing import overrides_on
from tiermodel.locks import disk_faults, output_lock
from tiermodel.output import journal_beside, settle, staged
from tiermodel.policy.scores import Scores, open_scores
from tiermodel.tables.frames import as_file, frame_of_table
from tiermodel.words import notebook_table, words
from tiermodel.worklists.details import with_details
from tiermodel.worklists.feature_table import FeatureTable
from tiermodel.worklists.files import LOCKED, MOST_ROWS, files_of, write_list
from tiermodel.worklists.membership import LISTS, NUMBERS, TEXTS, date_of, rate

__all__ = ["EXPIRING_DAYS", "LIMIT", "ListCount", "WorkLists", "lists"]

LIMIT, EXPIRING_DAYS = 10_000, 30
_OVERRIDES = LISTS[0]


@dataclass(frozen=True)
class ListCount:
    """A list: the customers who belong to it, those who are listed, and what the listed are worth by its priority.

    `worth` is the sum of the amount that orders the list, in currency units; None for overrides.
    """

    list: str
    customers: int
    listed: int
    worth: float | None


@dataclass(frozen=True)
class WorkLists:
    """What was written: the date of the scores, the lists, and how many customers of the scores are on none.

    `refused` opted out or did not consent; they are on no list on which somebody contacts them. `without_reach` are
    customers to develop whom no single change lifts.
    """

    day: date
    lists: tuple[ListCount, ...]
    customers: int
    on_none: int
    refused: int
    without_reach: int
    language: str = "en"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the customers of each list, those listed, and their worth."""
        say = words(self.language)
        rows = [(one.list, one.customers, one.listed, one.worth) for one in self.lists]
        title = say["shown_lists"].format(day=self.day)
        return notebook_table(
            self.language, title, rows, ("", say["customers"], say["shown_listed"], say["shown_worth"])
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        counts = {name: value for name, value in vars(self).items() if name not in {"day", "lists", "language"}}
        return {"as_of": str(self.day), "lists": [asdict(found) for found in self.lists], **counts}


@overload
def lists(
    scores: pd.DataFrame | str | Path, model: Bundle | str | Path, features: pd.DataFrame | str | Path,
    out: None = None, *,
    ledger: str | Path | None = None, limit: int = LIMIT, expiring_days: int = EXPIRING_DAYS,
    language: str | None = None,
) -> dict[str, pd.DataFrame]: ...  # fmt: skip


@overload
def lists(
    scores: pd.DataFrame | str | Path, model: Bundle | str | Path, features: pd.DataFrame | str | Path,
    out: str | Path, *,
    ledger: str | Path | None = None, limit: int = LIMIT, expiring_days: int = EXPIRING_DAYS,
    language: str | None = None,
) -> WorkLists: ...  # fmt: skip


def lists(  # noqa: PLR0913  the options of the verb
    scores: pd.DataFrame | str | Path,
    model: Bundle | str | Path,
    features: pd.DataFrame | str | Path,
    out: str | Path | None = None,
    *,
    ledger: str | Path | None = None,
    limit: int = LIMIT,
    expiring_days: int = EXPIRING_DAYS,
    language: str | None = None,
) -> WorkLists | dict[str, pd.DataFrame]:
    """Make a work list for each kind of work that customers ask for: return them, or write CSV files and workbooks.

    Nobody is on two lists; the first of these counts. Amounts are lifetime value (`clv`).

    - `expiring_overrides`: a tier set by hand that ends within `expiring_days`; `also_due` names the list that comes
      next. Only with a ledger; by the day of the end.
    - `win_back`: lost customers, by `expected_worth`: the chance of a purchase in the window of churn, times the
      lifetime value that they would have had they bought on the date.
    - `keep`: customers whose churn risk reaches the threshold from which a contact pays (`churn.campaign`; without
      costs, of a medium or high risk), by `value_at_risk`: risk times lifetime value. Reasons are exact contributions
      to the risk.
    - `develop`: customers who may rise, by `expected_gain`: the chance to rise and stay, times what customers of the
      next higher tier are worth more on average; with the smallest single change that lifts the customer.
    - `review`: tiers in doubt, by `worth_in_doubt`: several possible tiers, a stand within the band of the stability
      rule, or a tier that the rules would change; ordered by P(another tier) times lifetime value.

    Parameters
    ----------
    scores
        A table that `tiermodel score` wrote, .parquet or .csv, or what `score` returned.
    model
        The bundle that made the scores, or its folder.
    features
        A table that `tiermodel features` wrote for the date of the scores, or what `build_panel` returned for it.
    out
        The folder to write to. Lists that are there are replaced, other files stay. Without it nothing is written.
    ledger
        The folder of a ledger with overrides.
    limit
        The most customers of a list.
    expiring_days
        In how many days an override expires to be listed.
    language
        `zh` or `en`, for headings and reasons; by default that of the model.

    Returns
    -------
    WorkLists or dict
        The counts of each list; without `out`, the lists as DataFrames by name.

    Raises
    ------
    ProjectError
        If the limit or the days are out of range, or there is no ledger.
    DataError
        If the scores or features lack columns, customers or the date, or a value is not a number.
    ModelError
        If the model is damaged, or another one made the scores.

    Examples
    --------
    >>> lists("scores.parquet", "models/shop", "features.parquet", "lists", limit=0)
    Traceback (most recent call last):
        ...
    tiermodel.errors.ProjectError: --limit: expected 1 to 1,048,575 customers of a list, got 0

    """
    if not 1 <= limit <= MOST_ROWS:
        raise ProjectError(f"--limit: expected 1 to {MOST_ROWS:,} customers of a list, got {limit}")
    if expiring_days < 0:
        raise ProjectError(f"--expiring-within: expected 0 days or more, got {expiring_days}")
    bundle = bundle_of(model)
    language = language or bundle.language
    names = [name for name in LISTS if name != _OVERRIDES or ledger is not None]
    outputs = () if out is None else tuple(path for name in LISTS for path in files_of(Path(out), name))
    chances = [f"p_{code}" for code in bundle.scheme.scheme.codes]
    columns = [*TEXTS, *NUMBERS, *chances, "opt_out", "consent"]
    with (
        as_file(scores, "scores") as path,
        as_file(features, "features") as beside,
        open_scores(path, columns, outputs) as table,
    ):
        day = date_of(table, bundle)
        overrides = _expiring(ledger, day, expiring_days)
        known = FeatureTable.open(table, beside, bundle, day, outputs)
        rate(table, bundle, known.returns(), known.sides(), overrides)
        rows = {name: _listed(table, name, limit) for name in names if name != _OVERRIDES}
        if ledger is not None:
            rows[_OVERRIDES] = _overrides(table, overrides, limit)
        tables = {name: with_details(name, rows[name], known, bundle, language) for name in names}
        found = replace(_counted(table, day, names, tables, len(overrides)), language=language)
    if out is None:
        return {name: frame_of_table(rows) for name, rows in tables.items()}
    _write(tables, Path(out), day, language, outputs)
    return found


def _expiring(ledger: str | Path | None, day: date, within_days: int) -> pd.DataFrame:
    """Return the overrides in force on a day that expire within so many days, the first to expire first."""
    if ledger is None:
        return pd.DataFrame({"customer_id": [], "days_left": []})
    return overrides_on(Ledger(ledger).must_exist(), day, within_days)


def _listed(scores: Scores, name: str, limit: int) -> pd.DataFrame:
    """Return the customers of a list, the first `limit` by priority."""
    query = f"SELECT * FROM rated WHERE list = '{name}' ORDER BY priority DESC, customer_id LIMIT {limit}"
    return scores.connection.sql(query).df()


def _overrides(scores: Scores, overrides: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Return overrides with what else is due for the customer, as far as the scores have the customer."""
    query = "SELECT * FROM rated WHERE list = 'expiring_overrides'"
    rated = scores.connection.sql(query).df().set_index("customer_id")
    found = overrides.head(limit).reset_index(drop=True)
    beside = rated[["due", "churn_risk", "clv"]].reindex(found["customer_id"]).reset_index(drop=True)
    return pd.concat([found, beside], axis=1)


def _counted(scores: Scores, day: date, names: list[str], tables: dict[str, pa.Table], overrides: int) -> WorkLists:
    query = "SELECT list, count(*) FROM rated GROUP BY ALL"
    sizes = dict(scores.connection.execute(query).fetchall())
    customers, refused = scores.connection.execute("SELECT count(*), count(*) FILTER (refused) FROM rated").fetchall()[
        0
    ]
    counts = []
    for name in names:
        rows = tables[name]
        of_list = overrides if name == _OVERRIDES else sizes.get(name, 0)
        worth = None if name == _OVERRIDES else round(float(np.sum(rows.column(4).to_numpy())), 2)
        counts.append(ListCount(name, of_list, rows.num_rows, worth))
    reach = tables["develop"]["reached_code"].null_count
    return WorkLists(day, tuple(counts), customers, sizes.get(None, 0), refused, reach)


def _write(tables: dict[str, pa.Table], out: Path, day: date, language: str, outputs: tuple[Path, ...]) -> None:
    """Put all lists in place together; a list that is not made this time is removed."""
    journal = journal_beside(out / LOCKED)
    with output_lock(out / LOCKED), staged(journal) as files:
        with disk_faults(out):
            settle(journal)
        for name, rows in tables.items():
            write_list(name, rows, out, day, language, files)
        for path in outputs:
            if path.stem not in tables:
                files.remove(path)
