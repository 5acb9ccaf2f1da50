"""Orders whose money stands on their lines, in a table of its own: the query that joins both, and a sample of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tiermodel.project_init.evidence import Column, columns_of
from tiermodel.project_init.notes import Note
from tiermodel.project_init.roles import Roles, roles_of
from tiermodel.project_init.sample import Given, Sample
from tiermodel.tables.source import quoted

__all__ = ["with_heads"]

_MEET = 0.2  # of the orders on the lines, whose heads must be in the sample


@dataclass(frozen=True)
class _Table:
    sample: Sample
    columns: dict[str, Column]
    roles: Roles


def with_heads(samples: Sequence[Sample], wanted: Mapping[str, str]) -> tuple[list[Sample], list[Note]]:
    """Return the samples with orders and their lines as one table, where no table has customer, day and money.

    Two tables are joined if one has the customers and days, the other the money, and a column of the lines, by its name
    that of the order, holds what is unique in the orders. Lines without an order stay; the check then tells them.
    """
    tables = [_Table(one, found := columns_of(one), roles_of(found, wanted)) for one in samples]
    if any(table.roles.has_customer and table.roles.has_money for table in tables):
        return list(samples), []
    for lines in tables:
        for head in tables:
            key = _key(lines, head) if lines.roles.has_money and head.roles.has_customer else None
            if key is not None:
                made = _joined(lines, head, *key)
                rest = [one for one in samples if one is not lines.sample and one is not head.sample]
                values = {"name": lines.sample.given.name, "head": head.sample.given.name, "key": key[0].name}
                return [made, *rest], [Note("joined", values)]
    return list(samples), []


def _key(lines: _Table, head: _Table) -> tuple[Column, Column] | None:
    """Return the column of the lines that names their order, and that of the orders; None where they do not belong."""
    one, other = lines.sample, head.sample
    stores = [sample.given.paths[0] if sample.given.query else "" for sample in (one, other)]
    if stores[0] != stores[1] or one.encoding != other.encoding or max(len(s.given.paths) for s in (one, other)) > 1:
        return None
    unique = [c for c in head.columns.values() if c.values and c.distinct == len(c.cells)]
    known = {column.name.casefold(): column for column in unique}
    order = lines.roles.get("order_id")
    pairs = [(column, known[name]) for name, column in _named(lines) if name in known]
    pairs += [(order, column) for column in unique] if order is not None else []
    for mine, theirs in pairs:
        orders = set(mine.values)
        if len(orders & set(theirs.values)) >= _MEET * max(len(orders), 1):
            return mine, theirs
    return None


def _named(lines: _Table) -> list[tuple[str, Column]]:
    """Return the columns of the lines by name in small letters, without products and without numbers of the line."""
    left = {column.name for role, column in lines.roles.columns.items() if role != "order_id"}
    repeated = [c for c in lines.columns.values() if c.name not in left and c.distinct < len(c.values)]
    order = lines.roles.get("order_id")
    return [(c.name.casefold(), c) for c in ([order] if order is not None else []) + repeated]


def _joined(lines: _Table, head: _Table, mine: Column, theirs: Column) -> Sample:
    """Return the lines with the columns of their orders that have other names."""
    one, other = lines.sample, head.sample
    places = {cell: place for place, cell in enumerate(theirs.cells)}
    pairs = [(row, places[cell]) for row, cell in enumerate(mine.cells) if cell in places]
    rows, heads = one.rows.take([row for row, _ in pairs]), other.rows.take([place for _, place in pairs])
    seen = {name.casefold() for name in one.columns}
    more = {name: kind for name, kind in other.columns.items() if name.casefold() not in seen}
    for name in more:
        rows = rows.append_column(name, heads.column(name))
    database = bool(one.given.query)
    tables = [quoted(s.given.name) + f" AS {n}" if database else n for s, n in ((one, "lines"), (other, "orders"))]
    sides = [f"lines.{quoted(mine.name)}", f"orders.{quoted(theirs.name)}"]
    if not database:
        sides = [f"trim({side}::VARCHAR)" for side in sides]
    elif mine.type != theirs.type:
        sides = [f"CAST({side} AS VARCHAR)" for side in sides]
    listed = "".join(f", orders.{quoted(name)}" for name in more)
    query = f"SELECT lines.*{listed} FROM {tables[0]} LEFT JOIN {tables[1]} ON {sides[0]} = {sides[1]}"
    paths = one.given.paths if database else (*one.given.paths, *other.given.paths)
    given = Given(paths, query, one.given.name, () if database else ("lines", "orders"))
    personal = (*one.personal, *(found for found in other.personal if found.column in more))
    whole, some = one.whole and other.whole, one.places or other.places
    return Sample(given, {**one.columns, **more}, rows, one.encoding, whole, some, personal, ())
