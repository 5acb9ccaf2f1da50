"""Make the logs of small and odd companies, each from a seed, to see that every one gets a model or a named refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.backtesting.backtest import Backtest, backtest
from tiermodel.config.project import Project
from tiermodel.engines.dispatch import open_history
from tiermodel.errors import DataError
from tiermodel.predict import score
from tiermodel.quality.check import CheckReport, check
from tiermodel.tables.history import History
from tiermodel.training.train import train

__all__ = ["KINDS", "Company", "outcome_of"]

Rng = np.random.Generator
Shop = Callable[[Rng, int, int], pd.DataFrame]  # from customers and days, to rows of customer, day and amount
FIRST_DAY = date(2023, 1, 2)
HORIZONS = (14, 28, 45, 60, 90, 180, 365)


def _visits(rng: Rng, customers: int, days: int, gap: float) -> pd.DataFrame:
    """Buy at random about every `gap` days, on the average, until one leaves; most came before the log begins."""
    start = rng.uniform(-days, days, customers).clip(min=0)
    stop = np.minimum(start + rng.exponential(days, customers), days)
    count = 1 + rng.poisson(np.maximum(stop - start, 0) / (gap * rng.lognormal(0, 0.5, customers)))
    who = np.repeat(np.arange(customers), count)
    day = start[who] + rng.random(len(who)) * (stop - start)[who]
    amount = rng.lognormal(3, 0.6, customers)[who] * rng.lognormal(0, 0.3, len(who))
    return pd.DataFrame({"customer": who, "day": day.clip(max=days - 1), "amount": amount})


def steady(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Buy now and then."""
    return _visits(rng, customers, days, days / rng.uniform(4, 20))


