"""Time maximum-likelihood fits of buy-till-you-die models against lifetimes, at the same likelihood.

    python tests/benchmarks/bench_btyd.py [--customers 1_000_000] [--rounds 3] [--pareto]

Both sides get the same frequency, recency and age, in days, and fit in turn; CPU-seconds of the process, the least of
the rounds. The customers are those of the CDNOW master file, which lifetimes ships, to 1997-12-31, and simulated ones.
Also printed: the log-likelihood a customer at each side's parameters, by lifetimes' own formula, and the largest
relative difference of lifetime values. lifetimes is archived and no dependency: pip install lifetimes 'setuptools<81'.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from tiermodel.models.btyd.bg_nbd import BGNBD
from tiermodel.models.btyd.clv import DAYS_PER_YEAR, convert_rate, discounted_purchases
from tiermodel.models.btyd.pareto_nbd import ParetoNBD

History = tuple[np.ndarray[Any, Any], ...]
MONTH, MONTHS, MONTHLY_RATE = 30.0, 12, 0.01
TRUTH = BGNBD(r=0.25, alpha=30.0, a=0.8, b=2.4)
FORMS = {
    BGNBD: ("BetaGeoFitter", ("r", "alpha", "a", "b")),
    ParetoNBD: ("ParetoNBDFitter", ("r", "alpha", "s", "beta")),
}


def cdnow() -> History:
    """Summarise the CDNOW master file."""
    from lifetimes.datasets import load_dataset  # noqa: PLC0415
    from lifetimes.utils import summary_data_from_transaction_data  # noqa: PLC0415

    rows = load_dataset("CDNOW_master.txt", sep=r"\s+", dtype={"date": str})
    summary = summary_data_from_transaction_data(
        rows, "customer_id", "date", datetime_format="%Y%m%d", observation_period_end="19971231"
    )
    return tuple(summary[name].to_numpy() for name in ("frequency", "recency", "T"))


def simulated(customers: int) -> History:
    """Draw customers by the story that BG/NBD tells, purchases on whole days."""
    rng = np.random.default_rng(11)
    rate, leaving = rng.gamma(TRUTH.r, 1 / TRUTH.alpha, customers), rng.beta(TRUTH.a, TRUTH.b, customers)
    age = rng.integers(30, 730, customers).astype(np.float64)
    frequency, recency, now = (np.zeros(customers) for _ in range(3))
    there = np.arange(customers)
    while there.size:
        now[there] += np.maximum(np.ceil(rng.exponential(1 / rate[there])), 1)
        there = there[now[there] <= age[there]]
        frequency[there] += 1
        recency[there] = now[there]
        there = there[rng.random(there.size) >= leaving[there]]
    return frequency, recency, age


def cpu(function: Callable[[], Any]) -> tuple[float, Any]:
    """Time one call, in CPU-seconds of all threads."""
    started = time.process_time()
    found = function()
    return time.process_time() - started, found


def compare(name: str, kind: type[BGNBD | ParetoNBD], past: History, rounds: int) -> None:
    """Print one row of the table."""
    import lifetimes  # noqa: PLC0415
    from lifetimes.utils import _customer_lifetime_value  # noqa: PLC0415

    fitter, names = FORMS[kind]
    theirs, mine = [], []
    for _ in range(rounds):
        theirs.append(cpu(lambda: getattr(lifetimes, fitter)().fit(*past)))
        mine.append(cpu(lambda: kind.fit(*past)))
    fitted, ours = theirs[0][1], mine[0][1]
    weights, logs = np.ones(len(past[0])), []
    for model in (fitted.params_, vars(ours)):
        if kind is BGNBD:
            logs.append(-fitted._negative_log_likelihood(np.log([model[n] for n in names]), *past, weights, 0.0))
        else:
            logs.append(fitted._conditional_log_likelihood([model[n] for n in names], *past).mean())
    few = tuple(pd.Series(column[:2000]) for column in past)
    value = _customer_lifetime_value(fitted, *few, pd.Series(np.ones(2000)), MONTHS, MONTHLY_RATE)
    annual = convert_rate(MONTHLY_RATE, MONTH, DAYS_PER_YEAR)
    their_value = discounted_purchases(kind(*(fitted.params_[n] for n in names)), MONTH * MONTHS, annual, *few)
    # theirs discounts a month's purchases at its end, ours each when it comes: half a month's interest apart
    apart = float(np.abs(their_value / np.asarray(value) / (1 + MONTHLY_RATE) ** 0.5 - 1).max())
    least = min(seconds for seconds, _ in theirs), min(seconds for seconds, _ in mine)
    print(
        f"| {name}, {kind.__name__} | {len(past[0]):,} | {least[0]:.2f} | {least[1]:.3f} | {least[0] / least[1]:.1f} "
        f"| {logs[0]:.8f} | {logs[1]:.8f} | {apart:.1g} |"
    )


def main() -> None:
    """Print a Markdown table."""
    warnings.simplefilter("ignore")
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--customers", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--pareto", action="store_true", help="fit Pareto/NBD too, on CDNOW")
    given = arguments.parse_args()
    print(
        "| data, model | customers | lifetimes CPU-s | ours CPU-s | ratio (bar: ≥ 5) | their LL | our LL | CLV apart |"
    )
    print("|---|---|---|---|---|---|---|---|")
    past = cdnow()
    compare("CDNOW master", BGNBD, past, given.rounds)
    if given.pareto:
        compare("CDNOW master", ParetoNBD, past, 1)
    compare("simulated", BGNBD, simulated(given.customers), given.rounds)


if __name__ == "__main__":
    main()
