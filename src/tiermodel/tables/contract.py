"""The contract of a table: SQL that checks every row and turns it into integers, the account, the quarantine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice, pairwise
from typing import Any

import duckdb

from tiermodel.config.data import Customers, Events, Rows
from tiermodel.config.project import Project
from tiermodel.errors import DataError, EmptyInputError, TierModelError, TooManyBadRowsError
from tiermodel.tables import rules
from tiermodel.tables.categories import is_text, text_column
from tiermodel.tables.expressions import Expression, bind
from tiermodel.tables.privacy import masked
from tiermodel.tables.rules import RULES, Parsed
from tiermodel.tables.source import FILE, ROW, Run, Source, quoted

__all__ = ["FILTERED", "GOOD", "Accounting", "Bad", "Contract", "Groups", "account_of", "check_rows", "scan"]

GOOD, FILTERED = 0, 255
Groups = dict[int, dict[str, Any]]
"""The results of `Contract.counts` by the number of the rule that rows break, or GOOD or FILTERED."""
Bad = tuple[str, int, str, str, str, str, str]
"""A quarantined row: file, line or row number, rule, code, column, value, remedy."""
_EXAMPLES = 5
# At most this many rows, and 1 in 100, that follow more than two years without a row have wrong dates.
_LAST_ROWS, _SILENCE = 100, 731


@dataclass(frozen=True)
class Accounting:
    """The account of every row read; the stream completes `deduplicated`, `out_of_window` and `used`."""

    read: int
    filtered: int
    quarantined: int
    deduplicated: int = 0
    out_of_window: int = 0
    used: int = 0
    rules: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def with_stream(self, *, deduplicated: int, out_of_window: int, used: int) -> Accounting:
        """Return the account completed with the fate of the good rows."""
        return replace(self, deduplicated=deduplicated, out_of_window=out_of_window, used=used)

    def check(self) -> None:
        """Raise TierModelError unless read = used + deduplicated + quarantined + filtered + out of window.

        >>> Accounting(read=3, filtered=1, quarantined=0).with_stream(deduplicated=1, out_of_window=0, used=1).check()
        """
        total = self.used + self.deduplicated + self.quarantined + self.filtered + self.out_of_window
        if total != self.read:
            raise TierModelError(
                f"rows do not add up: {self.read} read, {total} accounted for ({self}); report this bug"
            )


@dataclass(frozen=True)
class Contract:
    """The rules of a table as SQL over the view of its source rows; fit to be sent to another process.

    `checked` selects every source row with its parsed values (`_tm_<column>_value`) and the number of the first rule it
    breaks (`_tm_rule`); `counts` groups these rows by rule. `mapped` has the column or expression that the project maps
    to each canonical column, `types` its DuckDB type. `row_key` is the SQL of a hash of the whole row. Equal rows are
    kept if `keep_duplicates`; bad values are shown only as shapes if `hide_values`.
    """

    table: str
    view: str
    mapped: dict[str, str]
    types: dict[str, str]
    checked: str
    counts: str
    keys: dict[str, str]
    row_key: str
    keep_duplicates: bool
    hide_values: bool = False

    def value(self, column: str, otherwise: str = "NULL") -> str:
        """Return the SQL of a column's value in `checked`, or of its default where it is not mapped."""
        if column not in self.mapped:
            return otherwise
        return self.keys.get(column, f"_tm_{column}_value")

    def bad_rows(self, run: Run, source: Source, counts: dict[str, int], limit: int | None = None) -> Iterator[Bad]:
        """Yield the quarantined rows, ordered by file; at most `limit`."""
        rejected, names = source.rejected[:limit], list(RULES)
        for record in rejected:
            yield self._bad(record.rule, record.file, record.line, record.text)
        left = None if limit is None else limit - len(rejected)
        if left == 0 or sum(counts.values()) == len(source.rejected):
            return
        batches = run(source, f"{self.bad_sql} ORDER BY 1, 2 LIMIT {'ALL' if left is None else left}")
        rows = chain.from_iterable(zip(*batch.to_pydict().values(), strict=True) for batch in batches)
        for file, row, number, value in islice(rows, left):
            yield self._bad(names[number - 1], file, source.line(file, row), value or "")

    def _bad(self, name: str, file: str, place: int, value: str) -> Bad:
        rule = RULES[name]
        shown = masked(value) if self.hide_values else value
        return file, place, name, rule.code, self.mapped.get(rule.column, rule.column), shown, rule.remedy

    @property
    def bad_sql(self) -> str:
        """The SQL of the rows that break a rule: file, row number, rule number, value at fault."""
        values = " ".join(
            f"WHEN {number} THEN _tm_{rule.column}::VARCHAR"
            for number, rule in enumerate(RULES.values(), 1)
            if rule.column in self.mapped
        )
        return (
            f"SELECT {quoted(FILE)}, {quoted(ROW)}, _tm_rule, left(CASE _tm_rule {values} END, 200) "
            f"FROM ({self.checked}) WHERE _tm_rule NOT IN ({GOOD}, {FILTERED})"
        )


