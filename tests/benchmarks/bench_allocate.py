"""Hold allocations against brute force, and time the allocation of a large base.

    python tests/benchmarks/bench_allocate.py [--cases 2000]
    python tests/benchmarks/bench_allocate.py --customers 1_000_000

The first form writes small random problems with groups, capacities, a team, a floor, conditions, opt-outs and a budget,
allocates each by files and holds what was written against every rule and against the best of all allocations.

The second times 8 actions, 7 capacities (5 of actions, 2 of teams) and a budget, with gains that differ by customer,
that are in proportion to one column, and that are the same for all of a tier: the time after the table was read (bar:
30 s), the certified gap (bar: 0.1 %), and the peak of memory (bar: 2 GB).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import yaml

from tiermodel import TierModelError, allocate
from tiermodel.policy.solve import Solved, solve

sys.path.insert(0, str(Path(__file__).parents[1]))
from allocations_made import brute_force, draw_case, recomputed, write_case

if TYPE_CHECKING:
    from collections.abc import Iterator

GAINS = {
    "by customer": "value_{n} * {rate}",
    "in proportion": "value_0 * {rate}",
    "by tier": "case tier_code when 'small' then 40 when 'middle' then 90 else 200 end * {rate}",
}


def main() -> None:
    """Print what was found."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--cases", type=int, default=2000)
    arguments.add_argument("--customers", type=int)
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.customers is None:
            compared(Path(folder), given.cases)
        else:
            timed(Path(folder), given.customers)


def compared(folder: Path, cases: int) -> None:
    """Hold every case against brute force; the first that differs ends the run."""
    refused = 0
    for seed in range(cases):
        case, ending = draw_case(seed), (".csv", ".parquet")[seed % 2]
        scores, policy = write_case(case, folder / str(seed), ending)
        best, out = brute_force(case), folder / f"{seed}{ending}"
        try:
            found = allocate(scores, policy, case.budget, out)
        except TierModelError as error:
            if best is not None:
                raise AssertionError(seed) from error
            refused += 1
            continue
        written = pd.read_csv(out, dtype={"customer_id": str}) if ending == ".csv" else pd.read_parquet(out)
        value = recomputed(case, written)
        assert best is not None, seed
        assert max(abs(value - best), abs(found.objective - best)) < 1e-9, (seed, value, found.objective, best)
        assert found.bound >= best - 1e-9, seed
    print(f"{cases:,} cases equal to brute force, {refused:,} of them refused by both: the floor does not fit")


def timed(folder: Path, customers: int) -> None:
    """Print a row for each kind of gains."""
    draw = np.random.default_rng(7)
    columns = {f"value_{n}": draw.lognormal(4, 1.2, customers).round(4) for n in range(8)}
    tier = draw.choice(["small", "middle", "large"], customers, p=[0.6, 0.3, 0.1])
    ids = np.char.add("C", np.arange(customers).astype(str))
    frame = pd.DataFrame({"customer_id": ids, "tier_code": tier, "expected_value": columns["value_0"], **columns})
    frame.to_parquet(folder / "scores.parquet", index=False)
    del frame, columns, tier, ids
    print(
        "| gains | reading, s | after reading, s | CPU after reading, s | gap | objective |\n|---|---|---|---|---|---|"
    )
    for kind, text in GAINS.items():
        policy = folder / "policy.yaml"
        policy.write_text(yaml.safe_dump(_policy(customers, text)), encoding="utf-8")
        start = time.perf_counter()
        with _noted() as read:
            found = allocate(folder / "scores.parquet", policy, 4 * customers, folder / "actions.parquet")
        wall, processor = time.perf_counter() - read[0], time.process_time() - read[1]
        figures = [f"{n:.1f}" for n in (read[0] - start, wall, processor)]
        print(f"| {' | '.join([kind, *figures, f'{found.gap:.1e}', f'{found.objective:,.0f}'])} |")
    print(f"\npeak of memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _policy(customers: int, gain: str) -> dict[str, object]:
    """Return 8 actions of two groups, each with a limit of its own but one: 5 capacities, 2 teams."""
    actions: dict[str, dict[str, object]] = {}
    for n, cost in enumerate((1, 2.5, 4, 8, 12, 20, 35, 60)):
        rate = round(0.05 + 0.02 * cost**0.7, 4)
        actions[f"a{n}"] = {"cost": cost, "gain": gain.format(n=n, rate=rate), "group": "xy"[n % 2]}
        actions[f"a{n}"] |= {"capacity": int(customers * 0.3 / (n + 1))} if n < 5 else {}
        actions[f"a{n}"] |= {"team": {5: "one", 6: "two", 7: "two"}[n]} if n >= 5 else {}
    teams = {
        "one": {"managers": customers // 1000, "customers_per_manager": 40},
        "two": {"managers": customers // 1000, "customers_per_manager": 20},
    }
    levels = {tier: {"name_zh": tier, "name_en": tier, "cost_per_year": 60} for tier in ("small", "middle", "large")}
    return {"version": 1, "name": "large", "levels": levels, "teams": teams, "actions": actions}


@contextmanager
def _noted() -> Iterator[list[float]]:
    """Yield a list that gets the time and the processor time at which the table has been read."""
    clock: list[float] = []

    def noted(*inputs: Any) -> Solved:
        clock.extend([time.perf_counter(), time.process_time()])
        return solve(*inputs)

    with patch("tiermodel.policy.allocate.solve", noted):
        yield clock


if __name__ == "__main__":
    main()
