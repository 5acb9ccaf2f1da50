"""The history: a project's tables united into rows of whole numbers, each with its customer, day and kind."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa

from tiermodel.config.custom import custom_column, is_custom
from tiermodel.config.data import CustomerColumns, Ids
from tiermodel.config.project import Project
from tiermodel.errors import ProjectError
from tiermodel.tables.account import account_of
from tiermodel.tables.categories import is_text, refuse_many_values, text_column
from tiermodel.tables.consent import without_refusals
from tiermodel.tables.contract import GOOD, Accounting, Bad, Contract, check_rows, every_id, mapped_columns
from tiermodel.tables.ids import look_alikes
from tiermodel.tables.plausible import far_off_words, plausible_span
from tiermodel.tables.privacy import hash_key
from tiermodel.tables.readers.open import Frame, open_source
from tiermodel.tables.row_kinds import EVENTS, KINDS
from tiermodel.tables.rules import NEVER, UNKNOWN
from tiermodel.tables.scratch import refuse_little_memory
from tiermodel.tables.source import NO_EXTENSIONS, Run, literal, run_here, scratch_folder
from tiermodel.tables.table import EPOCH, TABLES, Table, common_id_type
from tiermodel.tables.units import unit_words

__all__ = [
    "History", "columns_of", "connect", "emitted", "history_columns", "project_key", "read_history",
    "stream_layout", "stream_rows",
]  # fmt: skip


# Far from any order number in use, and different for every day.
_ORDER_OF_DAY = "(-9000000000000000000 - _tm_time_value)"
_NO_DAY, _NO_KEY, _NO_AMOUNT, _NO_TEXT = f"{NEVER}::INTEGER", f"{UNKNOWN}::BIGINT", "0::BIGINT", "NULL::VARCHAR"
_COLUMNS = {
    "product_id": ("product_key", _NO_KEY),
    "category": ("category_key", _NO_KEY),
    "channel": ("channel_key", _NO_KEY),
    "quantity": ("quantity", _NO_AMOUNT),
    "cost": ("cost", _NO_AMOUNT),
    "discount": ("discount", _NO_AMOUNT),
}
_ALWAYS = {"customer_id", "time", "amount", "currency", "ingested_at"}  # no feature needs them by name
_PROFILE = {"acquisition_cost": _NO_KEY, "contract_end": _NO_DAY}


@dataclass(frozen=True)
class History:
    """The checked tables of a project, united: `rows_sql` selects the good rows; the accounts count all others.

    `selects` has its parts by table, over the view of each table's source, which `run` reads.

    The columns of `rows_sql` are customer_id (BIGINT or VARCHAR), day (INTEGER, days since 1970-01-01, local), amount
    (BIGINT, 1/10,000 currency units), order_key (BIGINT) and, where mapped, those of `stream_layout`; text attributes
    are VARCHAR, NULL where they are not known. `columns` has the names that features may need: mapped columns of the
    transactions, kinds of events, other tables and their columns. `last_day` is the last plausible day of the
    transactions; `later_rows` are dated after it, and count for dates after their own only. `last_arrival` is the last
    plausible day on which a transaction arrived, where a column says when rows arrived (`arrivals`). `is_sample` says
    that it has some customers only; `grouped` names the tables whose select makes one row of several.
    """

    connection: duckdb.DuckDBPyConnection
    run: Run
    tables: dict[str, Table]
    columns: frozenset[str]
    first_day: date
    last_day: date
    selects: dict[str, str]
    later_rows: int = 0
    arrivals: bool = False
    last_arrival: date | None = None
    is_sample: bool = False
    grouped: frozenset[str] = frozenset()

    @property
    def rows_sql(self) -> str:
        """The SQL of the good rows of every table."""
        return " UNION ALL ".join(self.selects.values())

    @property
    def account(self) -> Accounting:
        """The account of the transactions."""
        return self.tables["transactions"].account

    @property
    def latest(self) -> date:
        """The date that `latest` means: the day after the last plausible day, and after the last row arrived."""
        return max(self.last_day, self.last_arrival or date.min) + timedelta(1)

    @property
    def whenever_arrived(self) -> History:
        """The history with every row known from its own day on, as what followed a date is judged in the end."""
        if not self.arrivals:
            return self
        known = {name: f"SELECT * REPLACE ({_NO_DAY} AS known_day) FROM ({sql})" for name, sql in self.selects.items()}
        return replace(self, selects=known, arrivals=False, last_arrival=None)

    def one_in(self, number: int) -> History:
        """Return the history of one customer in so many, drawn by a hash of the id; it has no account of its rows."""
        drawn = f"hash(customer_id) % {number} = 0"
        selects = {name: f"SELECT * FROM ({sql}) WHERE {drawn}" for name, sql in self.selects.items()}
        return replace(self, selects=selects, is_sample=True)

    def before(self, day: int, arrived: int | None = None) -> str:
        """Return the SQL of whether a row is of a day before `day`, and arrived on a day before `arrived` (if given).

        Days are counted from 1970-01-01.
        """
        late = f" AND greatest(day, known_day) < {arrived}" if self.arrivals and arrived is not None else ""
        return f"(day < {day}{late})"

    @property
    def transactions_sql(self) -> str:
        """The SQL of the transactions up to the last plausible day."""
        tests = ["kind = 0"] if len(self.tables) > 1 else []
        tests += [f"day <= {(self.last_day - EPOCH).days}"] if self.later_rows else []
        return f"SELECT * FROM ({self.rows_sql}) WHERE {' AND '.join(tests)}" if tests else self.rows_sql

    def bad_rows(self) -> Iterator[Bad]:
        """Yield the quarantined rows of every table."""
        for table in self.tables.values():
            yield from table.bad_rows(self.run)


def connect(project: Project) -> duckdb.DuckDBPyConnection:
    """Return a private DuckDB connection with the project's memory limit and time zone, which spills to disk.

    Raises `OutputError` where the shell allows the process less than that.
    """
    refuse_little_memory(project.data.memory_bytes)
    connection = duckdb.connect(config=dict(NO_EXTENSIONS))
    folder = scratch_folder(connection)
    spill = shutil.disk_usage(folder).free // 2
    connection.execute(f"SET temp_directory = {literal(str(folder))}")
    connection.execute(f"SET max_temp_directory_size = '{spill // 1_000_000}MB'")
    connection.execute("SET preserve_insertion_order = false")
    connection.execute("SET enable_progress_bar = false")
    connection.execute(f"SET GLOBAL TimeZone = {literal(project.timezone)}")
    try:
        connection.execute(f"SET memory_limit = {literal(project.data.memory)}")
    except duckdb.Error as error:
        raise ProjectError(f"data.memory: {project.data.memory!r} is not a size such as 1500MB: {error}") from error
    return connection


def read_history(
    project: Project, connection: duckdb.DuckDBPyConnection | None = None, run: Run | None = None, **frames: Frame
) -> History:
    """Return the history of a project; every table is read once, and each row is good, filtered or quarantined.

    A table can be passed by its name, as a DataFrame or Arrow table: `read_history(project, transactions=frame)`.
    Raises DataError where a table has no good row, TooManyBadRowsError above `data.max_bad_share`, ProjectError for a
    mapping that does not fit the columns. Without `connection`, one is made with the project's memory limit;
    without `run`, the rows are read in this process.
    """
    hash_key(project)  # raises before the long read if the key is missing, without which nothing can be written
    connection = connection or connect(project)
    run = run or run_here(connection)
    names = [name for name in TABLES if getattr(project.data, name) is not None]
    if unknown := set(frames) - set(names):
        raise ProjectError(f"{min(unknown)!r} is no table that the project maps under data; map its columns there")
    read = {name: _read_table(connection, run, project, name, frames.get(name)) for name in names}
    tables, good = {name: table for name, (table, _) in read.items()}, read["transactions"][1]
    sold = tables["transactions"]
    span = plausible_span(run, sold.contract, sold.source, good)
    alike = _look_alikes(connection, run, project, tables)
    tables["transactions"] = sold.with_warnings(
        (*far_off_words(good, span, project.language), *unit_words(run, sold, good), *alike)
    )
    layout = stream_layout(tables)
    selects = {name: " UNION ALL ".join(stream_rows(table, layout, tables)) for name, table in tables.items()}
    tables, selects = without_refusals(connection, run, tables, selects, ", ".join(layout))
    return History(
        connection=connection,
        run=run,
        tables=tables,
        columns=history_columns(project),
        first_day=EPOCH + timedelta(span.first),
        last_day=EPOCH + timedelta(span.last),
        selects=selects,
        later_rows=span.later,
        arrivals="known_day" in layout,
        last_arrival=None if span.arrived is None else EPOCH + timedelta(span.arrived),
    )


def _read_table(
    connection: duckdb.DuckDBPyConnection, run: Run, project: Project, name: str, frame: Frame | None
) -> tuple[Table, dict[str, Any]]:
    """Return a table, checked, and the counts of its good rows."""
    mappings = [text for _, text in mapped_columns(project, name).values()]
    source = open_source(connection, project, name, frame, [*mappings, getattr(project.data, name).where or ""])
    contract, groups = check_rows(connection, run, project, name, source)
    account = account_of(run, project, contract, source, groups)
    kind = connection.execute(f"DESCRIBE SELECT _tm_customer_id_value FROM ({contract.checked})").fetchall()[0][1]
    good_rows = f"SELECT * FROM ({contract.checked}) WHERE _tm_rule = {GOOD}"
    refuse_many_values(run, source, good_rows, contract.mapped, hide=contract.hides(""))
    return Table(contract, source, account, kind), groups[GOOD]


def _look_alikes(
    connection: duckdb.DuckDBPyConnection, run: Run, project: Project, tables: dict[str, Table]
) -> tuple[str, ...]:
    """Return warnings of ids, of all tables, that look alike."""
    texts = [table for table in tables.values() if table.id_type == "VARCHAR"]
    found: list[str | pa.Table] = []
    if project.data.engine == "spark":
        found += [pa.Table.from_batches(run(each.source, f"SELECT DISTINCT id FROM ({each.contract.ids})"))
                  for each in texts]  # fmt: skip
    else:
        found += every_id([each.contract for each in texts])
    hide = any(table.contract.hides("customer_id") for table in tables.values())
    return look_alikes(connection, found, project.data.ids or Ids(), project.language, hide_values=hide)


def history_columns(project: Project) -> frozenset[str]:
    """Return the names that the project's features may need: mapped columns, kinds of events, tables."""
    data = project.data
    names = set(data.transactions.columns.model_dump(exclude_none=True)) - _ALWAYS
    if data.customers:
        names |= set(data.customers.columns.model_dump(exclude_none=True)) - {"customer_id"}
        names |= {f"attribute_{name}" for name in project.features.carried if name in data.customers.attributes}
        names |= set(map(text_column, data.customers.categories))
    if data.events:
        names |= set(EVENTS if data.events.kinds is None else data.events.kinds)
        names |= {"value"} if data.events.columns.value else set()
    if data.invoices:
        names |= {"invoices", *({"issued", "disputed"} & set(data.invoices.columns.model_dump(exclude_none=True)))}
    names |= {custom_column(own.name) for own in project.features.custom if own.measure}
    return frozenset(names | ({"costs"} if data.costs else set()))


