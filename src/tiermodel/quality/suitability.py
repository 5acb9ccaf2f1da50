"""Suitability: what transactions must hold, at the least, to train on; `train` refuses less, and `check` foretells it.

Both read the same snapshots, so that they refuse the same data in the same words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Literal

import pandas as pd

from tiermodel.config.project import Features, Project
from tiermodel.engines.duckdb import complete_until
from tiermodel.errors import DataError
from tiermodel.features.dates import snapshot_dates
from tiermodel.features.frame import has_bought, rows_at
from tiermodel.features.outcome import Labels, at_risk
from tiermodel.features.panel import build_panel
from tiermodel.features.sampling import sample_rows
from tiermodel.models.learners.time_split import FEWEST_PER_CLASS, FEWEST_POSITIVE
from tiermodel.tables.history import History
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.words import in_language, words

__all__ = ["FLOOR", "Finding", "refuse_unsuitable", "suitability", "suitability_of"]


Level = Literal["ok", "warn", "refuse"]

# Below these, grading is refused. Vendors publish 100 to 1,000 customers and twice the outcome window or 180 days.
FLOOR = {"buyers": 100, "repeat_buyers": 50, "horizons_of_history": 2, "budget_dates": 3}
_SAMPLED = 2_500  # customers, where there are many more: what the floors ask for many times


@dataclass(frozen=True)
class Finding:
    """A finding of the data check: its level, its code, and the figures behind it."""

    level: Level
    code: str
    values: dict[str, Any]

    def of_sample(self, number: int) -> Finding:
        """Return the finding as one on one customer in so many."""
        return replace(self, values=self.values | {"one_in": number})

    def text(self, language: str = "en") -> str:
        """Return the finding as a text.

        >>> Finding("warn", "returns", {"return_share": 0.25}).text("zh")
        '退货记录占 25.0%'
        """
        wording, values = words(language), self.values
        if "kind" in values:
            values = {**values, "kind": wording[f"personal_{values['kind']}"]}
        if "wrong_zh" in values:
            values = {**values, "rule": in_language(language, values["wrong_zh"], values["wrong_en"])}
        text = wording[f"check_{self.code}"].format(**values)
        if self.level != "ok" and f"check_{self.code}_remedy" in wording:
            text += wording[f"check_{self.code}_remedy"]
        return text + wording["check_one_in"].format(**values) if "one_in" in values else text


def suitability(
    project: Project, panel: pd.DataFrame, as_of: date, first_day: date, complete: date
) -> Iterator[Finding]:
    """Yield what is needed to train as of a date: buyers, history, outcomes of either kind, dates to judge a rule on.

    `panel` has the snapshot of the date, and those to learn from with their outcomes (NaN: not known at the date);
    `first_day` is the first day of the data, `complete` the first day that may lack rows at the date.
    """
    labels = Labels.of(project)
    snapshot = rows_at(panel, [as_of])
    counts = {
        "buyers": int(has_bought(snapshot).sum()),
        "repeat_buyers": int((snapshot["order_count_total"] > 1).sum()),
    }
    for name, count in counts.items():
        yield _enough(name, count >= FLOOR[name], {name: count, "floor": FLOOR[name]})
    yield _enough_history(project, labels, (complete - first_day).days)
    learned = snapshot_dates(project.panel, labels, complete - timedelta(labels.delay_days), first_day)
    if not learned:
        return
    rows = rows_at(sample_rows(panel, pd.Timestamp(as_of), project.panel.customers, project.seed), learned)
    exposed = rows[at_risk(labels.churn, rows) & rows["outcome_churned"].notna().to_numpy()]
    churned = int((exposed["outcome_churned"] == 1).sum())
    fewer = min(churned, len(exposed) - churned)
    values = {"churned": churned, "rows": len(exposed), "floor": FEWEST_PER_CLASS}
    yield _enough("churned", fewer >= FEWEST_PER_CLASS, values)
    brought = int((has_bought(rows) & (rows["outcome_value"] > 0).to_numpy()).sum())
    yield _enough("brought", brought >= FEWEST_POSITIVE, {"brought": brought, "floor": FEWEST_POSITIVE})
    rule = load_scheme(project).stability
    if rule is not None and rule.moved_share is not None:
        seen, floor = rows.loc[has_bought(rows), "as_of"].nunique(), FLOOR["budget_dates"]
        yield _enough("budget_dates", seen >= floor, {"dates": seen, "floor": floor})


def _enough(code: str, enough: bool, values: dict[str, Any]) -> Finding:
    return Finding("ok" if enough else "refuse", code, values)


def _enough_history(project: Project, labels: Labels, span_days: int) -> Finding:
    """Return the finding on the length of the history, against the outcome and what its labels take to be known."""
    horizon = project.outcome.horizon_days
    first_snapshot = labels.delay_days + min(project.panel.every_days, labels.value.window.days)
    needed = max(FLOOR["horizons_of_history"] * horizon + project.outcome.gap_days, first_snapshot)
    return _enough("history", span_days >= needed, {"span_days": span_days, "needed": needed, "horizon": horizon})


def suitability_of(project: Project, history: History, customers: int) -> list[Finding]:
    """Return the findings of `suitability` as of `latest`, from snapshots of few features.

    Of many `customers` some are enough to see that all suffice; else all are looked at.
    """
    number = customers // _SAMPLED
    if number > 1:
        found = [finding.of_sample(number) for finding in _findings(project, history.one_in(number))]
        if all(finding.level == "ok" for finding in found):
            return found
    return _findings(project, history)


def _findings(project: Project, history: History) -> list[Finding]:
    now, labels = history.latest, Labels.of(project)
    complete = complete_until(history, now)
    learned = snapshot_dates(project.panel, labels, complete - timedelta(labels.delay_days), history.first_day)
    few, here = Features(groups=("rfm",), windows_days=(30,)), project.data.model_copy(update={"engine": "duckdb"})
    plain = project.model_copy(update={"features": few, "data": here})
    panel = build_panel(plain, [*learned, now], with_outcome=True, known_until=now, drawn_before=now, history=history)
    return list(suitability(project, panel, now, history.first_day, complete))


def refuse_unsuitable(project: Project, findings: Iterable[Finding]) -> None:
    """Raise `DataError` with the findings that refuse the data, one a line, in the project's language."""
    if refused := [finding.text(project.language) for finding in findings if finding.level == "refuse"]:
        raise DataError("\n".join(refused))
