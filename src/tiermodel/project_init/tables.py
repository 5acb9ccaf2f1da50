"""Which of the given files is which table, and the section `data` of a project file made of them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tiermodel.errors import ProjectError
from tiermodel.project_init.evidence import Column, columns_of, days_sql, inside
from tiermodel.project_init.headers import directory, is_chinese, plain
from tiermodel.project_init.mapping import LINES, mapped, split_query, zone_of
from tiermodel.project_init.mapping import Mapping as Mapped
from tiermodel.project_init.notes import Note
from tiermodel.project_init.roles import Roles, by_values, kinds_of, roles_of
from tiermodel.project_init.sample import Sample
from tiermodel.tables.source import quoted

__all__ = ["Plan", "plan_of"]

_MEET = 0.2  # of the customers of a table, who must be among those of the transactions
_UNIQUE = 0.98


@dataclass
class _Table:
    sample: Sample
    columns: dict[str, Column]
    roles: Roles

    @property
    def name(self) -> str:
        return self.sample.given.name

    @property
    def use(self) -> str:
        """What the table is: transactions, events, invoices, customers, lines or products; empty where nothing."""
        roles = self.roles
        if {"customer_id", "time", "kind"} <= roles.columns.keys() and not {
            "order_id",
            "direction",
        } & roles.columns.keys():
            return "events"
        if roles.has_customer and roles.has_money:
            return "transactions"
        if {"customer_id", "due"} <= roles.columns.keys() and self.roles.has_money:
            return "invoices"
        return self._other_use

    @property
    def _other_use(self) -> str:
        roles = self.roles
        customer, product = roles.get("customer_id"), roles.get("product_id")
        if "order_id" in roles and (product is not None or self.roles.has_money):
            return "lines"
        if customer is not None and customer.distinct >= _UNIQUE * max(len(customer.values), 1):
            return "customers"
        if product is not None and product.distinct >= _UNIQUE * len(product.values) and "category" in roles:
            return "products"
        return ""


@dataclass
class Plan:
    """What the given files mean: the section `data`, what else the values tell, and what was assumed.

    `other` has, by column of the transactions, other columns that are equally plausible.
    """

    data: dict[str, Any]
    other: dict[str, list[str]]
    notes: list[Note] = field(default_factory=list)
    currency: str = ""
    timezone: str = ""
    chinese: bool = False
    kind: str = "id"


def plan_of(samples: Sequence[Sample], wanted: Mapping[str, str], folder: Path) -> Plan:
    """Return what the samples mean; `wanted` has the columns that the user named, by role.

    Paths are written relative to `folder`. Raises ProjectError where no table has a customer, a day and an amount.
    """
    tables = [_Table(sample, found := columns_of(sample), roles_of(found, wanted)) for sample in samples]
    main = _transactions(tables, wanted)
    lines = _lines_of(main, tables)
    roles = main.roles
    made = mapped(roles, main.sample.rows.num_rows)
    made.columns |= {role: text for role, text in wanted.items() if text not in main.columns}
    data: dict[str, Any] = {"transactions": _rows(main, made, folder)}
    plan = Plan(data, made.other, chinese=is_chinese(main.columns), kind=roles.kind)
    plan.notes += [*_found(main, made), *made.notes]
    _money_and_place(main, made, plan)
    _same_file(main, made, data, plan.notes)
    if lines is not None:
        _join_lines(main, lines, data, plan.notes, folder)
    for table in tables:
        if table is not main and table is not lines:
            _beside(table, main, data, plan.notes, folder)
    if made.where:
        data["transactions"]["where"] = " AND ".join(made.where)
    if roles.kind == "email":
        data["ids"] = {"case": "fold", "invisible": "strip"}
    return plan


def _transactions(tables: list[_Table], wanted: Mapping[str, str]) -> _Table:
    found = [table for table in tables if table.use == "transactions"]
    if not found:
        for table in tables:
            if table.use in {"", "lines", "customers"}:
                by_values(table.columns, table.roles)
        found = [table for table in tables if table.use == "transactions"]
    if not found and any(text not in table.columns for table in tables for text in wanted.values()):
        found = [table for table in tables if _completed(table, wanted)]
    if not found:
        raise ProjectError(_missing(tables))
    return max(found, key=lambda table: ("due" not in table.roles or len(found) == 1, table.sample.rows.num_rows))


def _completed(table: _Table, wanted: Mapping[str, str]) -> bool:
    """Return whether a table lacks only what the user gave as an expression; refuse one over no column of it."""
    roles = table.roles.columns
    for role, text in wanted.items():
        if role not in roles and (inner := [c for c in table.columns.values() if c.name in text]):
            roles[role] = inner[0]
    return {"customer_id", "time"} <= roles.keys() and table.roles.has_money


def _missing(tables: list[_Table]) -> str:
    """Return the message of files without customer, day or amount: the columns seen, and the options that name them."""
    lines = []
    for table in tables:
        roles = table.roles
        lacks = [role for role in ("customer_id", "time") if role not in roles] + ["amount"] * (
            not table.roles.has_money
        )
        words = {"customer_id": "customer", "time": "time", "amount": "amount"}
        names = ", ".join(table.columns)
        lines.append(f"{table.name}: no column is plainly {' or '.join(words[one] for one in lacks)}; columns: {names}")
    example = " ".join(f"--{role} COLUMN" for role in ("customer", "time", "amount"))
    return "\n".join([*lines, f"name the columns yourself: tiermodel init FILE {example}"])


def _paths(table: _Table, folder: Path) -> str | list[str] | dict[str, str]:
    found = [_relative(path, folder) for path in table.sample.given.paths]
    if names := table.sample.given.names:
        return dict(zip(names, found, strict=True))
    return found[0] if len(found) == 1 else found


def _relative(path: str, folder: Path) -> str:
    """Return a path as the project file has it: relative to its folder, unless it was given as absolute."""
    scheme, place = ("sqlite:///", path.removeprefix("sqlite:///")) if path.startswith("sqlite:///") else ("", path)
    if "://" in place or Path(place).is_absolute():
        return path
    return scheme + os.path.relpath(place, folder)


def _rows(table: _Table, made: Mapped, folder: Path) -> dict[str, Any]:
    """Return where the rows of the transactions are, and their columns."""
    given, rows = table.sample.given, dict[str, Any]()
    order = table.roles.get("order_id")
    if made.split and order is not None:
        if given.query:
            name = quoted(given.name)
            source = name if given.query == f"SELECT * FROM {name}" else f"({given.query}) AS joined"
            split = split_query(source, order.name, at_database=True)
            rows |= {"path": _paths(table, folder), "query": split}
        else:
            names = [f"rows_{n}" for n in range(len(given.paths))] if len(given.paths) > 1 else ["orders"]
            union = " UNION ALL BY NAME ".join(f"SELECT * FROM {name}" for name in names)
            source = names[0] if len(names) == 1 else f"({union}) AS orders"
            rows |= {"path": {n: _relative(p, folder) for n, p in zip(names, given.paths, strict=True)}}
            rows["query"] = split_query(source, order.name)
    else:
        rows["path"] = _paths(table, folder)
        if given.query:
            rows["query"] = given.query
    if table.sample.encoding != "utf-8":
        rows["encoding"] = table.sample.encoding
    return {**rows, "columns": made.columns}


def _found(main: _Table, made: Mapped) -> Iterator[Note]:
    """Yield what the transactions are read from, and which column is what."""
    if main.roles.layout:
        yield Note("layout", {"layout": main.roles.layout})
    if main.sample.encoding != "utf-8":
        yield Note("encoding", {"encoding": main.sample.encoding})
    for role in ("customer_id", "time", "amount", "order_id"):
        column = main.roles.get(role)
        if role not in made.columns or column is None:
            continue
        guessed = "guessed" if role in main.roles.guessed else "column"
        yield Note(guessed, {"role": f"@init_role_{role}", "column": column.name})
        if role == "customer_id" and main.roles.kind in {"email", "phone", "name"}:
            yield Note("personal", {"kind": f"@init_kind_{main.roles.kind}", "column": column.name})
        if others := made.other.get(role):
            yield Note("doubt", {"role": f"@init_role_{role}", "column": column.name, "others": ", ".join(others)})
    if (marketing := main.roles.get("marketing")) is not None:
        yield Note("marketing", {"column": marketing.name})


def _money_and_place(main: _Table, made: Mapped, plan: Plan) -> None:
    """Find the currency and the time zone, and leave out rows of other currencies."""
    column, amount = main.roles.get("currency"), main.roles.get("amount") or main.roles.get("price")
    if column is not None:
        counts = Counter(value.upper() for value in column.values)
        plan.currency = counts.most_common(1)[0][0]
        made.columns["currency"] = column.name
        if len(counts) > 1:
            made.where.append(f"upper(trim({column.sql})) = '{plan.currency}'")
            others = ", ".join(sorted(set(counts) - {plan.currency}))
            plan.notes.append(Note("currencies", {"currency": plan.currency, "others": others}))
    elif amount is not None and amount.number is not None and amount.number.sign:
        plan.currency = amount.number.sign
    elif plan.chinese:
        plan.currency = "CNY"
    if plan.currency:
        plan.notes.append(Note("currency", {"currency": plan.currency}))
    plan.timezone = zone_of(main.roles.columns["time"], chinese=plan.chinese)
    plan.notes.append(Note("zone", {"zone": plan.timezone}))


def _same_file(main: _Table, made: Mapped, data: dict[str, Any], notes: list[Note]) -> None:
    """Read invoices and consent from the transactions' own file, where it has their columns."""
    where = {key: value for key, value in data["transactions"].items() if key in {"path", "query", "encoding"}}
    roles = main.roles
    if (due := roles.get("due")) is not None and not made.split:
        columns = {key: made.columns[key] for key in ("customer_id", "amount")}
        columns |= {"due": days_sql(due), "issued": made.columns["time"]}
        if (paid := roles.get("paid")) is not None and paid is not roles.get("time"):
            columns["paid"] = days_sql(paid)
        data["invoices"] = {**where, "columns": columns}
        notes.append(Note("invoices", {"column": due.name}))
    flags = {role: column.name for role in ("consent", "opt_out") if (column := roles.get(role)) is not None}
    if flags and not made.split:
        columns = {"customer_id": made.columns["customer_id"], "valid_from": made.columns["time"], **flags}
        data["customers"] = {**where, "columns": columns}
        notes.append(Note("consent", {"column": ", ".join(flags.values())}))