def project_key(column: str) -> str:
    """Return the key of the project file that maps a name of `history_columns`.

    >>> project_key("visit"), project_key("cost"), project_key("text_industry")
    ('data.events (visit)', 'data.transactions.columns.cost', 'data.customers.categories.industry')
    """
    if column in EVENTS:
        return f"data.events ({column})"
    if column in {"invoices", "costs"}:
        return f"data.{column}"
    own = {text_column(""): "data.customers.categories", "attribute_": "data.customers.attributes"}
    for prefix, key in {**own, custom_column(""): "features.custom"}.items():
        if column.startswith(prefix):
            return f"{key}.{column.removeprefix(prefix)}"
    homes = {"value": "events", "issued": "invoices", "disputed": "invoices"}
    homes |= dict.fromkeys(CustomerColumns.model_fields, "customers")
    return f"data.{homes.get(column, 'transactions')}.columns.{column}"


def stream_layout(tables: dict[str, Table]) -> dict[str, str]:
    """Return the columns of the stream, each with the SQL of its default (`customer_id`: with its type)."""
    mapped = {name: table.contract.mapped for name, table in tables.items()}
    return columns_of(mapped, common_id_type(tables), keep_duplicates=tables["transactions"].contract.keep_duplicates)


def columns_of(mapped: Mapping[str, Collection[str]], id_type: str, *, keep_duplicates: bool) -> dict[str, str]:
    """Return the columns of `stream_layout` for tables with these mapped columns, and ids of this type."""
    layout = {"customer_id": id_type, "day": _NO_DAY, "amount": _NO_KEY, "order_key": _NO_KEY}
    layout |= {name: default for given, (name, default) in _COLUMNS.items() if given in mapped["transactions"]}
    layout |= {name: _NO_AMOUNT for columns in mapped.values() for name in columns if is_custom(name)}
    if len(mapped) > 1:
        layout["kind"] = "0::TINYINT"
    if "invoices" in mapped:
        layout |= {"due_day": _NO_DAY, "issued_day": _NO_DAY}
    if any("ingested_at" in columns for columns in mapped.values()):
        layout["known_day"] = _NO_DAY
    if "customers" in mapped:
        profile = _profile_columns(mapped["customers"])
        layout |= {name: _NO_TEXT if is_text(name) else _PROFILE.get(name, _NO_KEY) for name in profile}
    if len(mapped) > 1 or not keep_duplicates:
        layout["row_key"] = _NO_KEY
    return layout


