"""Learned tiers against composites and "same tier as now", out of time, with paired intervals: quality, not speed.

Run: python tests/benchmarks/bench_learned.py PROJECT [SCHEME [DATE,DATE…]]

The project's scheme is replaced by SCHEME (`learned_auto` where none is given), its test dates by the dates given.
"""

from __future__ import annotations

import sys
from datetime import date, timedelta

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tiermodel.backtesting.tiers import scheme_summary, tier_results, tier_verdict, with_all_dates
from tiermodel.config.project import load_project
from tiermodel.engines.dispatch import open_history
from tiermodel.features.frame import rows_at
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import build_panel
from tiermodel.training.dates import backtest_dates, panel_dates, training_dates
from tiermodel.training.train import fit_bundle


def main() -> None:
    """Fit as of each date, judge by what followed, and print figures and the verdict."""
    project = load_project(sys.argv[1])
    scheme = sys.argv[2] if len(sys.argv) > 2 else "learned_auto"
    project = project.model_copy(update={"tiers": project.tiers.model_copy(update={"scheme": scheme})})
    history = open_history(project)
    days = (
        tuple(map(date.fromisoformat, sys.argv[3].split(",")))
        if len(sys.argv) > 3
        else backtest_dates(project, history)
    )
    every, span = timedelta(project.panel.every_days), timedelta(Labels.of(project).delay_days)
    trained_on = {day: training_dates(project, day, history.first_day) for day in days}
    needed = set().union(*(panel_dates(project, day, trained_on[day]) for day in days))
    needed |= {d for day in days for d in (day + span, day - every, day - 2 * every)}
    panel = build_panel(project, sorted(needed), with_outcome=True, history=history)
    rows, comparisons = [], []
    notes: list[str] = []
    for day in days:
        known = rows_at(panel, panel_dates(project, day, trained_on[day]))
        with threadpool_limits(limits=1):
            bundle, _ = fit_bundle(project, known, day, trained_on[day], history.columns)
            figures, against = tier_results(project, panel, day, bundle, notes)
        rows += figures
        comparisons += against
        state = bundle.scheme.state
        print(day, state.get("learner", "tree"), state.get("fidelity"))
        for trial in state.get("trials", []):
            print("  ", trial)
        for name, found in bundle.facts.get("agreement", {}).items():
            print("   beside", name, found["figures"])
        told = bundle.scheme.readable.assign(panel[panel["as_of"] == pd.Timestamp(day)])[0]
        value = panel.loc[panel["as_of"] == pd.Timestamp(day), "outcome_value"].to_numpy()
        key = [n for n, level in enumerate(bundle.scheme.scheme.levels) if level.key]
        inside = pd.Series(told).isin(key).to_numpy()
        most = np.sort(value)[::-1][: inside.sum()].sum()
        print(f"   the readable tree: {inside.mean():.3f} of customers, of best {value[inside].sum() / most:.4f}")
    comparisons = with_all_dates(comparisons)
    print(pd.DataFrame(scheme_summary(rows)).round(4).to_string(index=False))
    print(pd.DataFrame(comparisons).round(4).to_string(index=False))
    print("\n".join([*tier_verdict(comparisons), *notes]))


if __name__ == "__main__":
    main()
