"""Numbers in another unit than the others: months or files whose amounts are cents, quantities beyond reason."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tiermodel.tables.contract import GOOD, Contract
from tiermodel.tables.source import FILE, ROW, Run, Source, quoted
from tiermodel.tables.table import Table
from tiermodel.words import words

__all__ = ["unit_words"]

# Of a long table every so many-th row is looked at: medians and high quantiles need no more, and reading stays quick.
_SAMPLED = 250_000
_FEWEST = 20  # rows of a month or file, so that its median means something
_STEPS = 8  # of the logarithm: medians are right within 7 %
_JUMPS = (100, 1_000, 10_000)  # cents, thousandths, and tens of thousands (万), beside whole units
_NEAR, _APART = 2, 30  # a jump's factor, give or take, and how far all quartiles lie apart
_VAST, _LARGE, _TIMES, _RARE = 1_000_000, 10_000, 1_000, 0.999
_MOST_FILES, _SHOWN = 1_000, 6


def unit_words(run: Run, table: Table, good: dict[str, Any]) -> Iterator[str]:
    """Yield warnings of the transactions' numbers that seem to be in another unit than the others, with figures.

    `good` has the counts of the good rows.
    """
    contract, source = table.contract, table.source
    by_file = 1 < len(source.files) <= _MOST_FILES
    found = list(_histograms(run, table, good, by_file=by_file))
    yield from _quantity_words(run, contract, source, good, found)
    for what in ("month", "file")[: 1 + by_file]:
        if jump := _jump(_by(what, found)):
            yield _told(what, jump, contract)
            return


def _histograms(run: Run, table: Table, good: dict[str, Any], *, by_file: bool) -> Iterator[dict[str, Any]]:
    """Yield the numbers of good rows by the logarithm of amount or quantity; of a long table, of every so many-th row.

    Those of amounts (`size`) are by month and file, those of quantities (`quantity`) of all rows.
    """
    every = max(1, good["rows"] // _SAMPLED)
    large = float(good.get("quantity_most") or 0) >= _LARGE
    day = "DATE '1970-01-01' + _tm_time_value"
    values = {
        "month": f"year({day}) * 12 + month({day}) - 1",
        "file": quoted(FILE) if by_file else "''",
        "size": _logarithm("_tm_amount_value"),
        "quantity": _logarithm("_tm_quantity_clean") if large else "NULL::INTEGER",
    }
    columns = ", ".join(f"{sql} AS {name}" for name, sql in values.items())
    rows = f"FROM ({table.contract.checked}) WHERE {quoted(ROW)} % {every} = {1 % every}"
    if table.account.read > good["rows"]:  # else no row needs to be tried by all rules, for which all columns are read
        rows += f" AND _tm_rule = {GOOD}"
    query = (
        f"SELECT {', '.join(values)}, count(*) AS n FROM (SELECT {columns} {rows}) "
        f"GROUP BY GROUPING SETS ((month, file, size), (quantity))"
    )
    for batch in run(table.source, query):
        yield from batch.to_pylist()


def _logarithm(value: str) -> str:
    """Return the SQL of a number's logarithm in steps, NULL for zero."""
    return f"round(ln(nullif(abs({value}), 0)) * {_STEPS})::INTEGER"


def _by(what: str, found: Iterable[dict[str, Any]]) -> dict[Any, Counter[int]]:
    """Return the histogram of the logarithms of the amounts of each month or file with enough rows."""
    groups: dict[Any, Counter[int]] = {}
    for row in found:
        if row["size"] is not None:
            groups.setdefault(row[what], Counter())[row["size"]] += row["n"]
    return {key: sizes for key, sizes in groups.items() if sizes.total() >= _FEWEST}


@dataclass(frozen=True)
class _Jump:
    """The months or files with the odd amounts, their median, that of the others, and by how much they differ."""

    odd: tuple[Any, ...]
    others: tuple[Any, ...]
    median: float
    usual: float
    factor: int

    @property
    def larger(self) -> bool:
        return self.median > self.usual


