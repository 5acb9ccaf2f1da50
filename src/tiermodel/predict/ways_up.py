"""The changes that move each customer up, as a table."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import overload

import pandas as pd
import pyarrow as pa

from tiermodel.bundle.bundle import Bundle, bundle_of
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.features.dates import one_date
from tiermodel.features.panel import Tally, build_panel
from tiermodel.output import write_table
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.predict.table import checked
from tiermodel.tables.frames import frame_of_table
from tiermodel.tables.source import refuse_outputs
from tiermodel.tiers.explain.next_tier import next_tier_actions

__all__ = ["upgrades"]


@overload
def upgrades(
    project: Project, model: Bundle | str | Path, as_of: date | str, out: None = None, *, language: str | None = None,
    history: Rows = None, tally: Tally | None = None,
) -> pd.DataFrame: ...  # fmt: skip


@overload
def upgrades(
    project: Project, model: Bundle | str | Path, as_of: date | str, out: str | Path, *, language: str | None = None,
    history: Rows = None, tally: Tally | None = None,
) -> tuple[int, int]: ...  # fmt: skip


def upgrades(
    project: Project,
    model: Bundle | str | Path,
    as_of: date | str,
    out: str | Path | None = None,
    *,
    language: str | None = None,
    history: Rows = None,
    tally: Tally | None = None,
) -> tuple[int, int] | pd.DataFrame:
    """Return, for each customer, the single changes that would lead to a higher tier, or write them to a file.

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
        Without it the table is returned.
    language
        `zh` or `en`, for the words of a change; by default the bundle's language.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.
    tally
        The counts to add to; at the end it has the account of every table.

    Returns
    -------
    tuple[int, int] or pandas.DataFrame
        The number of rows written, and of customers with at least one row. Without `out`, the rows.

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
    require_project(project)
    bundle = bundle_of(model)
    history = history_of(project, history)
    if out is not None:
        refuse_outputs((table.source for table in history.tables.values()), Path(out))
    scored_project = with_bundle_features(project, bundle, history)
    snapshot = build_panel(scored_project, [one_date(as_of, history)], history=history, tally=tally)
    found = next_tier_actions(bundle.scheme, checked(bundle, snapshot), bundle.features, language or bundle.language)
    dates = pa.field("as_of", pa.date32())
    texts = {"customer_id", "tier_code", "reached_code", "feature", "words"}
    schema = pa.schema([
        dates if name == "as_of" else pa.field(name, pa.string() if name in texts else pa.float64()) for name in found
    ])  # fmt: skip
    table = pa.Table.from_pandas(found, schema=schema, preserve_index=False)
    if out is None:
        return frame_of_table(table)
    write_table(table, Path(out))
    return len(found), int(found["customer_id"].nunique())
