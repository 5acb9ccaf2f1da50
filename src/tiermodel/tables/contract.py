"""Hold the transactions to their contract: integer columns for the stream, an account of every row, a quarantine."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb

from tiermodel.config import Project
from tiermodel.errors import DataError, ProjectError, TierModelError, TooManyBadRowsError
from tiermodel.tables import rules
from tiermodel.tables.expressions import Expression, bind
from tiermodel.tables.output import defused, writing
from tiermodel.tables.rules import RULES, Parsed
from tiermodel.tables.sources import FILE, ROW, Source, literal, open_source, quoted, scratch_folder

__all__ = ["Accounting", "Transactions", "open_transactions"]

_EPOCH = date(1970, 1, 1)
_CHECKED, _ROWS = "transactions_checked", "transactions_rows"
_GOOD, _FILTERED = 0, 255
_MONEY = ("amount", "cost", "quantity", "discount")
_OPTIONAL = ("order_id", "product_id", "category", "quantity", "cost", "discount", "channel")
_EXAMPLES = 5
# Far from any order number in use, and different for every day.
_ORDER_OF_DAY = "(-9000000000000000000 - _tm_time_value)"


@dataclass(frozen=True)
class Accounting:
    """Account for every row read; the stream completes `deduplicated`, `out_of_window` and `used`."""

    read: int
    filtered: int
    quarantined: int
    deduplicated: int = 0
    out_of_window: int = 0
    used: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_stream(self, *, deduplicated: int, out_of_window: int, used: int) -> Accounting:
        """Return the account with what became of the good rows."""
        return replace(self, deduplicated=deduplicated, out_of_window=out_of_window, used=used)

    def check(self) -> None:
        """Raise unless read = used + deduplicated + quarantined + filtered + out of window.

        >>> Accounting(read=3, filtered=1, quarantined=0).with_stream(deduplicated=1, out_of_window=0, used=1).check()
        """
        told = self.used + self.deduplicated + self.quarantined + self.filtered + self.out_of_window
        if told != self.read:
            raise TierModelError(
                f"rows do not add up: {self.read} read, {told} accounted for ({self}); report this bug"
            )


@dataclass(frozen=True)
class Transactions:
    """Hold the checked transactions: `rows_sql` selects the good rows as integers, the rest is in `account`.

    `rows_sql` gives customer_id (BIGINT or VARCHAR), day (INTEGER, days since 1970-01-01, local), amount (BIGINT,
    1/10,000 currency units), order_key (BIGINT); product_key and category_key (BIGINT, the least BIGINT for unknown),
    quantity, cost and discount (BIGINT, 1/10,000) where mapped; row_key (BIGINT) where duplicates are to be dropped.
    """

    connection: duckdb.DuckDBPyConnection
    columns: frozenset[str]
    account: Accounting
    first_day: date
    last_day: date
    rows_sql: str
    source: Source
    mapped: dict[str, str]

    def bad_rows(self, limit: int | None = None) -> Iterator[tuple[str, int, str, str, str, str, str]]:
        """Yield (file, line or row, rule, code, column, value, remedy) of the quarantined rows, ordered by file."""
        return _bad_rows(self.connection, self.source, self.mapped, self.account.rules, limit)

    def write_quarantine(self, path: Path) -> None:
        """Write the quarantined rows to a CSV file that a spreadsheet opens without running formulas."""
        with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("file", "row", "rule", "code", "column", "value", "remedy"))
            for row in self.bad_rows():
                writer.writerow(defused(cell) if isinstance(cell, str) else cell for cell in row)


def open_transactions(project: Project, connection: duckdb.DuckDBPyConnection | None = None) -> Transactions:
    """Read the project's transactions once: every row is good, filtered or quarantined, and counted.

    Raises DataError where no good row is left, TooManyBadRowsError above `data.max_bad_share`, ProjectError for a
    mapping that does not fit the columns. Without `connection`, one is made with the project's memory limit.
    """
    connection = connection or _connect(project)
    source = open_source(connection, project)
    mapped = _mapped(connection, project, source)
    parsed = _parse(project, mapped)
    where = project.data.transactions.where
    condition = bind(connection, source, "data.transactions.where", where) if where else None
    _create_checked(connection, source, mapped, parsed, condition)
    groups = _scan(connection, mapped, parsed)
    account = _account(source, groups, mapped)
    texts = {name: expression.text for name, expression in mapped.items()}
    _refuse_bad(connection, project, source, texts, account)
    good = groups[_GOOD]
    _refuse_mixed_zones(mapped, groups)
    rows_sql = _create_rows(connection, project, source, mapped, drop_float_ending=good.get("ids_not_float") == 0)
    return Transactions(
        connection=connection,
        columns=frozenset(name for name in mapped if name in _OPTIONAL),
        account=account,
        first_day=_EPOCH + timedelta(days=good["first"]),
        last_day=_EPOCH + timedelta(days=good["last"]),
        rows_sql=rows_sql,
        source=source,
        mapped=texts,
    )


def _connect(project: Project) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
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


def _mapped(connection: duckdb.DuckDBPyConnection, project: Project, source: Source) -> dict[str, Expression]:
    given = project.data.transactions.columns.model_dump(exclude_none=True)
    return {name: bind(connection, source, f"data.transactions.columns.{name}", text) for name, text in given.items()}


def _parse(project: Project, mapped: dict[str, Expression]) -> dict[str, Parsed]:
    parsed = {
        "customer_id": rules.customer(mapped["customer_id"], mapped["time"]),
        "time": rules.day(mapped["time"], project.timezone),
    }
    return parsed | {name: rules.money(name, mapped[name]) for name in _MONEY if name in mapped}


def _create_checked(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    mapped: dict[str, Expression],
    parsed: dict[str, Parsed],
    condition: Expression | None,
) -> None:
    """Create the view of all rows with their parsed values (`_tm_<column>_value`) and the first rule they break."""
    raw = ", ".join(f"{expression.sql} AS _tm_{name}" for name, expression in mapped.items())
    text = ", ".join(f"{column.text} AS _tm_{name}_text" for name, column in parsed.items())
    clean = ", ".join(f"{column.clean} AS _tm_{name}_clean" for name, column in parsed.items())
    values = ", ".join(f"{column.value} AS _tm_{name}_value" for name, column in parsed.items())
    numbers = {name: number for number, name in enumerate(RULES, 1)}
    checks = [f"WHEN {test} THEN {numbers[name]}" for column in parsed.values() for name, test in column.rules]
    kept = [f"WHEN ({condition.sql}) IS NOT TRUE THEN {_FILTERED}"] if condition else []
    case = f"(CASE {' '.join(kept + checks)} ELSE {_GOOD} END)::UTINYINT"
    connection.execute(
        f"CREATE OR REPLACE VIEW {_CHECKED} AS SELECT *, {values}, {case} AS _tm_rule "
        f"FROM (SELECT *, {clean} FROM (SELECT *, {text} FROM (SELECT *, {raw} FROM {source.view})))"
    )


def _scan(
    connection: duckdb.DuckDBPyConnection, mapped: dict[str, Expression], parsed: dict[str, Parsed]
) -> dict[int, dict[str, Any]]:
    """Count the rows under every rule, and the first and last day and the counters of each, in one pass."""
    counters = [counter for column in parsed.values() for counter in column.counters]
    wanted = [("rows", "count(*)"), ("first", "min(_tm_time_value)"), ("last", "max(_tm_time_value)")]
    wanted += [(name, f"count(*) FILTER ({test})") for name, test in counters]
    wanted += [("orders_missing", f"count(*) FILTER ({_no_order(mapped)})")] if "order_id" in mapped else []
    select = ", ".join(sql for _, sql in wanted)
    try:
        found = connection.execute(f"SELECT _tm_rule, {select} FROM {_CHECKED} GROUP BY _tm_rule").fetchall()
    except duckdb.Error as error:
        raise DataError(f"TM1101 the transactions cannot be read to the end: {str(error).splitlines()[0]}") from error
    keys = [name for name, _ in wanted]
    return {int(rule): dict(zip(keys, row, strict=True)) for rule, *row in found}


def _account(source: Source, groups: dict[int, dict[str, Any]], mapped: dict[str, Expression]) -> Accounting:
    names = dict(enumerate(RULES, 1))
    counts = {names[rule]: group["rows"] for rule, group in sorted(groups.items()) if rule in names}
    for record in source.rejected:
        counts[record.rule] = counts.get(record.rule, 0) + 1
    good = groups.get(_GOOD, {})
    told = {
        "ids_cleaned": "customer ids were trimmed or brought to one Unicode form (NFC)",
        "ids_null_words": "customer ids read NA, null, None or the like; they are kept as text",
        "quantity_missing": "rows without quantity count as 0",
        "discount_missing": "rows without discount count as 0",
        "orders_missing": f"rows without order_id ({_text(mapped, 'order_id')}): one order per customer and day",
    }
    warnings = tuple(f"{good[name]} {text}" for name, text in told.items() if good.get(name))
    return Accounting(
        read=sum(group["rows"] for group in groups.values()) + len(source.rejected),
        filtered=groups.get(_FILTERED, {}).get("rows", 0),
        quarantined=sum(counts.values()),
        rules=counts,
        warnings=source.warnings + warnings,
    )


def _text(mapped: dict[str, Expression], name: str) -> str:
    return mapped[name].text if name in mapped else ""


def _refuse_bad(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    source: Source,
    mapped: dict[str, str],
    account: Accounting,
) -> None:
    where = ", ".join(source.files[:3])
    left = account.read - account.filtered
    if account.read == 0:
        raise DataError(f"TM1002 {where}: there are 0 rows")
    if left == 0:
        raise DataError(f"TM1002 {where}: data.transactions.where leaves none of {account.read} rows")
    if not account.quarantined:
        return
    share = account.quarantined / left
    damaged = account.rules.get("customer_id_damaged", 0)
    if share <= project.data.max_bad_share and account.quarantined < left and not damaged:
        return
    lines = [f"{account.quarantined:,} of {left:,} rows break the contract ({share:.1%})"]
    lines += [
        f"  {count:,} × {name} ({RULES[name].code}): {RULES[name].remedy}" for name, count in account.rules.items()
    ]
    lines += [
        f"  {file}, row {row}: {column or 'record'} = {value!r}"
        for file, row, _, _, column, value, _ in _bad_rows(connection, source, mapped, account.rules, _EXAMPLES)
    ]
    if account.quarantined == left or damaged:
        why = "No row is good" if not damaged else "Damaged customer ids cannot be told apart"
        raise DataError("\n".join([f"{why}: {lines[0]}", *lines[1:]]))
    lines.append(f"  data.max_bad_share allows {project.data.max_bad_share:.1%}: correct the data, or allow more.")
    raise TooManyBadRowsError("\n".join(lines))


def _refuse_mixed_zones(mapped: dict[str, Expression], groups: dict[int, dict[str, Any]]) -> None:
    good = groups[_GOOD]
    if 0 < good.get("times_aware", 0) < good["rows"]:
        raise DataError(
            f"TM2066 {mapped['time'].text!r} mixes times with an offset ({good['times_aware']} rows) and without "
            f"({good['rows'] - good['times_aware']} rows): write all of them one way"
        )


def _bad_rows(
    connection: duckdb.DuckDBPyConnection,
    source: Source,
    mapped: dict[str, str],
    counts: dict[str, int],
    limit: int | None,
) -> Iterator[tuple[str, int, str, str, str, str, str]]:
    found = 0
    for record in source.rejected[:limit]:
        rule = RULES[record.rule]
        found += 1
        yield record.file, record.line, rule.name, rule.code, rule.column, record.text, rule.remedy
    if sum(counts.values()) == len(source.rejected) or (limit is not None and found >= limit):
        return
    names = list(RULES)
    values = " ".join(
        f"WHEN {number} THEN _tm_{rule.column}::VARCHAR"
        for number, rule in enumerate(RULES.values(), 1)
        if rule.column in mapped
    )
    cursor = connection.cursor().execute(
        f"SELECT {quoted(FILE)}, {quoted(ROW)}, _tm_rule, left(CASE _tm_rule {values} END, 200) FROM {_CHECKED} "
        f"WHERE _tm_rule NOT IN ({_GOOD}, {_FILTERED}) ORDER BY 1, 2 LIMIT {'ALL' if limit is None else limit - found}"
    )
    while rows := cursor.fetchmany(10_000):
        for file, row, number, value in rows:
            rule = RULES[names[number - 1]]
            place = source.line(file, row)
            yield file, place, rule.name, rule.code, mapped.get(rule.column, rule.column), value or "", rule.remedy


def _create_rows(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    source: Source,
    mapped: dict[str, Expression],
    *,
    drop_float_ending: bool,
) -> str:
    """Create the view of the good rows and return the SELECT over it."""
    identifier = "_tm_customer_id_value"
    if drop_float_ending:
        identifier = f"left({identifier}, length({identifier}) - 2)"
    columns = {"customer_id": identifier, "day": "_tm_time_value", "amount": "_tm_amount_value"}
    columns |= {name: f"_tm_{name}_value" for name in _MONEY[1:] if name in mapped}
    columns["order_key"] = _order_key(mapped)
    for name, given in (("product_key", "product_id"), ("category_key", "category")):
        if given in mapped:
            columns[name] = rules.key(given, mapped[given])
    if project.data.transactions.duplicates == "drop":
        columns["row_key"] = f"(hash({', '.join(map(quoted, source.columns))}) >> 1)::BIGINT"
    select = ", ".join(f"{sql} AS {name}" for name, sql in columns.items())
    connection.execute(f"CREATE OR REPLACE VIEW {_ROWS} AS SELECT {select} FROM {_CHECKED} WHERE _tm_rule = {_GOOD}")
    return f"SELECT {', '.join(columns)} FROM {_ROWS}"


def _order_key(mapped: dict[str, Expression]) -> str:
    if "order_id" not in mapped:
        return _ORDER_OF_DAY
    return f"CASE WHEN {_no_order(mapped)} THEN {_ORDER_OF_DAY} ELSE {rules.key('order_id', mapped['order_id'])} END"


def _no_order(mapped: dict[str, Expression]) -> str:
    return f"{rules.key('order_id', mapped['order_id'])} = {rules.UNKNOWN}"
