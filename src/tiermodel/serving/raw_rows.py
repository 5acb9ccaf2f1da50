"""The rows of a request under the project's contract, by the SQL of the batch as a prepared statement.

The statement depends on the columns of the request and on their types alone: it is made once for each such form, since
to make it takes ten times as long as to run it. What only a whole table can tell is not judged here: the share of bad
rows, ids that look alike, times with and without an offset beside each other, the last plausible day.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.engines.duckdb import sort_keys
from tiermodel.errors import ProjectError
from tiermodel.serving.faults import RequestError
from tiermodel.tables.consent import objections, refusals
from tiermodel.tables.contract import FILTERED, GOOD, Contract, compile_contract, mapped_columns
from tiermodel.tables.expressions import nodes
from tiermodel.tables.history import columns_of, connect, emitted
from tiermodel.tables.rules import RULES
from tiermodel.tables.source import FILE, ROW, Source, literal, quoted
from tiermodel.tables.table import TABLES

__all__ = ["NOTHING", "Columns", "RawRows", "Read"]

NOTHING = "NULL"
"""The type of a column without a value."""
_MOST_FORMS = 64
_ANY = ("VARCHAR", "BIGINT", "DOUBLE")  # what a column without a value is tried as, since a mapping may ask for one
_NAMES = list(RULES)
_CURRENCY = "_currency"


class Columns(NamedTuple):
    """The rows of one table of a request, by column: DuckDB's type, and the values, all of that type or None."""

    types: dict[str, str]
    values: dict[str, list[Any]]
    size: int


Form = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
"""Which tables a request has, and the names and types of their columns."""


@dataclass(frozen=True)
class Read:
    """The rows of a request, checked.

    `rows` are the good ones as `engines.duckdb.sorted_rows` yields them; `customers` are the ids in them, each once, in
    that order. `quarantined` has table, position in the request, rule, code, column and remedy of the bad ones.
    `counts` are the rows read, filtered and quarantined by table. `objectors` asked for no automated decision.
    """

    rows: pa.Table
    customers: pa.Array
    quarantined: list[dict[str, Any]]
    counts: dict[str, dict[str, int]]
    objectors: pa.Array


@dataclass(frozen=True)
class _Statement:
    name: str
    layout: tuple[str, ...]
    contracts: dict[str, Contract]