def pauses(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Close the whole shop for a sixth of the log, once or twice."""
    rows = steady(rng, customers, days)
    for at in rng.uniform(0, 0.9, rng.integers(1, 3)) * days:
        rows = rows[(rows["day"] < at) | (rows["day"] > at + days / 6)]
    return rows


def closure(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Sell to hardly anybody in the last third of the log: one return and one purchase a fortnight."""
    rows = steady(rng, customers, days)
    late = rows[rows["day"] > days * 2 / 3].iloc[:: max(1, len(rows) // 8)]
    return pd.concat([rows[rows["day"] <= days * 2 / 3], late])


def one_order(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Sell once to each customer."""
    return steady(rng, customers, days).drop_duplicates("customer")


def subscriptions(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Pay the same fee every fourth week, all customers but the few that leave."""
    start = rng.integers(0, 28, customers)
    stop = np.where(rng.random(customers) < rng.choice([0.0, 0.2]), rng.uniform(28, days + 28, customers), np.inf)
    rows = [(k, day) for k in range(customers) for day in range(start[k], days, 28) if day < stop[k]]
    who, day = np.array(rows).T
    return pd.DataFrame({"customer": who, "day": day, "amount": 9.9})


def returns_only(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Hold returns only: the purchases are in another system."""
    return steady(rng, customers, days).assign(amount=lambda rows: -rows["amount"])


def all_returned(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Have everything sent back two days later."""
    rows = steady(rng, customers, days)
    back = rows.assign(day=(rows["day"] + 2).clip(upper=days - 1), amount=-rows["amount"])
    return pd.concat([rows, back])


def single_product(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Sell one product at one price."""
    return steady(rng, customers, days).assign(amount=49.0, product="P1", category="only")


def tiny_amounts(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Count in millionths of the currency."""
    return steady(rng, customers, days).assign(amount=lambda rows: rows["amount"] / rows["amount"].mean() * 1e-6)


def huge_amounts(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Sell plants at about a billion each."""
    return steady(rng, customers, days).assign(amount=lambda rows: rows["amount"] / rows["amount"].mean() * 1e9)


def free(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Give everything away: every amount is zero."""
    return steady(rng, customers, days).assign(amount=0.0)


def one_day(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Sell on one market day a month."""
    return steady(rng, customers, days).assign(day=lambda rows: (rows["day"] // 30) * 30)


def one_buyer(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Live off one customer; the others bought once, for little."""
    rows = one_order(rng, customers, days)
    day = np.arange(0, days, 3.0)
    return pd.concat([rows, pd.DataFrame({"customer": 0, "day": day, "amount": 1e5 * rng.lognormal(0, 1, len(day))})])


def young(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Open in the last half of the log but for three first customers."""
    rows = steady(rng, customers, days)
    return rows[(rows["day"] > days / 2) | (rows["customer"] < 3)]


def loyal(rng: Rng, customers: int, days: int) -> pd.DataFrame:
    """Lose nobody: everybody buys every few days to the end."""
    rate = days / rng.uniform(20, 60)
    return _visits(rng, customers, days, 1e9).drop_duplicates("customer").pipe(_every, rate, days, rng)


def _every(first: pd.DataFrame, gap: float, days: int, rng: Rng) -> pd.DataFrame:
    count = int(days / gap)
    who = np.repeat(np.arange(len(first)), count)
    day: Floats = np.tile(np.arange(count) * gap, len(first)) + rng.uniform(0, gap, len(who))
    return pd.DataFrame({"customer": who, "day": day.clip(max=days - 1), "amount": rng.lognormal(3, 0.5, len(who))})


KINDS: Mapping[str, Shop] = {
    kind.__name__: kind
    for kind in (
        steady, pauses, closure, one_order, subscriptions, returns_only, all_returned, single_product, tiny_amounts,
        huge_amounts, free, one_day, one_buyer, young, loyal,
    )
}  # fmt: skip
"""How each kind of company comes by its rows."""


@dataclass(frozen=True)
class Company:
    """Hold a company's project and the rows of its log."""

    name: str
    project: Project
    rows: pd.DataFrame

    @classmethod
    def make(cls, seed: int) -> Company:
        """Make the company of a seed: its kind, 80 to 600 customers, a horizon, 1.2 to 6 horizons of history."""
        rng = np.random.default_rng(seed)
        kind = list(KINDS)[seed % len(KINDS)]
        customers, horizon = int(rng.integers(80, 601)), int(rng.choice(HORIZONS))
        days = int(horizon * rng.uniform(1.2, 6))
        rows = KINDS[kind](rng, customers, days)
        rows = rows.sort_values(["customer", "day"], kind="stable").reset_index(drop=True)
        time = pd.Timestamp(FIRST_DAY) + pd.to_timedelta(np.floor(rows["day"]), unit="D")
        rows = rows.assign(customer=rows["customer"].map("C{:04d}".format), time=time).drop(columns="day")
        columns = {"customer_id": "customer", "time": "time", "amount": "amount"}
        columns |= {f"{name}_id" if name == "product" else name: name for name in rows.columns[2:] if name != "time"}
        project = Project.model_validate(
            {
                "version": 1,
                "name": f"{kind}-{seed}",
                "data": {"transactions": {"path": "rows.parquet", "columns": columns}},
                "outcome": {"horizon_days": horizon},
                "backtest": {"folds": 2},
            }
        )
        return cls(f"{seed} {kind}: {customers} customers, {days} days, horizon {horizon}", project, rows)


def outcome_of(company: Company, folder: Path) -> str:
    """Take a company through check, train, backtest and score; return `model` or `refused`, and why.

    Raises `AssertionError` where check and train disagree, or a prediction is not finite or out of its range.
    """
    project, rows = company.project, company.rows

    def history() -> History:
        return open_history(project, transactions=rows)

    checked = _refusal(lambda: check(project, history=history()))
    trained = _refusal(lambda: train(project, history=history(), out=folder / "bundle"))
    assert checked == trained, f"check says {checked!r}, train {trained!r}"
    if trained:
        return f"refused {trained}"
    result = list[Backtest]()
    judged = _refusal(lambda: result.append(backtest(project, history=history())))
    for done in result:
        _all_in_range(done.predictions, [c for c in done.predictions.columns if c.startswith("churn_")])
    score(project, folder / "bundle", "latest", folder / "scores.parquet", history=history())
    scores = pd.read_parquet(folder / "scores.parquet")
    known = pd.to_datetime(rows["time"]) < pd.Timestamp(history().latest)  # isolated rows come after it
    assert len(scores) == rows.loc[known, "customer"].nunique()
    _all_in_range(scores, ["churn_risk", "upgrade_potential", *(c for c in scores.columns if c.startswith("p_"))])
    buyers = scores[scores["churn_risk"].notna()]
    value = buyers[["expected_value_low", "expected_value", "expected_value_high"]].to_numpy()
    assert np.isfinite(value).all()
    return f"model of {len(scores)} customers; backtest {judged or result[0].results['dates']}"


def _refusal(run: Callable[[], object]) -> str:
    """Return the words of a refusal, of a check or an error; empty where there is none."""
    try:
        result = run()
    except DataError as error:
        return str(error)
    if isinstance(result, CheckReport):
        return "\n".join(finding.text() for finding in result.findings if finding.level == "refuse")
    return ""


def _all_in_range(frame: pd.DataFrame, columns: list[str]) -> None:
    for name in columns:
        known = frame[name].dropna()
        assert known.between(0, 1).all(), f"{name}: {known[~known.between(0, 1)].iloc[0]} is no probability"