def _jump(groups: dict[Any, Counter[int]]) -> _Jump | None:
    """Return how the groups fall apart in two by a factor such as 100, at all quartiles; None where they do not."""
    ordered = sorted(groups, key=lambda key: (_quantile(groups[key], 0.5), key))
    gaps = [_quantile(groups[b], 0.5) - _quantile(groups[a], 0.5) for a, b in pairwise(ordered)]
    if not gaps:
        return None
    place = gaps.index(max(gaps)) + 1
    sides = ordered[:place], ordered[place:]
    low, high = (sum((groups[key] for key in side), Counter[int]()) for side in sides)
    ratios = [math.exp(_quantile(high, share) - _quantile(low, share)) for share in (0.25, 0.5, 0.75)]
    near = [factor for factor in _JUMPS if factor / _NEAR <= ratios[1] <= factor * _NEAR]
    if not near or min(ratios) < _APART:
        return None
    parts = [(tuple(sorted(side)), sizes) for side, sizes in zip(sides, (low, high), strict=True)]
    odd, others = parts if low.total() < high.total() else parts[::-1]
    median, usual = (math.exp(_quantile(sizes, 0.5)) / 10_000 for _, sizes in (odd, others))
    return _Jump(odd[0], others[0], median, usual, near[0])


def _quantile(sizes: Counter[int], share: float) -> float:
    """Return a quantile of the logarithms of amounts of 1/10,000 units."""
    left = share * sizes.total()
    for size in sorted(sizes):
        left -= sizes[size]
        if left <= 0:
            return size / _STEPS
    raise ValueError("there are no amounts")


def _told(what: str, jump: _Jump, contract: Contract) -> str:
    names = [_month(key) if what == "month" else str(key) for key in jump.odd]
    say = words(contract.language)
    shown = say["comma"].join(names[:_SHOWN])
    shown += say["note_and_more"].format(len(names) - _SHOWN) if len(names) > _SHOWN else ""
    told = say["note_units_larger" if jump.larger else "note_units_smaller"].format(
        shown=shown, median=jump.median, usual=jump.usual, others=say[f"note_units_{what}s"], factor=jump.factor
    )
    if what == "file":
        return told + say["note_units_one"]
    factor = f"CASE WHEN {_in_months(jump, contract.columns['time'])} THEN {jump.factor} ELSE 1 END"
    return told + say["note_units_map"].format(f"{contract.columns['amount']} {'/' if jump.larger else '*'} {factor}")


def _in_months(jump: _Jump, time: str) -> str:
    """Return the SQL of whether a row is of the odd months."""
    month = f"strftime({time}::TIMESTAMP, '%Y-%m')"
    if jump.odd[0] > jump.others[-1]:
        return f"{month} >= '{_month(jump.odd[0])}'"
    if jump.odd[-1] < jump.others[0]:
        return f"{month} <= '{_month(jump.odd[-1])}'"
    return f"{month} IN ({', '.join(repr(_month(key)) for key in jump.odd)})"


def _month(number: int) -> str:
    return f"{number // 12:04}-{number % 12 + 1:02}"


def _quantity_words(
    run: Run, contract: Contract, source: Source, good: dict[str, Any], found: list[dict[str, Any]]
) -> Iterator[str]:
    """Yield a warning of quantities of a million or more, or a thousand times what all but 1 in 1,000 rows have."""
    most = float(good.get("quantity_most") or 0)
    if most < _LARGE:
        return
    size, usual = "abs(_tm_quantity_clean)", 0.0
    if most < _VAST:
        sizes: Counter[int] = Counter()
        for row in found:
            if row["quantity"] is not None:
                sizes[row["quantity"]] += row["n"]
        if sizes.total() < 1 / (1 - _RARE) or most < _TIMES * (usual := math.exp(_quantile(sizes, _RARE))):
            return
    limit = _TIMES * usual or _VAST
    rows = f"FROM ({contract.checked}) WHERE _tm_rule = {GOOD} AND {size} >= {limit}"
    query = (
        f"SELECT {quoted(FILE)} AS file, {quoted(ROW)} AS row, {size}::DOUBLE AS size, count(*) OVER () AS n "
        f"{rows} ORDER BY size DESC, file, row LIMIT 1"
    )
    vast = [row for batch in run(source, query) for row in batch.to_pylist()]
    first = max(vast, key=lambda row: row["size"])
    say = words(contract.language)
    beside = say["note_quantity_usual"].format(usual) if usual else ""
    yield say["note_quantity"].format(
        n=sum(row["n"] for row in vast), limit=limit, beside=beside, size=first["size"], file=first["file"],
        row=source.line(first["file"], first["row"]),
    )  # fmt: skip
