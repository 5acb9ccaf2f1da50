"""Stability against movement: monthly re-tiering on real data, plain and with rules that a search picks.

Run: python tests/benchmarks/bench_stability.py [--online-retail FOLDER]. The rule is picked on the earlier dates and
measured on the later ones, cut points frozen on the first date of each; the frontier over all dates is printed too.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from tiermodel.config.project import Project, load_project
from tiermodel.features.frame import has_bought
from tiermodel.features.panel import build_panel
from tiermodel.tiers.schemes.load import load_preset
from tiermodel.tiers.stability.budget import RULES, Trial, choose, frontier, trials
from tiermodel.tiers.stability.rule import movement_shares, who_and_when

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
MOVED, REVERSED = 0.078, 0.033


def monthly(project: Project, first: date, dates: int) -> pd.DataFrame:
    """Build monthly snapshots with the value of the 30 days after each."""
    told = project.model_copy(
        update={
            "outcome": project.outcome.model_copy(update={"horizon_days": 30}),
            "features": project.features.model_copy(update={"windows_days": (90,)}),
        }
    )
    return build_panel(told, [first + timedelta(30 * k) for k in range(dates)], with_outcome=True)


def quantiles_every_month(panel: pd.DataFrame) -> Trial:
    """Grade as spreadsheets do: percentile ranks and quantiles anew each month."""
    panel = panel[has_bought(panel) & panel["outcome_value"].notna()].reset_index(drop=True)
    by_day = panel.groupby("as_of")
    score = (
        0.2 * by_day["days_since_last"].rank(ascending=False, pct=True)
        + 0.3 * by_day["purchase_days_90d"].rank(pct=True)
        + 0.5 * by_day["net_amount_90d"].rank(pct=True)
    )
    tier = np.searchsorted([0.2, 0.7, 0.9], score.groupby(panel["as_of"]).rank(pct=True), side="left")
    moved, back = movement_shares(*who_and_when(panel), tier)
    order = [
        float(spearmanr(tier[rows], panel["outcome_value"].to_numpy()[rows])[0]) for rows in by_day.indices.values()
    ]
    return Trial(None, moved, back, float(np.mean(order)))


def show(name: str, t: Trial) -> None:
    """Print one line."""
    rule = ""
    if t.rule is not None:
        rule = (
            f"up {t.rule.up.band:.2f}×{t.rule.up.confirmations} down {t.rule.down.band:.2f}×{t.rule.down.confirmations}"
        )
    print(
        f"  {name:34} moved {t.moved_share:6.1%}  reversed {t.reversed_share:6.1%}  Spearman {t.spearman:.4f}  {rule}"
    )


def study(title: str, panel: pd.DataFrame, budget: Callable[[Sequence[Trial]], tuple[float, float]]) -> None:
    """Pick a rule on the earlier dates, measure it on the later, and print the frontier over all."""
    scheme = load_preset("rfm_score", (90,))
    dates = sorted(panel["as_of"].unique())
    half = len(dates) // 2 + 1
    early, late = (panel[panel["as_of"].isin(part)] for part in (dates[:half], dates[half - 1 :]))
    print(f"{title}: {len(dates)} dates, {panel['customer_id'].nunique():,} customers")
    show("quantiles anew each month", quantiles_every_month(panel))
    found = trials(scheme, panel)
    show("cut points frozen, no rule", found[0])
    moved, back = budget(found)
    picked = choose(trials(scheme, early), moved, back)
    plain, kept = trials(scheme, late, [picked.rule or RULES[0]])
    show("later dates: no rule", plain)
    show("later dates: rule picked on earlier", kept)
    print(f"  frontier over all dates, at most {back:.1%} reversed:")
    line = [t for t in frontier([t for t in found if t.reversed_share <= back]) if t.rule is not None]
    for t in itertools.islice(line, 0, None, max(1, len(line) // 8)):
        show("", t)
    show("best within the budget", choose(found, moved, back))


def main() -> None:
    """Run both studies."""
    options = argparse.ArgumentParser()
    options.add_argument("--online-retail", type=Path, help="the folder of its Parquet files")
    given = options.parse_args()
    journey = load_project(CONFIGS / "complete_journey.yaml")
    study("Complete Journey", monthly(journey, date(2017, 4, 1), 9), lambda _: (MOVED, REVERSED))
    retail = load_project(CONFIGS / "online_retail.yaml")
    if given.online_retail is not None:
        rows = retail.data.transactions.model_copy(update={"path": str(given.online_retail / "*.parquet")})
        retail = retail.model_copy(update={"data": retail.data.model_copy(update={"transactions": rows})})
        panel = monthly(retail, date(2010, 3, 15), 9)
        study("Online Retail", panel, lambda found: (found[0].moved_share / 3, found[0].reversed_share / 3))


if __name__ == "__main__":
    main()
