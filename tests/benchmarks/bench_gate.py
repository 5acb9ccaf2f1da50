"""How often the gate passes pairs of models of known quality: equal ones, and a refresh worse by twice the margin.

python tests/benchmarks/bench_gate.py [TRIALS]
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gate_simulation import Errors, passes, twice_the_margin
from tiermodel.tracking import comparison

CUSTOMERS = (1_000, 2_500, 10_000)
ALIKE = 0.95  # how far errors correlate that give intervals as wide as those of the Complete Journey a month later


def share(trials: int, customers: int, ours: Errors, *, refresh: bool, shared: float) -> str:
    """Return how often the gate and each of its checks pass, as text."""
    found = [passes(seed, customers, ours, Errors(), refresh=refresh, shared=shared) for seed in range(trials)]
    rates = {name: sum(one.get(name, True) for one in found) / trials for name in found[0]}
    return "  ".join(f"{name} {rate:.1%}" for name, rate in rates.items())


def main() -> None:
    """Print the shares."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    comparison.DRAWS_AT_MOST = 400  # the fewest that the gate itself draws
    twice = [twice_the_margin(target) for target in ("churn", "value")]
    print(f"margin {comparison.MARGIN:.0%} of the lead; errors {Errors()}; worse by twice the margin {twice}")
    for n in CUSTOMERS:
        of_n = max(trials * 1_000 // n, trials // 4)  # what takes longer is tried less often
        print(f"{n} customers, {of_n} trials")
        print("  equal new design", share(of_n, n, Errors(), refresh=False, shared=0.0), flush=True)
        for shared in (ALIKE, 0.5):
            print(
                f"  equal refresh, {shared} shared", share(of_n, n, Errors(), refresh=True, shared=shared), flush=True
            )
        for target in ("churn", "value"):
            told = share(of_n, n, twice_the_margin(target), refresh=True, shared=ALIKE)
            print(f"  refresh worse in {target}", told, flush=True)


if __name__ == "__main__":
    main()
