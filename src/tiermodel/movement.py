"""Movement between tiers 等级迁移: who went where between two days, what it was worth, and how large tiers will be.

Customers without a tier before are new, customers without one after are gone. Small cells are not told, nor a cell from
which a total would let one be worked out. The forecast is a Markov chain: the shares that moved between earlier
gradings, and the customers who came; it is played against "as many as now" on every grading it could have forecast.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiermodel.arrays import Flags, Floats, Ints
from tiermodel.errors import DataError, ProjectError
from tiermodel.ledger import Ledger

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
"""Cells of fewer customers are not told."""
_WORDS = {
    "new": ("新进", "new"),
    "gone": ("离开", "gone"),
    "all": ("合计", "all"),
    "from": ("原等级 ＼ 现等级", "from \\ to"),
    "up": ("升级", "up"),
    "down": ("降级", "down"),
    "same": ("不变", "same"),
}


@dataclass(frozen=True)
class Movement:
    """Hold customers by tier before and after: rows are the tiers, lowest first, then new; columns end with gone.

    `value` sums what the customers of each cell are worth, where that is known.
    """

    codes: list[str]
    counts: Ints
    value: Floats | None = None

    @property
    def hidden(self) -> Flags:
        """Tell which cells are not told: small ones, and a second in a line of which a total would tell the one."""
        hidden = (self.counts > 0) & (self.counts < SMALL)
        changed = True
        while changed:
            changed = False
            for counts, mask in ((self.counts, hidden), (self.counts.T, hidden.T)):
                for n in np.flatnonzero(mask.sum(axis=1) == 1):
                    others = np.flatnonzero((counts[n] > 0) & ~mask[n])
                    if others.size:  # where the line across has a hidden cell too, one closes both
                        crossed = mask[:, others].any(axis=0)
                        at = others[np.lexsort((counts[n, others], ~crossed))[0]]
                        mask[n, at] = changed = True
        return hidden

    def summary(self) -> dict[str, int]:
        """Count who moved up, moved down, stayed, is new, is gone."""
        inner = self.counts[:-1, :-1]
        found = {"up": np.triu(inner, 1), "down": np.tril(inner, -1), "same": np.diag(inner)}
        found |= {"new": self.counts[-1], "gone": self.counts[:, -1]}
        return {name: int(cells.sum()) for name, cells in found.items()}

    def cells(self) -> list[dict[str, Any]]:
        """List every cell that holds anybody: from, to, customers, their share of the row, value; None is not told."""
        hidden, rows = self.hidden, self.counts.sum(axis=1)
        found = []
        for i, j in np.argwhere(self.counts > 0):
            told = not hidden[i, j]
            found.append({
                "from": [*self.codes, "new"][i],
                "to": [*self.codes, "gone"][j],
                "customers": int(self.counts[i, j]) if told else None,
                "share": float(self.counts[i, j] / rows[i]) if told else None,
                "value": float(self.value[i, j]) if told and self.value is not None else None,
            })  # fmt: skip
        return found

    def table(self, language: str) -> list[dict[str, str]]:
        """Give the matrix as rows of words, the highest tier first; value stands behind the count where it is known."""
        at, hidden = 0 if language == "zh" else 1, self.hidden
        order = [*reversed(range(len(self.codes))), len(self.codes)]
        froms, tos = [*self.codes, _WORDS["new"][at]], [*self.codes, _WORDS["gone"][at]]
        found = []
        for i in order:
            texts = {tos[j]: self._text(i, j, told=not hidden[i, j]) for j in order}
            total = int(self.counts[i].sum())
            alone = hidden[i].sum() == 1 and total == self.counts[i][hidden[i]].sum()  # the total is the hidden cell
            whole = "…" if alone and total >= SMALL else _count(total)
            found.append({_WORDS["from"][at]: froms[i], **texts, _WORDS["all"][at]: whole})
        return found

    def _text(self, i: int, j: int, *, told: bool) -> str:
        count = int(self.counts[i, j])
        if not told:
            return f"< {SMALL}" if count < SMALL else "…"
        return f"{count:,}" if self.value is None or not count else f"{count:,} ({self.value[i, j]:,.0f})"

    def summary_words(self, language: str) -> str:
        """Write the summary as one line."""
        at = 0 if language == "zh" else 1
        parts = [f"{_WORDS[name][at]} {_count(n)}" for name, n in self.summary().items()]
        return ("，" if at == 0 else ", ").join(parts)


def _count(count: int) -> str:
    return f"< {SMALL}" if 0 < count < SMALL else f"{count:,}"


def movement(
    before: pd.DataFrame, after: pd.DataFrame, codes: Sequence[str], value: pd.Series[float] | None = None
) -> Movement:
    """Count customers by tier before and after; both frames have `customer_id` and `tier_code`, once each.

    `codes` are the tiers, lowest first; `value` is by customer. Ledger rows and score tables will do alike. Raises
    `DataError` for a customer who is there twice, or a tier that `codes` does not name.
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
    """Count movement between two days of a ledger; a customer is worth `expected_value` in the last table with him.

    Raises `ProjectError` for an end that is not after the start, or a day before the first grading, `DataError` for a
    table that is no score table.
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
    """Hold the sizes now, those forecast for the next grading, and how forecasts of the past went.

    A row of `backtest` has the day forecast, and for the chain and for "as many as now" the absolute errors of all
    sizes, summed, as a share of the customers.
    """

    day: date
    now: dict[str, float]
    forecast: dict[str, float]
    backtest: list[dict[str, Any]]

    def verdict(self, language: str) -> str:
        """Say whether the chain was better than "as many as now"."""
        zh, n = language == "zh", len(self.backtest)
        if not n:
            return "历史期数太少，无法回测" if zh else "too few gradings to play the forecast against the past"
        ours, same = (float(np.mean([row[name] for row in self.backtest])) for name in ("error", "error_as_now"))
        wins = sum(row["error"] < row["error_as_now"] for row in self.backtest)
        won = ours < same
        if zh:
            verdict = "预测更好" if won else "预测并不比“与现在相同”更好"
            return f"{n} 期回测：平均误差 {ours:.2%}，“与现在相同” {same:.2%}，{wins} 期更好：{verdict}"
        verdict = "the forecast is better" if won else 'the forecast is no better than "as many as now"'
        return f'{n} past gradings: mean error {ours:.2%}, "as many as now" {same:.2%}, better on {wins}: {verdict}'


def forecast_sizes(days: Sequence[date], steps: Sequence[Movement]) -> Forecast:
    """Forecast the sizes at the grading after the last of `days`, from the movements between each and the next.

    Gradings are taken to be equally far apart.
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
    """Move sizes on by the shares of all steps together, and add the mean of those who came; without a share, stay."""
    total = np.sum(steps, axis=0)
    leaving = total[:-1].sum(axis=1, keepdims=True)
    shares = np.where(leaving > 0, total[:-1, :-1] / np.maximum(leaving, 1), np.eye(len(sizes)))
    return np.asarray(sizes @ shares + total[-1, :-1] / len(steps), dtype=np.float64)


def ledger_forecast(folder: str | Path) -> Forecast:
    """Forecast the sizes of the tiers at the next grading of a ledger; `ProjectError` with fewer than two gradings."""
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


def by_tier(forecast: Forecast) -> list[dict[str, Any]]:
    """List the tiers, highest first, with their size now and forecast."""
    sizes: list[dict[str, Any]] = [
        {"tier": c, "now": int(now), "forecast": forecast.forecast[c]} for c, now in forecast.now.items()
    ]
    return sizes[::-1]
