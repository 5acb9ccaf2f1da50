"""Movement between tiers 等级迁移: transition matrix of two days, the value that moved, and a forecast of tier sizes.

A customer without a tier before is new, a customer without one after is gone. Small cells are suppressed, and so are
further cells from which a total would reveal a small one. The forecast is a Markov chain: the shares that moved between
earlier gradings, and the mean number of new customers. Its baseline is "as many as now", and both are compared on every
past grading.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError, ProjectError
from tiermodel.ledger.ledger import Ledger
from tiermodel.words import words

__all__ = [
    "SMALL",
    "Forecast",
    "Movement",
    "by_tier",
    "forecast_sizes",
    "ledger_forecast",
    "ledger_movement",
    "movement",
]


SMALL = 5
"""Cells of fewer customers are suppressed."""


@dataclass(frozen=True)
class Movement:
    """The transition matrix of customers by tier before and after.

    Rows of `counts` are the tiers before, lowest first, then new; columns are the tiers after, then gone. `value` is
    the summed value of each cell's customers in currency units (None: not known).
    """

    codes: list[str]
    counts: Ints
    value: Floats | None = None

    @property
    def hidden(self) -> Flags:
        """The suppressed cells: small ones, and others from which a total of row or column would reveal one."""
        hidden = (self.counts > 0) & (self.counts < SMALL)
        changed = True
        while changed:
            changed = False
            for counts, mask in ((self.counts, hidden), (self.counts.T, hidden.T)):
                for n in np.flatnonzero(mask.sum(axis=1) == 1):
                    others = np.flatnonzero((counts[n] > 0) & ~mask[n])
                    if others.size:  # a cell whose crossing line has a hidden cell too protects both lines
                        crossed = mask[:, others].any(axis=0)
                        at = others[np.lexsort((counts[n, others], ~crossed))[0]]
                        mask[n, at] = changed = True
        return hidden

    def summary(self) -> dict[str, int]:
        """Return the number of customers who moved up, moved down, stayed, are new and are gone."""
        inner = self.counts[:-1, :-1]
        found = {"up": np.triu(inner, 1), "down": np.tril(inner, -1), "same": np.diag(inner)}
        found |= {"new": self.counts[-1], "gone": self.counts[:, -1]}
        return {name: int(cells.sum()) for name, cells in found.items()}

    def cells(self) -> list[dict[str, Any]]:
        """Return every cell that is not empty: from, to, customers, share of the row, value (None: suppressed)."""
        hidden, rows = self.hidden, self.counts.sum(axis=1)
        found = []
        for i, j in np.argwhere(self.counts > 0):
            shown = not hidden[i, j]
            found.append({
                "from": [*self.codes, "new"][i],
                "to": [*self.codes, "gone"][j],
                "customers": int(self.counts[i, j]) if shown else None,
                "share": float(self.counts[i, j] / rows[i]) if shown else None,
                "value": float(self.value[i, j]) if shown and self.value is not None else None,
            })  # fmt: skip
        return found

    def table(self, language: str, names: Mapping[str, str] | None = None) -> list[dict[str, str]]:
        """Return the matrix as rows of words, the highest tier first; a known value follows the count.

        `names` has the names of tiers by code; a code without one stands for itself.
        """
        wording, hidden = words(language), self.hidden
        tiers = [(names or {}).get(code, code) for code in self.codes]
        order = [*reversed(range(len(self.codes))), len(self.codes)]
        froms, tos = [*tiers, wording["moved_new"]], [*tiers, wording["moved_gone"]]
        found = []
        for i in order:
            texts = {tos[j]: self._text(i, j, shown=not hidden[i, j]) for j in order}
            total = int(self.counts[i].sum())
            alone = hidden[i].sum() == 1 and total == self.counts[i][hidden[i]].sum()  # the total is the hidden cell
            whole = "…" if alone and total >= SMALL else _count(total)
            found.append({wording["moved_from_to"]: froms[i], **texts, wording["moved_all"]: whole})
        return found

    def _text(self, i: int, j: int, *, shown: bool) -> str:
        count = int(self.counts[i, j])
        if not shown:
            return f"< {SMALL}" if count < SMALL else "…"
        return f"{count:,}" if self.value is None or not count else f"{count:,} ({self.value[i, j]:,.0f})"

    def summary_words(self, language: str) -> str:
        """Return the summary as one line."""
        wording = words(language)
        return wording["clause"].join(f"{wording[f'moved_{name}']} {_count(n)}" for name, n in self.summary().items())


def _count(count: int) -> str:
    return f"< {SMALL}" if 0 < count < SMALL else f"{count:,}"


def movement(
    before: pd.DataFrame, after: pd.DataFrame, codes: Sequence[str], value: pd.Series[float] | None = None
) -> Movement:
    """Return the movement between two gradings: frames with `customer_id` and `tier_code`, one row for each customer.

    `codes` are the tiers, lowest first; `value` is indexed by customer. Rows of a ledger and of a score table both fit.
    Raises `DataError` for a customer with two rows, or a tier that is not among `codes`.
    """
    n, sides = len(codes), []
    for frame, when in ((before, "before"), (after, "after")):
        tier = frame.set_index(frame["customer_id"].astype(str))["tier_code"].astype(object)
        if tier.index.has_duplicates:
            raise DataError(f"{int(tier.index.duplicated().sum())} customers are there more than once {when}")
        if unknown := sorted(set(tier) - set(codes)):
            raise DataError(f"tier {unknown[0]!r} {when} is none of {', '.join(codes)}")
        sides.append(tier.map({code: k for k, code in enumerate(codes)}))
    both = pd.concat(sides, axis=1, keys=["before", "after"]).fillna(n).astype(np.int64)
    cell = both["before"].to_numpy() * (n + 1) + both["after"].to_numpy()
    size = (n + 1) ** 2
    counts = np.bincount(cell, minlength=size).reshape(n + 1, n + 1)
    if value is None:
        return Movement(list(codes), counts)
    worth = value.reindex(both.index).fillna(0.0).to_numpy(dtype=np.float64)
    summed = np.bincount(cell, weights=worth, minlength=size).astype(np.float64)
    return Movement(list(codes), counts, summed.reshape(n + 1, n + 1))


def ledger_movement(folder: str | Path, start: date, end: date, scores: Sequence[str | Path] = ()) -> Movement:
    """Return the movement between two days of a ledger.

    The value of a customer is `expected_value` in the last of the score tables that has the customer. Raises
    `ProjectError` for an end that is not after the start, or a day before the first grading, `DataError` for a table
    that is no score table.
    """
    book = Ledger(folder).must_exist()
    if end <= start:
        raise ProjectError(f"movement from {start} to {end}: the second day must be after the first")
    first = book.graded[0]
    if start < first:
        raise ProjectError(f"{folder} begins on {first}: nobody has a tier on {start}; give a later day")
    value = pd.concat([_value(Path(path)) for path in scores]) if scores else None
    if value is not None:
        value = value[~value.index.duplicated(keep="last")]
    return movement(book.as_of(start), book.as_of(end), book.codes, value)


def _value(path: Path) -> pd.Series[float]:
    """Return the expected value by customer from a score table; `DataError` where the file is not one."""
    names = ["customer_id", "expected_value"]
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path, columns=names)
        else:
            table = pd.read_csv(path, usecols=names, dtype={"customer_id": str})
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is no score table with customer_id and expected_value (.parquet or .csv): {error}"
        ) from None
    return table.set_index(table["customer_id"].astype(str))["expected_value"]


@dataclass(frozen=True)
class Forecast:
    """Tier sizes now and at the next grading, by tier code, and a backtest of the forecast.

    `day` is the day of the last grading. A row of `backtest` has the day of a past grading, and the errors there of the
    chain (`error`) and of "as many as now" (`error_as_now`): absolute errors of all sizes, summed, over the customers.
    """

    day: date
    now: dict[str, float]
    forecast: dict[str, float]
    backtest: list[dict[str, Any]]

    def verdict(self, language: str) -> str:
        """Return a sentence on whether the chain beat the baseline of unchanged sizes."""
        wording, n = words(language), len(self.backtest)
        if not n:
            return wording["forecast_untested"]
        ours, same = (float(np.mean([row[name] for row in self.backtest])) for name in ("error", "error_as_now"))
        wins = sum(row["error"] < row["error_as_now"] for row in self.backtest)
        verdict = wording["forecast_better" if ours < same else "forecast_no_better"]
        return wording["forecast_verdict"].format(n=n, ours=ours, same=same, wins=wins, verdict=verdict)


def forecast_sizes(days: Sequence[date], steps: Sequence[Movement]) -> Forecast:
    """Return the tier sizes forecast for the grading after the last of `days`.

    `steps` are the movements from each of `days` to the next; gradings are taken to be equally far apart.
    """
    codes, counts = steps[-1].codes, [step.counts for step in steps]
    backtest = []
    for n in range(1, len(counts)):
        before, actual = counts[n][:-1].sum(axis=1), counts[n][:, :-1].sum(axis=0)
        errors = {"error": _next_sizes(before, counts[:n]), "error_as_now": before}
        whole = max(int(actual.sum()), 1)
        backtest.append(
            {"day": days[n + 1], **{name: float(np.abs(f - actual).sum() / whole) for name, f in errors.items()}}
        )
    now = counts[-1][:, :-1].sum(axis=0)
    ahead = _next_sizes(now, counts)
    sizes = [dict(zip(codes, map(float, found), strict=True)) for found in (now, ahead)]
    return Forecast(days[-1], sizes[0], sizes[1], backtest)


def _next_sizes(sizes: NDArray[Any], steps: Sequence[Ints]) -> Floats:
    """Return the sizes after one more step: the pooled shares that moved, plus the mean number of new customers.

    A tier that nobody was in before keeps its customers.
    """
    total = np.sum(steps, axis=0)
    leaving = total[:-1].sum(axis=1, keepdims=True)
    shares = np.where(leaving > 0, total[:-1, :-1] / np.maximum(leaving, 1), np.eye(len(sizes)))
    return np.asarray(sizes @ shares + total[-1, :-1] / len(steps), dtype=np.float64)


def ledger_forecast(folder: str | Path) -> Forecast:
    """Return the tier sizes at a ledger's next grading; `ProjectError` with fewer than two gradings."""
    book = Ledger(folder).must_exist()
    days, codes = book.graded, book.codes
    if len(days) < 2:
        raise ProjectError(f"{folder} holds one grading: a forecast needs two or more")
    steps, before = [], book.as_of(days[0])
    for day in days[1:]:
        after = book.as_of(day)
        steps.append(movement(before, after, codes))
        before = after
    return forecast_sizes(days, steps)


def by_tier(forecast: Forecast, language: str = "en", names: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return a row of words for each tier, highest first: its name, its size now and its forecast size."""
    wording = words(language)
    sizes: list[dict[str, Any]] = [
        {
            wording["ledger_tier"]: (names or {}).get(code, code),
            wording["ledger_size_now"]: int(now),
            wording["ledger_size_forecast"]: round(forecast.forecast[code]),
        }
        for code, now in forecast.now.items()
    ]
    return sizes[::-1]