def _compile_contract(
    connection: duckdb.DuckDBPyConnection, project: Project, table: str, source: Source, last_day: int | None = None
) -> Contract:
    """Return the contract of one of the project's tables over the view of its source rows, which may be empty.

    Transactions after `last_day` (counted from 1970-01-01) break it. Raises ProjectError for a mapping that does not
    fit the columns.
    """
    rows: Rows = getattr(project.data, table)
    key = f"data.{table}"
    mapped = _bound(connection, project, rows, source, key)
    parsed = _parse(project, rows, f"{key}.columns", mapped, last_day)
    left_out = [f"({bind(connection, source, f'{key}.where', rows.where).sql}) IS NOT TRUE"] if rows.where else []
    left_out += ["_tm_kind_clean IS NULL"] if isinstance(rows, Events) and rows.kinds is not None else []
    checked = _checked(source, mapped, parsed, left_out)
    keys = {name: rules.key(name, mapped[name]) for name in _KEYS if name in mapped}
    return Contract(
        table=table,
        view=source.view,
        mapped={name: expression.text for name, expression in mapped.items()},
        types={name: expression.type for name, expression in mapped.items()},
        checked=checked,
        counts=_counts(checked, parsed, keys),
        keys=keys,
        row_key=f"hash({', '.join(map(quoted, source.columns))})",
        keep_duplicates=rows.duplicates == "keep",
        hide_values=project.data.hash_ids is not None,
    )


_KEYS = ("order_id", "product_id", "category", "channel")


def _bound(
    connection: duckdb.DuckDBPyConnection, project: Project, rows: Rows, source: Source, key: str
) -> dict[str, Expression]:
    """Return the mapped expressions by canonical column; attributes that no feature carries are checked only."""
    columns: dict[str, str] = rows.columns.model_dump(exclude_none=True)  # type: ignore[attr-defined]
    mapped = {name: bind(connection, source, f"{key}.columns.{name}", text) for name, text in columns.items()}
    if isinstance(rows, Customers):
        for name, text in rows.attributes.items():
            expression = bind(connection, source, f"{key}.attributes.{name}", text)
            if name in project.features.carried:
                mapped[f"attribute_{name}"] = expression
        for name, text in rows.categories.items():
            mapped[text_column(name)] = bind(connection, source, f"{key}.categories.{name}", text)
    return mapped


def _parse(
    project: Project, rows: Rows, key: str, mapped: dict[str, Expression], last_day: int | None
) -> dict[str, Parsed]:
    date = next(((name, mapped[name]) for name in rules.DATES if name in mapped), None)
    parsed = {"customer_id": rules.customer(mapped["customer_id"], date)}
    for name, expression in mapped.items():
        if name in rules.DATES:
            parsed[name] = rules.day(name, expression, project.timezone, key, last_day)
        elif name in rules.MONEY:
            parsed[name] = rules.money(name, expression, key)
        elif name in rules.FLAGS:
            parsed[name] = rules.flag(name)
        elif name == "currency":
            parsed[name] = rules.currency(project.currency)
        elif name == "kind":
            parsed[name] = rules.kind(getattr(rows, "kinds", None))
        elif name.startswith("attribute_"):
            parsed[name] = rules.attribute(name, expression)
        elif is_text(name):
            parsed[name] = rules.category(name, expression)
    return parsed


