"""The contract of a table: SQL that checks every row and turns it into integers, and the quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Any

import duckdb

from tiermodel.config.custom import custom_column, is_custom
from tiermodel.config.data import Customers, Events, Ids, Rows
from tiermodel.config.project import Project
from tiermodel.errors import DataError, OutputError, TierModelError
from tiermodel.tables import dates, ids, rules
from tiermodel.tables.categories import is_text, text_column
from tiermodel.tables.expressions import Expression, bind
from tiermodel.tables.personal_data import find_personal, looks_personal, names_column
from tiermodel.tables.privacy import masked, shows_values
from tiermodel.tables.remedies import remedy_for
from tiermodel.tables.rules import RULES, Parsed
from tiermodel.tables.source import FILE, ROW, Run, Source, literal, quoted
from tiermodel.words import in_language

__all__ = [
    "FILTERED", "GOOD", "LAST_ROWS", "Accounting", "Bad", "Contract", "Groups", "check_rows", "compile_contract",
    "every_id", "mapped_columns", "scan",
]  # fmt: skip


GOOD, FILTERED = 0, 255
Groups = dict[int, dict[str, Any]]
"""The results of `Contract.counts` by the number of the rule that rows break, or GOOD or FILTERED."""
Bad = tuple[str, int, str, str, str, str, str]
"""A quarantined row: file, line or row number, rule, code, column, value, remedy."""
# Words such as null are ids of nobody where one of them has more rows than this, and all of them 1 row in 100.
_ROWS_OF_A_NAME = 3
# How many of the first and last days `Contract.counts` keeps, so that `plausible` can look at them.
LAST_ROWS = 100
_MONTH = 31


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
    breaks (`_tm_rule`); `counts` groups these rows by rule, `ids` selects the ids of all rows that are not filtered,
    `raw_ids` as they stand there, each once, and `id_steps` is the SQL of how they are read.
    `mapped` has the column or expression that the project maps
    to each canonical column, `columns` these as
    SQL, `types` the DuckDB type. `row_key` is the SQL of a hash of the whole row. Equal rows are
    kept if `keep_duplicates`; remedies are in the `language`. Every bad value is shown as its shape if `hide_values`,
    else ids, whole records, the mapped columns in `hidden` and what looks like personal data, unless `show_values`.
    """

    table: str
    view: str
    mapped: dict[str, str]
    types: dict[str, str]
    checked: str
    counts: str
    raw_ids: str
    id_steps: tuple[str, str, str]
    keys: dict[str, str]
    columns: dict[str, str]
    row_key: str
    keep_duplicates: bool
    hide_values: bool = False
    show_values: bool = False
    hidden: frozenset[str] = frozenset()
    language: str = "en"

    @property
    def ids(self) -> str:
        """The SQL of the ids of all rows that are not filtered; they are read once each, not row by row."""
        return _read_ids(self.raw_ids, self.id_steps)

    def value(self, column: str, otherwise: str = "NULL") -> str:
        """Return the SQL of a column's value in `checked`, or of its default where it is not mapped."""
        if column not in self.mapped:
            return otherwise
        return self.keys.get(column, f"_tm_{column}_value")

    def bad_rows(
        self, run: Run, source: Source, counts: dict[str, int], limit: int | None = None, rule: str | None = None
    ) -> Iterator[Bad]:
        """Yield the quarantined rows, ordered by file; at most `limit`, and those of one `rule`."""
        rejected, names = [each for each in source.rejected if rule in {None, each.rule}][:limit], list(RULES)
        for record in rejected:
            yield self._bad(record.rule, record.file, record.line, record.text)
        left = None if limit is None else limit - len(rejected)
        if left == 0 or sum(counts.values()) == len(source.rejected):
            return
        only = f" AND _tm_rule = {names.index(rule) + 1}" if rule else ""
        batches = run(source, f"{self.bad_sql}{only} ORDER BY 1, 2 LIMIT {'ALL' if left is None else left}")
        rows = chain.from_iterable(zip(*batch.to_pydict().values(), strict=True) for batch in batches)
        for file, row, number, value in islice(rows, left):
            yield self._bad(names[number - 1], file, source.line(file, row), value or "")

    def _bad(self, name: str, file: str, place: int, value: str) -> Bad:
        rule = RULES[name]
        shown = masked(value) if self.hides(rule.column, value) else value
        column = self.mapped.get(rule.column, rule.column)
        remedy = remedy_for(name, value, self.columns.get(rule.column, column), self.language)
        remedy = remedy or in_language(self.language, rule.remedy_zh, rule.remedy)
        return file, place, name, rule.code, column, shown, remedy

    def hides(self, column: str, value: str = "") -> bool:
        """Return whether a value of a column (empty: of the whole record) is shown as its shape only."""
        if self.hide_values or self.show_values:
            return self.hide_values
        return column in {"", "customer_id"} | self.hidden or looks_personal(value)

    @property
    def bad_sql(self) -> str:
        """The SQL of the rows that break a rule: file, row number, rule number, value at fault."""
        at_fault = {name: f"_tm_{name}::VARCHAR" for name in self.mapped}
        for kind in ("attribute", "custom"):
            named = (
                f"CASE WHEN _tm_{name}_value = {rules.UNKNOWN} THEN {literal(f'{name[len(kind) + 1 :]} = ')} || "
                f"{at_fault[name]} END"
                for name in self.mapped
                if name.startswith(f"{kind}_")
            )
            at_fault[kind] = f"concat_ws(', ', NULL, {', '.join(named) or 'NULL'})"
        values = " ".join(
            f"WHEN {number} THEN {at_fault[rule.column]}"
            for number, rule in enumerate(RULES.values(), 1)
            if rule.column in at_fault
        )
        return (
            f"SELECT {quoted(FILE)}, {quoted(ROW)}, _tm_rule, left(CASE _tm_rule {values} END, 200) "
            f"FROM ({self.checked}) WHERE _tm_rule NOT IN ({GOOD}, {FILTERED})"
        )


