"""A synthetic company with known truth: when each customer leaves, how often each buys, and what each is worth.

Customers buy on the day they start and then at a rate of their own (gamma), times the season, until they leave (an
exponential time at a rate of their own, gamma too): the Pareto/NBD of Schmittlein, Morrison and Colombo (1987), day by
day. There are also growth, buyers of one order, random campaigns, returns, businesses with invoices, and prospects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.datasets._draws import (
    BLOCK,
    GIVEN,
    NEVER,
    SENT_SHARE,
    SURNAMES,
    Columns,
    campaign,
    draw_block,
    is_campaign,
)

__all__ = ["World", "make_world"]


_MAPPED: dict[str, tuple[str, ...]] = {
    "transactions": (
        *("customer_id", "time", "order_id", "amount", "product_id"),
        *("category", "quantity", "cost", "discount", "channel"),
    ),
    "customers": ("customer_id", "signup", "acquisition_cost", "opt_out"),
    "events": ("customer_id", "time", "kind", "value"),
    "invoices": ("customer_id", "amount", "due", "issued", "paid", "disputed"),
    "costs": ("customer_id", "time", "amount"),
}


@dataclass(frozen=True)
class World:
    """The tables of a synthetic company up to `last_day`, and the truth behind them, beyond that day too.

    Attributes
    ----------
    first_day, last_day
        The days from which and up to which the tables have rows.
    truth
        One row for each customer. `start` and `left` are the day of the first purchase, and the day from which on there
        is none (NaT: never bought; left after the simulated end). `rate` is orders a day before season and growth,
        `leave_rate` the rate of leaving a day; from `grow_day` on the rate is `growth` times as high. `order_amount` is
        the mean of an order, `margin_share` and `return_share` are shares of it. `response` is the share of the
        campaigns sent that bring one more order, `late_days` the delay of payments in days; `business` and `opted_out`
        are flags.
    tables
        The tables by name: `transactions`, `customers`, `events`, `invoices` and `costs`.

    Examples
    --------
    >>> from datetime import date
    >>> from tiermodel import make_world
    >>> world = make_world(seed=1, customers=20, days=200, future_days=60)
    >>> risk = world.p_silent(date(2022, 7, 1), horizon_days=30)
    >>> bool(risk.between(0, 1).all())
    True

    """

    first_day: date
    last_day: date
    truth: pd.DataFrame
    tables: dict[str, pa.Table]
    _season: Floats = field(repr=False)
    _people: Columns = field(repr=False)
    _rows: Columns = field(repr=False)

    def p_silent(
        self, as_of: date, horizon_days: int, gap_days: int = 0, *, given: Literal["truth", "history"] = "truth"
    ) -> pd.Series:
        """Return P(no purchase in the outcome window) of every customer who bought before `as_of`, by customer.

        `given="truth"` knows the rates, and whether the customer has left. `given="history"` knows the rates, but
        infers from the purchases alone whether the customer has left: no model of purchases alone can know more.
        """
        now, people = self._day(as_of), self._people
        known = people["start"] < now
        there = np.where(people["left"] >= now, 1.0, 0.0)
        if given == "history":
            there = self._there(now)
        gone = 1 - there
        for day in range(now, now + gap_days + horizon_days):
            gone, there = gone + there * (1 - people["stay"]), there * people["stay"]
            if day >= now + gap_days:
                there = there * np.exp(-self._rate(day)) * (1 - self._responds(day))
        return self._series(there + gone, known)

    def expected_value(
        self, as_of: date, horizon_days: int, measure: Literal["amount", "margin"] = "amount"
    ) -> pd.Series:
        """Return the expected amount or margin of a buyer's orders in the window, net of returns, given the truth."""
        now, people = self._day(as_of), self._people
        there = np.where(people["left"] >= now, 1.0, 0.0)
        orders = np.zeros(len(there))
        for day in range(now, now + horizon_days):
            there = there * people["stay"]
            orders += there * (self._rate(day) + self._responds(day))
        share = people["margin_share"] if measure == "margin" else 1.0
        brought = orders * people["order_amount"] * (1 - people["return_share"]) * share
        return self._series(brought, people["start"] < now)

    def value(self, start: date, days: int, measure: Literal["amount", "margin"] = "amount") -> pd.Series:
        """Return the amount or margin of the days from `start` on, net of returns, of customers who bought before.

        Raises `ValueError` where the simulated time ends earlier.
        """
        now, rows = self._day(start), self._rows
        if now + days > len(self._season):
            raise ValueError(f"{days} days from {start}: the world ends before; make it with more future_days")
        inside = (rows["day"] >= now) & (rows["day"] < now + days)
        brought = rows["amount"] - rows["cost"] if measure == "margin" else rows["amount"]
        size = len(self._people["start"])
        sums = np.bincount(rows["customer"][inside], brought[inside], minlength=size).astype(np.float64)
        return self._series(sums, self._people["start"] < now)

    def tier(self, as_of: date, horizon_days: int, shares: tuple[float, ...] = (0.01, 0.05, 0.2)) -> pd.Series:
        """Return every buyer's true tier, 0 lowest: the top shares (cumulated) by expected value."""
        worth = self.expected_value(as_of, horizon_days)
        rank = worth.rank(ascending=False, method="first") / len(worth)
        return sum((rank <= share).astype("int64") for share in shares) + pd.Series(0, index=worth.index)

    def write(self, folder: str | Path, ending: Literal["parquet", "csv"] = "parquet") -> Path:
        """Write every table and a project file that maps them all; return the path of the project file."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        data: dict[str, Any] = {}
        for name, table in self.tables.items():
            path = folder / f"{name}.{ending}"
            pq.write_table(table, path) if ending == "parquet" else pa.csv.write_csv(table, path)
            data[name] = {"path": path.name, "columns": {column: column for column in _MAPPED[name]}}
        project = {"version": 1, "name": "world", "currency": "CNY", "data": data, "outcome": {"horizon_days": 60}}
        path = folder / "project.yaml"
        path.write_text(yaml.safe_dump(project, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def _day(self, day: date) -> int:
        return (day - self.first_day).days

    def _series(self, values: Floats, known: Flags) -> pd.Series:
        index = pd.Index(self.truth.index[known], name="customer_id")
        return pd.Series(values[known], index=index)

    def _rate(self, day: int) -> Floats:
        people = self._people
        grown = np.where(day >= people["grow_day"], people["growth"], 1.0)
        return people["rate"] * grown * self._season[day % len(self._season)]

    def _responds(self, day: int) -> Any:
        """Return P(one more order on a day because of a campaign), before the campaign is sent."""
        return SENT_SHARE * self._people["response"] if is_campaign(day) else 0.0

    def _there(self, now: int) -> Floats:
        """Return P(not left by the day before `now`) from the rates and the purchases before `now` (Bayes)."""
        rows, people = self._rows, self._people
        last = np.full(len(people["start"]), -1)
        bought = (rows["amount"] > 0) & (rows["day"] < now)
        np.maximum.at(last, rows["customer"][bought], rows["day"][bought])
        there, gone = np.ones(len(last)), np.zeros(len(last))
        for day in range(int(last.min(initial=now)), now):
            silent = last < day
            stay = np.where(silent, people["stay"], 1.0)
            gone, there = gone + there * (1 - stay), there * stay
            unmoved = np.exp(-self._rate(day))
            if is_campaign(day):
                unmoved = unmoved * np.where(people["sent"][:, campaign(day)], 1 - people["response"], 1.0)
            there = there * np.where(silent, unmoved, 1.0)
        result: Floats = there / (there + gone)
        return result


def make_world(
    seed: int = 7,
    customers: int = 1000,
    *,
    first_day: date = date(2022, 1, 1),
    days: int = 730,
    future_days: int = 365,
    season: float = 0.25,
    mark: str = "C",
) -> World:
    """Make a synthetic company; the same arguments give the same bits, and fewer customers are the first of more.

    Parameters
    ----------
    seed
        The seed of all random draws.
    customers
        The number of customers, prospects included.
    first_day
        The first day of the tables.
    days
        The number of days that the tables show.
    future_days
        The number of days after them, which only the truth knows.
    season
        How far rates go up in December and down in June, from 0 to 1.
    mark
        The first characters of every customer id; some ids go on in Chinese.

    Returns
    -------
    World
        The tables of the company and the truth behind them.

    Examples
    --------
    >>> from tiermodel import make_world
    >>> world = make_world(seed=1, customers=20, days=200, future_days=60)
    >>> len(world.truth), str(world.last_day), list(world.tables)
    (20, '2022-07-19', ['transactions', 'customers', 'events', 'invoices', 'costs'])

    """
    day = np.arange(days + future_days)
    rates = 1 + season * np.cos(2 * np.pi * (day + first_day.timetuple().tm_yday - 345) / 365.25)
    rates *= np.where((day + first_day.weekday()) % 7 >= 5, 1.3, 0.88)
    blocks = [
        draw_block(np.random.default_rng([seed, first]), first, days, rates) for first in range(0, customers, BLOCK)
    ]
    found = {name: _joined([block[name] for block in blocks], customers) for name in blocks[0]}
    people = {name: column[:customers] for name, column in found.pop("people").items()}
    ids = np.array([f"{mark}{'客户' if n % 10 == 3 else ''}{n:07d}" for n in range(customers)], dtype=object)
    tables = _tables(found, people, ids, np.datetime64(first_day), days)
    return World(
        first_day=first_day,
        last_day=first_day + timedelta(days - 1),
        truth=_truth(people, ids, np.datetime64(first_day)),
        tables=tables,
        _season=rates,
        _people=people,
        _rows={name: found["transactions"][name] for name in ("customer", "day", "amount", "cost")},
    )


def _joined(blocks: list[Columns], customers: int) -> Columns:
    joined = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    if "customer" not in joined:
        return joined
    wanted = joined["customer"] < customers
    return {name: column[wanted] for name, column in joined.items()}


def _truth(people: Columns, ids: NDArray[Any], first_day: np.datetime64) -> pd.DataFrame:
    dates = {name: _dates(people[name], people["start"] < NEVER, first_day) for name in ("start", "left")}
    plain = ("rate", "leave_rate", "growth", "order_amount", "margin_share", "return_share", "response", "late_days")
    columns = {**dates, "grow_day": _dates(people["grow_day"], people["grow_day"] < NEVER, first_day)}
    columns |= {name: people[name] for name in (*plain, "business", "opted_out")}
    return pd.DataFrame(columns, index=pd.Index(ids, name="customer_id"))


def _dates(days: Ints, known: Flags, first_day: np.datetime64) -> NDArray[Any]:
    return np.where(known, first_day + np.where(known, days, 0), np.datetime64("NaT")).astype("datetime64[s]")


def _tables(
    found: dict[str, Columns], people: Columns, ids: NDArray[Any], first_day: np.datetime64, days: int
) -> dict[str, pa.Table]:
    """Return the tables as a company holds them at the end of its last day: ids as text, rows by day."""
    names, day_columns = pa.array(ids, pa.string()), {"due", "paid", "disputed"}
    tables = {}
    for name, columns in found.items():
        seen = np.flatnonzero((columns["day"] >= 0) & (columns["day"] < days))
        seen = seen[np.argsort(columns["day"][seen], kind="stable")]
        cut = {key: column[seen] for key, column in columns.items()}
        second = cut.pop("second", np.zeros(len(seen), dtype=np.int64))
        day = first_day + cut.pop("day")
        dated = {"issued": pa.array(day)} if name == "invoices" else {"time": pa.array(day + second.astype("m8[s]"))}
        for key in day_columns & set(cut):
            known = cut[key] < (days if key != "due" else NEVER)  # a later payment is not known yet
            dated[key] = pa.array(_dates(cut.pop(key), known, first_day).astype("datetime64[D]"))
        table = {"customer_id": names.take(pa.array(cut.pop("customer"))), **dated}
        tables[name] = pa.table(table | dict(_laid_out(cut)))
    tables["customers"] = _profiles(people, names, first_day, days)
    return {name: tables[name] for name in _MAPPED}


def _laid_out(columns: Columns) -> Iterator[tuple[str, pa.Array]]:
    texts = {"product_id": "P{:04d}", "category": "品类{}", "channel": "channel {}"}
    for name, column in columns.items():
        if name in texts:
            words = pa.array([texts[name].format(n) for n in range(column.max(initial=0) + 1)], pa.string())
            yield name, words.take(pa.array(column))
        else:
            yield name, pa.array(column, from_pandas=True)


def _profiles(people: Columns, ids: pa.Array, first_day: np.datetime64, days: int) -> pa.Table:
    """Return the customers' table, with names, numbers and addresses that belong to nobody."""
    names = [SURNAMES[n % len(SURNAMES)] + GIVEN[n // len(SURNAMES)] for n in people["name"]]
    every = pa.table({
        "customer_id": ids,
        "name": names,
        "mobile": [str(number) for number in people["mobile"]],
        "email": [f"c{n}@example.com" for n in range(len(ids))],
        "signup": pa.array((first_day + people["signup"]).astype("datetime64[D]")),
        "acquisition_cost": people["acquisition_cost"],
        "kind": np.where(people["business"], "business", "private"),
        "opt_out": people["opted_out"],
    })  # fmt: skip
    return every.filter(pa.array(people["signup"] < days))