def _checked(source: Source, mapped: dict[str, Expression], parsed: dict[str, Parsed], left_out: list[str]) -> str:
    """Return the SQL of all rows with their parsed values (`_tm_<column>_value`) and the first rule they break."""
    raw = ", ".join(f"{expression.sql} AS _tm_{name}" for name, expression in mapped.items())
    text, clean, values = (
        ", ".join(f"{getattr(column, step)} AS _tm_{name}_{step}" for name, column in parsed.items())
        for step in ("text", "clean", "value")
    )
    numbers = {name: number for number, name in enumerate(RULES, 1)}
    checks = [f"WHEN {test} THEN {FILTERED}" for test in left_out]
    checks += [f"WHEN {test} THEN {numbers[name]}" for column in parsed.values() for name, test in column.rules]
    case = f"(CASE {' '.join(checks)} ELSE {GOOD} END)::UTINYINT"
    return (
        f"SELECT *, {values}, {case} AS _tm_rule "
        f"FROM (SELECT *, {clean} FROM (SELECT *, {text} FROM (SELECT *, {raw} FROM {source.view})))"
    )


def _counts(checked: str, parsed: dict[str, Parsed], keys: dict[str, str]) -> str:
    """Return the SQL of the number of rows of every rule, their first and last days, and their counters."""
    date = next((name for name in ("time", "due") if name in parsed), None)
    wanted = {"rows": "count(*)"}
    wanted |= {"first": f"min(_tm_{date}_value)", "last": f"max(_tm_{date}_value, {_LAST_ROWS})"} if date else {}
    if "currency" in parsed:
        wanted["currencies"] = "list(DISTINCT _tm_currency_value ORDER BY _tm_currency_value)"
    counters = [counter for column in parsed.values() for counter in column.counters]
    wanted |= {name: f"count(*) FILTER ({test})" for name, test in counters}
    if "order_id" in keys:
        wanted["orders_missing"] = f"count(*) FILTER ({keys['order_id']} = {rules.UNKNOWN})"
    select = ", ".join(f"{sql} AS {name}" for name, sql in wanted.items())
    return f"SELECT _tm_rule, {select} FROM ({checked}) GROUP BY _tm_rule"


def scan(run: Run, contract: Contract, source: Source) -> Groups:
    """Return the counts of a table's rows by rule, from one pass, merged over the parts of the source."""
    groups: Groups = {}
    try:
        for batch in run(source, contract.counts):
            for counts in batch.to_pylist():
                group = groups.setdefault(counts["_tm_rule"], counts)
                if group is not counts:
                    group |= {name: _merged(name, group[name], counts[name]) for name in counts}
    except (duckdb.Error, OSError) as error:
        words = str(error).splitlines()[0]
        raise DataError(f"TM1101 the {contract.table} cannot be read to the end: {words}") from error
    return groups