def compile_contract(
    connection: duckdb.DuckDBPyConnection,
    project: Project,
    table: str,
    source: Source,
    words_are_ids: bool = True,
) -> Contract:
    """Return the contract of one of the project's tables over the view of its source rows, which may be empty.

    Raises ProjectError for a mapping that does not fit the columns.
    """
    rows: Rows = getattr(project.data, table)
    key = f"data.{table}"
    texts = mapped_columns(project, table)
    mapped = {name: bind(connection, source, place, text) for name, (place, text) in texts.items()}
    parsed = _parse(project, rows, f"{key}.columns", mapped, words_are_ids)
    left_out = [f"({bind(connection, source, f'{key}.where', rows.where).sql}) IS NOT TRUE"] if rows.where else []
    kept = f" WHERE NOT ({' OR '.join(left_out)})" if left_out else ""
    ids_only = f"SELECT DISTINCT {mapped['customer_id'].sql} AS _tm_customer_id FROM {source.view}{kept}"
    if mapped["customer_id"].type == "VARCHAR":  # a header among the rows is like nobody's id
        is_name = f"lower(trim(_tm_customer_id)) = {literal(mapped['customer_id'].text.strip().lower())}"
        ids_only = f"SELECT * FROM ({ids_only}) WHERE ({is_name}) IS NOT TRUE"
    customer = parsed["customer_id"]
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
        raw_ids=ids_only,
        id_steps=(customer.text, customer.clean, customer.value),
        keys=keys,
        columns={name: expression.inside for name, expression in mapped.items()},
        row_key=source.row_key,
        keep_duplicates=rows.duplicates == "keep",
        hide_values=project.data.hash_ids is not None,
        show_values=shows_values(),
        language=project.language,
    )


_KEYS = ("order_id", "product_id", "category", "channel")


def mapped_columns(project: Project, table: str) -> dict[str, tuple[str, str]]:
    """Return, by canonical column, the key of the project file that maps it, and the column or expression there.

    Attributes that no feature carries are left out. The measures of custom features come last.
    """
    rows: Rows = getattr(project.data, table)
    key = f"data.{table}"
    columns: dict[str, str] = rows.columns.model_dump(exclude_none=True)  # type: ignore[attr-defined]
    mapped = {name: (f"{key}.columns.{name}", text) for name, text in columns.items()}
    if isinstance(rows, Customers):
        for name, text in rows.attributes.items():
            if name in project.features.carried:
                mapped[f"attribute_{name}"] = (f"{key}.attributes.{name}", text)
        for name, text in rows.categories.items():
            mapped[text_column(name)] = (f"{key}.categories.{name}", text)
    for own in project.features.custom:
        if own.measure and own.table == table:
            mapped[custom_column(own.name)] = (f"features.custom.{own.name}", own.measure)
    return mapped


def _parse(
    project: Project, rows: Rows, key: str, mapped: dict[str, Expression], words_are_ids: bool
) -> dict[str, Parsed]:
    date = next(((name, mapped[name]) for name in rules.DATES if name in mapped), None)
    customer = ids.customer(mapped["customer_id"], date, project.data.ids or Ids(), words=words_are_ids)
    parsed = {"customer_id": customer}
    for name, expression in mapped.items():
        if name in rules.DATES:
            parsed[name] = dates.day(name, expression, project.timezone, key)
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
        elif is_custom(name):
            parsed[name] = rules.custom(name, expression)
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
    checks = ["WHEN false THEN 0", *(f"WHEN {test} THEN {FILTERED}" for test in left_out)]
    checks += [f"WHEN {test} THEN {numbers[name]}" for column in parsed.values() for name, test in column.rules]
    case = f"(CASE {' '.join(checks)} ELSE {GOOD} END)::UTINYINT"
    return (
        f"SELECT *, {values}, {case} AS _tm_rule "
        f"FROM (SELECT *, {clean} FROM (SELECT *, {text} FROM (SELECT *, {raw} FROM {source.view})))"
    )