def _lines_of(main: _Table, tables: list[_Table]) -> _Table | None:
    """Return the table with the lines of the transactions' orders, if there is one."""
    order = main.roles.get("order_id")
    if order is None or order.distinct < len(order.values):
        return None
    for table in tables:
        lines = table.roles.get("order_id")
        if table is not main and table.use == "lines" and lines is not None and _meet(lines, order) >= _MEET:
            return table
    return None


def _meet(column: Column, other: Column) -> float:
    """Return the share of the distinct values of a column that the other has, by size of the smaller one."""
    mine, theirs = set(column.values), set(other.values)
    return len(mine & theirs) / max(min(len(mine), len(theirs)), 1)


def _join_lines(main: _Table, lines: _Table, data: dict[str, Any], notes: list[Note], folder: Path) -> None:
    """Let the transactions be the lines of the orders, joined to them by the order; their total is split evenly."""
    order, key = main.roles.columns["order_id"], lines.roles.columns["order_id"]
    if main.sample.given.query or main.sample.encoding != lines.sample.encoding or len(main.sample.given.paths) > 1:
        notes.append(Note("unused", {"name": lines.name}))
        return
    rows = data["transactions"]
    products = {
        role: lines.roles.columns[role] for role in ("product_id", "category", "quantity") if role in lines.roles
    }
    taken = {role: f"line_{role}" for role in products}
    listed = "".join(f", lines.{quoted(products[role].name)} AS {name}" for role, name in taken.items())
    count = f"count(DISTINCT hash(orders, lines)) OVER (PARTITION BY orders.{quoted(order.name)}) AS {LINES}"
    rows["path"] = {
        "orders": _relative(main.sample.given.paths[0], folder),
        "lines": _relative(lines.sample.given.paths[0], folder),
    }
    rows["query"] = (
        f"SELECT orders.*{listed}, {count} FROM orders LEFT JOIN lines "
        f"ON trim(orders.{quoted(order.name)}::VARCHAR) = trim(lines.{quoted(key.name)}::VARCHAR)"
    )
    amount = rows["columns"]["amount"]
    sql = inside(amount) if amount in main.columns else f"({amount})"
    rows["columns"] |= {"amount": f"{sql} / {LINES}", **taken}
    notes.append(Note("lines", {"name": lines.name, "order": order.name}))