def _profile_columns(mapped: Collection[str]) -> list[str]:
    return [name for name in mapped if name in _PROFILE or name.startswith("attribute_") or is_text(name)]


class _Emitted(NamedTuple):
    kind: str  # the name of a kind, or the SQL of its code
    values: dict[str, str]
    condition: str = "true"


def stream_rows(table: Table, layout: dict[str, str], tables: dict[str, Table]) -> list[str]:
    """Return the SELECTs, over the view of a table's source rows, that turn its good rows into rows of the stream."""
    contract = table.contract
    return [
        f"SELECT {', '.join(f'{values.get(name, default)} AS {name}' for name, default in layout.items())} "
        f"FROM ({contract.checked}) WHERE _tm_rule = {GOOD} AND {condition}"
        for values, condition in emitted(contract, layout["customer_id"], several=len(tables) > 1)
    ]


def emitted(contract: Contract, id_type: str, *, several: bool) -> Iterator[tuple[dict[str, str], str]]:
    """Yield the rows of the stream that a good row becomes: the SQL of their columns, and when there is such a row.

    Columns that are not there have their default. `several` says that there are other tables too.
    """
    for row in _emitted(contract):
        kind = str(KINDS.get(row.kind, row.kind))
        values = {"customer_id": f"_tm_customer_id_value::{id_type}", "kind": f"{kind}::TINYINT"}
        values |= {"known_day": contract.value("ingested_at", _NO_DAY)}
        values |= {"row_key": f"({_row_key(contract, kind, several)} >> 1)::BIGINT", **row.values}
        yield values, row.condition


