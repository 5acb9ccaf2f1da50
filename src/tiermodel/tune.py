"""Look for better learner settings on past dates, and judge the best of them on a later date that the search never saw.

By default everything is over before the first test date of the backtest, so that a backtest of the settings found is as
honest as one of the defaults.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, get_args

import yaml
from threadpoolctl import threadpool_limits

from tiermodel.config import Project
from tiermodel.config_models import Models
from tiermodel.engines.chosen import open_history
from tiermodel.features.dates import backtest_dates, one_date, training_dates
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import Tally, build_panel
from tiermodel.models.btyd.forecast import Horizons
from tiermodel.models.design_matrix import design_matrix_of_panel
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History
from tiermodel.tables.output import locked, writing
from tiermodel.tiers.scheme import input_names, load_scheme
from tiermodel.training.train import Progress
from tiermodel.tune_study import Found, Search, Target, changed, nested, open_optuna, open_storage, study_file

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """Hold the searches, the date they were cut at, the later date that judged them, and the accounts of the rows.

    `models` is the project's section with what was found better beyond chance.
    """

    as_of: date
    judged_on: date
    found: tuple[Found, ...]
    models: Models
    accounts: dict[str, Accounting]

    def to_yaml(self) -> str:
        """Give the section `models` for the project file; what is not better beyond chance stands in comments."""
        section = {"models": self.models.model_dump(exclude_defaults=True)}
        lines = [f"# found on dates before {self.judged_on}, judged on {self.judged_on}"]
        lines += [f"# {f.words()}" for f in self.found]
        lines.append(yaml.safe_dump(section, sort_keys=False).rstrip())
        for f in self.found:
            if f.settings and not f.better:
                rest = yaml.safe_dump({f.target: nested(f.settings)}, sort_keys=False).splitlines()
                lines += [f"#  {line}" for line in rest]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain data."""
        targets = {f.target: {**vars(f), "better": f.better} for f in self.found}
        return {"as_of": str(self.as_of), "judged_on": str(self.judged_on), "targets": targets}

    def save(self, path: str | Path) -> None:
        """Write the section, whole or not at all."""
        with writing(Path(path)) as temporary:
            temporary.write_text(self.to_yaml(), encoding="utf-8")


def tune(
    project: Project,
    as_of: date | str | None = None,
    *,
    trials: int = 50,
    minutes: float = 60.0,
    study: str | Path | None = None,
    history: History | None = None,
    progress: Progress = lambda _: None,
) -> Tuned:
    """Try up to `trials` settings for each target within `minutes`; the project's own are measured before them.

    The time is that of the trials: building the snapshots before them and judging after them come on top. Only what is
    known at `as_of` is used, by default the first test date of the backtest. Trials are kept in the SQLite file `study`
    (by default `tune.db`, beside a SQLite tracking store, else in the current folder): a run that was stopped goes on
    where it was, and the same seed gives the same trials. Raises `DataError` where the history is too
    short to test on two dates, `ProjectError` where Optuna is not installed, `OutputError` where `study` cannot be
    used, `OutputBusyError` while another run uses it.
    """
    optuna, file = open_optuna(), study_file(project, study)
    with locked(file):
        progress("reading transactions")
        history = open_history(project) if history is None else history
        now = backtest_dates(project, history)[0] if as_of is None else one_date(as_of, history)
        dates = training_dates(project, now, history.first_day)
        progress(f"building {len(dates)} snapshots up to {dates[-1]}")
        tally = Tally()
        panel = build_panel(
            project,
            dates,
            with_outcome=True,
            known_until=now,
            drawn_before=max(dates),
            history=history,
            tally=tally,
        )
        x = design_matrix_of_panel(panel, input_names(load_scheme(project), panel), Horizons.of(Labels.of(project)))
        began = time.monotonic()
        with threadpool_limits(limits=1), open_storage(optuna, file) as storage:  # one thread: as in training
            searches = [Search.open(optuna, project, target, storage, panel, x) for target in get_args(Target)]
            for number, search in product(range(trials + 1), searches):  # in turn, so that both get some of the time
                if number and time.monotonic() - began > 60 * minutes:
                    break
                if number >= len(search.done()):  # else an earlier run has measured it
                    search.step()
                progress(f"{search.target} {number}/{trials}: {search.words()}")
            found = tuple(search.finish(trials) for search in searches)
    best = project
    for one in found:
        best = changed(best, one.target, one.settings if one.better else {})
    return Tuned(now, dates[-1], found, best.models, tally.accounts)