def _merged(name: str, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if name == "last":
        return sorted([*one, *other], reverse=True)[:_LAST_ROWS]
    return {"_tm_rule": max, "first": min}.get(name, int.__add__)(one, other)


def check_rows(
    connection: duckdb.DuckDBPyConnection, run: Run, project: Project, table: str, source: Source
) -> tuple[Contract, Groups]:
    """Return a table's contract and its counts by rule: one pass, two where transactions are dated in a far future."""
    contract = _compile_contract(connection, project, table, source)
    groups = scan(run, contract, source)
    if table == "transactions" and (day := _last_plausible_day(groups)) is not None:
        contract = _compile_contract(connection, project, table, source, day)
        groups = scan(run, contract, source)
    return contract, groups


def _last_plausible_day(groups: Groups) -> int | None:
    """Return the day after which a few rows lie in a far future, None where there are no such rows.

    Such rows would make every customer look silent for years. The clock is never read, so that only the other rows can
    show what the future is.
    """
    good = groups.get(GOOD, {})
    last = good.get("last") or []
    for later, (day, after) in enumerate(pairwise(last), 1):
        if day - after > _SILENCE and later * 100 <= good["rows"]:
            return int(after)
    return None


def account_of(run: Run, project: Project, contract: Contract, source: Source, groups: Groups) -> Accounting:
    """Return the account of a table's rows; refuse one without good rows, with too many bad ones, or with mixed zones.

    Raises DataError, or TooManyBadRowsError above `data.max_bad_share`.
    """
    names = dict(enumerate(RULES, 1))
    counts = {names[rule]: group["rows"] for rule, group in sorted(groups.items()) if rule in names}
    for record in source.rejected:
        counts[record.rule] = counts.get(record.rule, 0) + 1
    good = groups.get(GOOD, {})
    notes = {
        "ids_cleaned": "customer ids were trimmed or brought to one Unicode form (NFC)",
        "ids_null_words": "customer ids read NA, null, None or the like; they are kept as text",
        "quantity_missing": "rows without quantity count as 0",
        "discount_missing": "rows without discount count as 0",
        "orders_missing": f"rows without order_id ({contract.mapped.get('order_id')}): one order per customer and day",
    }
    warnings = tuple(f"{good[name]} {text}" for name, text in notes.items() if good.get(name))
    account = Accounting(
        read=sum(group["rows"] for group in groups.values()) + len(source.rejected),
        filtered=groups.get(FILTERED, {}).get("rows", 0),
        quarantined=sum(counts.values()),
        rules=counts,
        warnings=source.warnings + warnings,
    )
    _refuse_empty(contract, source, account)
    _refuse_bad(run, project, contract, source, account)
    _refuse_mixed_zones(contract, good)
    _refuse_mixed_currencies(contract, good)
    return account


def _refuse_empty(contract: Contract, source: Source, account: Accounting) -> None:
    where = ", ".join(source.files[:3])
    if account.read == 0:
        kind = EmptyInputError if contract.table == "transactions" else DataError
        raise kind(f"TM1002 {where}: there are 0 rows of {contract.table}")
    if account.read == account.filtered:
        why = "data.events.kinds" if contract.table == "events" else f"data.{contract.table}.where"
        raise DataError(f"TM1002 {where}: {why} leaves none of {account.read} rows")


def _refuse_bad(run: Run, project: Project, contract: Contract, source: Source, account: Accounting) -> None:
    left = account.read - account.filtered
    share = account.quarantined / left
    damaged = account.rules.get("customer_id_damaged", 0)
    if share <= project.data.max_bad_share and account.quarantined < left and not damaged:
        return
    lines = [f"{account.quarantined:,} of {left:,} rows break the contract ({share:.1%})"]
    lines += _broken_rules(run, contract, source, account)
    if account.quarantined == left or damaged:
        why = "No row is good" if not damaged else "Damaged customer ids cannot be told apart"
        raise DataError("\n".join([f"{why}: {lines[0]}", *lines[1:]]))
    lines.append(f"  data.max_bad_share allows {project.data.max_bad_share:.1%}: correct the data, or allow more.")
    raise TooManyBadRowsError("\n".join(lines))


def _broken_rules(run: Run, contract: Contract, source: Source, account: Accounting) -> Iterator[str]:
    """Yield a line for each rule that rows break, and one for each of a few such rows."""
    for name, count in account.rules.items():
        yield f"  {count:,} × {name} ({RULES[name].code}): {RULES[name].remedy}"
    for file, row, _, _, column, value, _ in contract.bad_rows(run, source, account.rules, _EXAMPLES):
        yield f"  {file}, row {row}: {column or 'record'} = {value!r}"


def _refuse_mixed_zones(contract: Contract, good: dict[str, Any]) -> None:
    for name in rules.DATES:
        aware = good.get(f"{name}_aware", 0)
        dated = good.get("rows", 0) - good.get(f"{name}_absent", 0)
        if 0 < aware < dated:
            raise DataError(
                f"TM2066 {contract.mapped[name]!r} mixes times with an offset ({aware} rows) and without "
                f"({dated - aware} rows): write all of them one way"
            )


def _refuse_mixed_currencies(contract: Contract, good: dict[str, Any]) -> None:
    currencies = good.get("currencies") or []
    if len(currencies) > 1:
        raise DataError(
            f"TM2052 {contract.mapped['currency']!r} holds {', '.join(currencies)}: amounts in them have no sum. "
            "Set the project's `currency` (rows in others are quarantined), or convert amounts to one."
        )