class RawRows:
    """The tables of a project, ready for the rows of requests; for one thread at a time.

    `columns` has the names of the columns that the project reads, in lower case, by table.
    """

    def __init__(self, project: Project) -> None:
        """Look up which columns of the user's own tables the project reads."""
        self._project = project
        self.tables = tuple(name for name in TABLES if getattr(project.data, name) is not None)
        self._mapped = {name: mapped_columns(project, name) for name in self.tables}
        self._connection = connect(project)
        self._connection.execute("SET threads = 1")
        self._connection.execute("SET enable_external_access = false")
        self._needed = {name: dict(self._columns_needed(name)) for name in self.tables}
        self.columns = {name: frozenset[str]().union(*found.values()) for name, found in self._needed.items()}
        self._statements: OrderedDict[Form, _Statement] = OrderedDict()
        self._seen: dict[tuple[str, str], str] = {}
        self._made = 0

    def _columns_needed(self, table: str) -> Iterator[tuple[str, frozenset[str]]]:
        """Yield the expressions over a table, and the columns that each of them names, in lower case."""
        where = getattr(self._project.data, table).where
        for text in [*(text for _, text in self._mapped[table].values()), *([where] if where else [])]:
            parsed = json.loads(self._one("SELECT json_serialize_sql(?)", [f"SELECT ({text}\n)"]))
            named = [node["column_names"][-1] for node in nodes(parsed) if node.get("class") == "COLUMN_REF"]
            yield text, frozenset(name.casefold() for name in ([text] if parsed["error"] else named))

    def _one(self, sql: str, parameters: list[Any] | None = None) -> Any:
        return self._connection.execute(sql, parameters).fetchall()[0][0]

    def read(self, tables: Mapping[str, Columns]) -> Read:
        """Return the rows of a request, each good, filtered or quarantined.

        Raises `RequestError` where a column is missing or of a type that its mapping cannot take.
        """
        given = {name: tables[name] for name in self.tables if name in tables and tables[name].size}
        form = tuple((name, tuple(sorted(self._typed(name, given[name].types)))) for name in given)
        statement = self._statements.get(form) or self._prepared(form)
        self._statements[form] = statement
        self._statements.move_to_end(form)
        if len(self._statements) > _MOST_FORMS:
            _, oldest = self._statements.popitem(last=False)
            self._connection.execute(f"DEALLOCATE {oldest.name}")
        values = [
            json.dumps({f"c{n}": given[name].values[column] for n, (column, _) in enumerate(columns)})
            for name, columns in form
        ]
        try:
            found = self._connection.sql(f"EXECUTE {statement.name}({', '.join(map(literal, values))})")
            table = found.to_arrow_table()
        except duckdb.OutOfMemoryException:
            raise RequestError(503, "the rows need more memory than data.memory; send fewer at once") from None
        except duckdb.Error:
            raise RequestError(422, "the rows cannot be read under the project's mapping") from None
        return self._judged(statement, table, {name: given[name].size if name in given else 0 for name in self.tables})

    def _typed(self, table: str, types: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Yield the columns with their types; one without a value has the type of the last request that had values.

        No value depends on that, and there are fewer forms.
        """
        for name, kind in types.items():
            if kind != NOTHING:
                if name.casefold() in self.columns[table]:
                    self._seen[table, name] = kind
                yield name, kind
            else:
                yield name, self._seen.get((table, name), NOTHING)

    def _judged(self, statement: _Statement, table: pa.Table, counts: dict[str, int]) -> Read:
        rule, place, number = (table.column(name).to_numpy() for name in ("_rule", "_place", "_table"))
        good = table.filter(pa.array(rule == GOOD)).combine_chunks()
        if _CURRENCY in table.column_names and len(pc.unique(good.column(_CURRENCY)).drop_null()) > 1:
            key = f"transactions.{self._mapped['transactions']['currency'][1]}"
            raise RequestError(422, "TM2052 amounts in several currencies have no sum; convert them to one", key)
        own = place > 0  # of the several rows that one of an invoice becomes, the first alone counts
        accounts, bad = {}, []
        for n, name in enumerate(self.tables):
            here = own & (number == n)
            filtered, broken = here & (rule == FILTERED), here & (rule != FILTERED) & (rule != GOOD)
            accounts[name] = {"read": counts[name], "filtered": int(filtered.sum()), "quarantined": int(broken.sum())}
            at = np.flatnonzero(broken)
            bad += [self._bad(statement, name, int(rule[i]), int(place[i])) for i in at[np.argsort(place[at])]]
        ids = good.column("customer_id").chunk(0) if good.num_rows else pa.array([], table.schema.field(0).type)
        asked = good.filter(good.column("_asked")).column("customer_id").unique()
        return Read(good.select(list(statement.layout)), pc.unique(ids), bad, accounts, asked.cast(pa.string()))

    def _bad(self, statement: _Statement, table: str, rule: int, place: int) -> dict[str, Any]:
        """Return a bad row without its values: the remedy is that of the rule, not one that quotes the value."""
        broken = RULES[_NAMES[rule - 1]]
        column = statement.contracts[table].mapped.get(broken.column, broken.column)
        found = {"table": table, "row": place - 1, "rule": broken.name, "code": broken.code, "column": column}
        return {**found, "remedy": broken.remedy}

    def _prepared(self, form: Form) -> _Statement:
        """Return the statement for a form; columns without a value get a type that the mappings can take."""
        for table, columns in form:
            self._refuse_missing(table, {name.casefold() for name, _ in columns})
        empty = [(table, name) for table, columns in form for name, kind in columns if kind == NOTHING]
        tries: list[tuple[str, ...]] = [(kind,) * len(empty) for kind in _ANY]
        tries += product(_ANY, repeat=len(empty)) if 1 < len(empty) <= 3 else []
        for kinds in tries:
            types = dict(zip(empty, kinds, strict=True))
            known = {t: {c: types.get((t, c), kind) for c, kind in columns} for t, columns in form}
            try:
                return self._compiled(known)
            except ProjectError as error:
                fault = str(error)
            if not empty:
                break
        code, _, rest = fault.partition(" ") if fault.startswith("TM") else ("", "", fault)
        place = rest.partition(":")[0]
        words = f"{code} the columns that {place} reads have types that it cannot take; send text, or numbers"
        raise RequestError(422, words.strip(), place.removeprefix("data.").partition(".")[0])

    def _refuse_missing(self, table: str, columns: Collection[str]) -> None:
        missing = set[str]()
        for text, named in self._needed[table].items():
            if text.casefold() not in columns:
                missing |= named - set(columns)
        if missing:
            words = f"the rows of {table} lack {', '.join(sorted(missing))}; give null where there is no value"
            raise RequestError(422, words, f"{table}.{min(missing)}")

    def _compiled(self, known: dict[str, dict[str, str]]) -> _Statement:
        contracts, sources, id_types = dict[str, Contract](), list[str](), set[str]()
        for number, (table, types) in enumerate(known.items(), 1):
            view = f"{table}_source"
            empty = ", ".join(f"NULL::{kind} AS {quoted(name)}" for name, kind in types.items())
            place = f"'' AS {FILE}, 0::BIGINT AS {ROW}"
            self._connection.execute(f"CREATE OR REPLACE VIEW {view} AS SELECT {empty}, {place} WHERE false")
            source = Source(view, types, ("request",))
            contract = compile_contract(self._connection, self._project, table, source)
            shape = json.dumps({f"c{n}": [kind] for n, kind in enumerate(types.values())})
            lists = ", ".join(f"unnest(s.c{n}) AS {quoted(name)}" for n, name in enumerate(types))
            # a parameter of another type than VARCHAR would be planned again each time
            parsed = f"SELECT from_json(${number}::VARCHAR, {literal(shape)}) AS s"
            rows = f"SELECT {lists}, '' AS {FILE}, generate_subscripts(s.c0, 1) AS {ROW} FROM ({parsed})"
            sources += [f"{view} AS MATERIALIZED ({rows})", f"{table}_checked AS MATERIALIZED ({contract.checked})"]
            id_types.add(self._one(f"SELECT typeof(any_value(_tm_customer_id_value)) FROM ({contract.checked})"))
            contracts[table] = replace(contract, checked=f"FROM {table}_checked")  # the rules are tried once
        id_type = id_types.pop() if len(id_types) == 1 else "VARCHAR"
        keep = self._project.data.transactions.duplicates == "keep"
        layout = columns_of(self._mapped, id_type, keep_duplicates=keep)
        sources += self._lists_of_customers(contracts, id_type)
        select = " UNION ALL ".join(self._selects(contracts, layout))
        keys = ", ".join(sort_keys(layout))
        self._made += 1
        name = f"form_{self._made}"
        sql = f"WITH {', '.join(sources)} SELECT * FROM ({select}) ORDER BY {keys}"
        try:
            self._connection.execute(f"PREPARE {name} AS {sql}")
        except duckdb.Error as error:
            raise ProjectError(f"data: {error}") from None
        return _Statement(name, tuple(layout), contracts)

    def _selects(self, contracts: dict[str, Contract], layout: dict[str, str]) -> Iterator[str]:
        """Yield the SELECTs of all rows of the stream, and of bad rows, with what is to be told of each."""
        refused, asked = self._decisions(contracts, layout["customer_id"])
        priced = "currency" in self._mapped["transactions"] and self._project.currency is None
        for table, contract in contracts.items():
            rule = f"CASE WHEN _tm_rule = {GOOD} AND {refused} THEN {FILTERED}::UTINYINT ELSE _tm_rule END"
            made = emitted(contract, layout["customer_id"], several=len(self.tables) > 1)
            for n, (values, condition) in enumerate(made):
                columns = [f"{values.get(name, default)} AS {name}" for name, default in layout.items()]
                columns += [f"{rule} AS _rule", f"{ROW if n == 0 else 0}::BIGINT AS _place", f"{asked} AS _asked"]
                columns.append(f"{self.tables.index(table)} AS _table")
                if priced:
                    sold = table == "transactions"
                    columns.append(f"{'_tm_currency_value' if sold else 'NULL::VARCHAR'} AS {_CURRENCY}")
                when = f"(_tm_rule = {GOOD} AND {condition})" if n else f"(_tm_rule <> {GOOD} OR {condition})"
                yield f"SELECT {', '.join(columns)} FROM ({contract.checked}) WHERE {when}"

    def _lists_of_customers(self, contracts: dict[str, Contract], id_type: str) -> Iterator[str]:
        """Yield the lists of customers by whether they refused, and whether they want no automated decision."""
        mapped = self._mapped.get("customers", {})
        if "customers" in contracts and {"consent", "opt_out"} & set(mapped):
            yield f"answers AS MATERIALIZED ({refusals(contracts['customers'], id_type)})"
        if "customers" in contracts and "no_automated_decision" in mapped:
            yield f"objections AS MATERIALIZED ({objections(contracts['customers'], id_type)})"

    def _decisions(self, contracts: dict[str, Contract], id_type: str) -> tuple[str, str]:
        """Return the SQL of whether a row's customer refused, and of whether they want no automated decision."""
        mapped, one = self._mapped.get("customers", {}), f"_tm_customer_id_value::{id_type}"
        if "customers" not in contracts:  # no row is no consent
            return "true" if "consent" in mapped else "false", "false"
        refused = asked = "false"
        if "consent" in mapped:
            refused = f"coalesce({one} NOT IN (SELECT customer_id FROM answers WHERE NOT refused), false)"
        elif "opt_out" in mapped:
            refused = f"coalesce({one} IN (SELECT customer_id FROM answers WHERE refused), false)"
        if "no_automated_decision" in mapped:
            asked = f"coalesce({one} IN (SELECT customer_id FROM objections WHERE refused), false)"
        return refused, asked