def _row_key(contract: Contract, kind: str, several: bool) -> str:
    whole_row = "hash(_file, _row)" if contract.keep_duplicates else contract.row_key
    return f"hash({whole_row}, {kind})" if several else whole_row


def _emitted(contract: Contract) -> list[_Emitted]:
    """Return the rows of the stream that one good row of the table becomes."""
    value = contract.value
    own = {name: value(name) for name in contract.mapped if is_custom(name)}
    match contract.table:
        case "transactions":
            values = {"day": value("time"), "amount": value("amount"), "order_key": _order_key(contract)}
            values |= {name: value(given) for given, (name, _) in _COLUMNS.items() if given in contract.mapped}
            return [_Emitted("transaction", {**values, **own})]
        case "events":
            return [_Emitted("_tm_kind_value", {"day": value("time"), "amount": value("value", _NO_KEY), **own})]
        case "costs":
            return [_Emitted("service_cost", {"day": value("time"), "amount": value("amount"), **own})]
        case "invoices":
            due, paid, disputed = value("due"), value("paid", NEVER), value("disputed", NEVER)
            amount, part = value("amount"), value("paid_amount", UNKNOWN)
            in_full = f"coalesce(abs(nullif({part}, {UNKNOWN})) >= abs({amount}), true)"
            in_time = f"({paid} > {NEVER} AND {paid} <= {due})"
            paid_amount = f"(CASE WHEN {in_full} THEN {amount} ELSE {part} END)"
            overdue = f"(CASE WHEN {in_time} THEN {amount} - {paid_amount} ELSE {amount} END)"
            payment = f"(CASE WHEN {in_full} THEN {KINDS['paid']} ELSE {KINDS['part_paid']} END)"
            issued = f"CASE WHEN {value('issued', NEVER)} > {NEVER} THEN {value('issued', NEVER)} ELSE {due} END"
            bill = {"amount": amount, "due_day": due, "issued_day": issued}
            return [
                _Emitted("invoice", {**bill, "day": issued}),
                _Emitted("overdue", {**bill, "amount": overdue, "day": due}, f"NOT ({in_time} AND {in_full})"),
                _Emitted(payment, {**bill, "amount": paid_amount, "day": paid}, f"{paid} > {NEVER}"),
                _Emitted("dispute", {**bill, "day": disputed}, f"{disputed} > {NEVER}"),
            ]
        case _:
            profile, signup = {name: value(name) for name in _profile_columns(contract.mapped)}, value("signup", NEVER)
            return [
                _Emitted("profile", {**profile, "day": value("valid_from", _NO_DAY)}),
                _Emitted("signup", {"day": signup}, f"{signup} > {NEVER}"),
            ]


def _order_key(contract: Contract) -> str:
    if "order_id" not in contract.mapped:
        return _ORDER_OF_DAY
    key = contract.keys["order_id"]
    return f"CASE WHEN {key} = {UNKNOWN} THEN {_ORDER_OF_DAY} ELSE {key} END"