def every_id(contracts: list[Contract]) -> list[str]:
    """Return the SQL of the ids of several tables; what stands in more than one of them is read once."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for contract in contracts:
        alike.setdefault((contract.types["customer_id"], *contract.id_steps), []).append(contract.raw_ids)
    once = {key: f"SELECT DISTINCT * FROM ({' UNION ALL '.join(raw)})" for key, raw in alike.items()}
    return [f"SELECT id FROM ({_read_ids(raw, steps)})" for (_, *steps), raw in once.items()]


def _read_ids(raw: str, steps: Sequence[str]) -> str:
    text, clean, value = steps
    name = "_tm_customer_id"
    read = f"SELECT *, {clean} AS {name}_clean FROM (SELECT *, {text} AS {name}_text FROM ({raw}))"
    return f"SELECT {value} AS id FROM ({read})"


def _counts(checked: str, parsed: dict[str, Parsed], keys: dict[str, str]) -> str:
    """Return the SQL of the number of rows of every rule, their first and last days, and their counters."""
    date = next((name for name in ("time", "due") if name in parsed), None)
    wanted = {"rows": "count(*)"}
    wanted |= (
        {"first": f"min(_tm_{date}_value, {LAST_ROWS})", "last": f"max(_tm_{date}_value, {LAST_ROWS})"} if date else {}
    )
    wanted |= {"arrived": f"max(_tm_ingested_at_value, {LAST_ROWS})"} if "ingested_at" in parsed else {}
    if "currency" in parsed:
        wanted["currencies"] = "list(DISTINCT _tm_currency_value ORDER BY _tm_currency_value)"
    counters = [counter for column in parsed.values() for counter in column.counters]
    if "ingested_at" in parsed:
        counters += [
            ("arrival_unknown", f"_tm_ingested_at_value = {rules.NEVER}"),
            ("arrived_late", f"_tm_ingested_at_value > _tm_time_value + {_MONTH}"),
        ]
    wanted |= {name: f"count(*) FILTER ({test})" for name, test in counters if name != "null_words"}
    wanted |= {name: f"list(DISTINCT {word})" for name, word in counters if name == "null_words"}
    if "amount" in parsed:
        wanted["amount_none"] = "count(*) FILTER (_tm_amount_value IS NULL)"
    if "quantity" in parsed:
        wanted["quantity_most"] = "max(abs(_tm_quantity_clean))"
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
        if words.startswith("Out of Memory Error"):
            raise OutputError(f"the {contract.table} cannot be read within data.memory: {words}; raise it") from error
        raise DataError(f"TM1101 the {contract.table} cannot be read to the end: {words}") from error
    return groups


def _merged(name: str, one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if name in {"first", "last", "arrived"}:
        return sorted([*one, *other], reverse=name != "first")[:LAST_ROWS]
    if name in {"currencies", "null_words"}:
        return sorted({*one, *other})
    if name == "quantity_most":
        return max(one, other)
    return one if name == "_tm_rule" else one + other


def check_rows(
    connection: duckdb.DuckDBPyConnection, run: Run, project: Project, table: str, source: Source
) -> tuple[Contract, Groups]:
    """Return a table's contract and its counts by rule: one pass, two where words such as null are nobody's ids."""
    contract = compile_contract(connection, project, table, source)
    groups = scan(run, contract, source)
    if _nobodys_words(groups.get(GOOD, {})):
        contract = compile_contract(connection, project, table, source, words_are_ids=False)
        groups = scan(run, contract, source)
    return replace(contract, hidden=_personal(connection, contract, source, groups)), groups


def _personal(
    connection: duckdb.DuckDBPyConnection, contract: Contract, source: Source, groups: Groups
) -> frozenset[str]:
    """Return the mapped columns with bad values whose source columns look like personal data."""
    names = list(RULES)
    broken = {RULES[names[rule - 1]].column for rule in groups if rule not in {GOOD, FILTERED}} - {"", "customer_id"}
    mapped = {name: text for name, text in contract.mapped.items() if _column_of_rules(name) in broken}
    if not mapped or contract.hide_values or contract.show_values:
        return frozenset()
    only = [each for each in source.columns if any(names_column(text, each) for text in mapped.values())]
    rows = sum(group["rows"] for group in groups.values())
    found = find_personal(connection, source, rows, contract.mapped["customer_id"], only)
    named = {name for name, text in mapped.items() if any(names_column(text, one.column) for one in found)}
    return frozenset(map(_column_of_rules, named))


def _column_of_rules(name: str) -> str:
    """Return the column by which the rules call a mapped column: all attributes have one, and all own measures."""
    return next((kind for kind in ("attribute", "custom") if name.startswith(f"{kind}_")), name)


def _nobodys_words(good: dict[str, Any]) -> bool:
    """Return whether ids such as null or NA have so many rows that they are nobody's."""
    rows, words = good.get("ids_null_words", 0), len(good.get("null_words") or ())
    return rows * 100 > good.get("rows", 0) and rows > _ROWS_OF_A_NAME * words