def _beside(table: _Table, main: _Table, data: dict[str, Any], notes: list[Note], folder: Path) -> None:
    """Add a table of events, invoices or customers, joined by the customers' ids, or say that it is not used."""
    customers, use = main.roles.columns["customer_id"], table.use
    if use == "transactions":
        use = "invoices" if "due" in table.roles else "costs" if _is_of_costs(table.name) else use
    key = _key_of(table, customers)
    columns = {"customer_id": key.name} if key is not None else {}
    rows: dict[str, Any] = {"path": _paths(table, folder)}
    rows |= {"query": table.sample.given.query} if table.sample.given.query else {}
    rows |= {"encoding": table.sample.encoding} if table.sample.encoding != "utf-8" else {}
    roles = table.roles
    if key is not None and use == "events":
        kinds = kinds_of(roles.columns["kind"])
        columns |= {"time": days_sql(roles.columns["time"]), "kind": roles.columns["kind"].name}
        columns |= {"value": roles.columns["value"].name} if "value" in roles else {}
        data["events"] = {**rows, "columns": columns, "kinds": kinds}
    elif key is not None and use in {"invoices", "costs"}:
        if "time" not in roles:
            roles.columns["time"] = roles.get("issued") or roles.columns["due"]
        made = mapped(roles, table.sample.rows.num_rows).columns
        days = {role: days_sql(column) for role in ("due", "paid") if (column := roles.get(role)) is not None}
        days |= {"issued": made["time"]} if roles.columns["time"] is not roles.get("due") else {}
        columns |= {"amount": made["amount"], **(days if use == "invoices" else {"time": made["time"]})}
        data[use] = {**rows, "columns": columns}
    elif key is not None and use == "customers":
        columns |= {role: days_sql(roles.columns["signup"]) for role in ("signup",) if role in roles}
        columns |= {role: roles.columns[role].name for role in ("consent", "opt_out") if role in roles}
        data["customers"] = {**rows, "columns": columns}
    else:
        notes.append(Note("unused", {"name": table.name}))
        return
    notes.append(Note("beside", {"name": table.name, "use": f"@init_use_{use}", "column": columns["customer_id"]}))


def _is_of_costs(name: str) -> bool:
    return any(plain(word) in plain(name) for word in directory()["cost_files"])


def _key_of(table: _Table, customers: Column) -> Column | None:
    """Return the column of a table whose values are most often customers of the transactions."""
    found = [
        (_meet(column, customers), column.name, column) for column in table.columns.values() if column.distinct > 1
    ]
    named = table.roles.get("customer_id")
    if named is not None and _meet(named, customers) >= _MEET:
        return named
    best = max(found, default=None, key=lambda one: one[:2])
    return best[2] if best is not None and best[0] >= _MEET else None
