"""Search for better hyperparameters on past dates, judged on a later date that the search never saw.

By default every label is complete before the first test date of the backtest, so that a backtest of the settings found
is as honest as one of the defaults.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any, get_args

import yaml
from threadpoolctl import threadpool_limits

from tiermodel import disk
from tiermodel.config.learners import Models
from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.engines.duckdb import complete_until
from tiermodel.features.dates import one_date
from tiermodel.features.outcome import Labels
from tiermodel.features.panel import Tally, build_panel
from tiermodel.locks import output_lock
from tiermodel.models.btyd.forecast import Horizons
from tiermodel.models.design_matrix import design_matrix_of_panel
from tiermodel.output import atomic_file
from tiermodel.tables.contract import Accounting
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.tiers.schemes.schema import input_names
from tiermodel.training.dates import backtest_dates, training_dates
from tiermodel.training.train import Progress
from tiermodel.training.tune_search import Found, Search, Target, changed, nested, open_optuna, open_storage, study_file
from tiermodel.words import words

__all__ = ["Tuned", "tune"]


@dataclass(frozen=True)
class Tuned:
    """Result of a tuning run.

    `as_of` is the first day that the run did not know, `judged_on` the later date that judged the settings found.
    `found` has the search of each target, `accounts` the accounts of the tables read. `models` is the section of the
    project with the settings that were better beyond chance.
    """

    as_of: date
    judged_on: date
    found: tuple[Found, ...]
    models: Models
    accounts: dict[str, Accounting]

    def to_yaml(self, language: str = "en") -> str:
        """Return the section `models` for the project file; settings not better beyond chance are comments."""
        section = {"models": self.models.model_dump(exclude_defaults=True)}
        lines = [words(language)["tune_head"].format(self.judged_on)]
        lines += [f"# {f.words(language)}" for f in self.found]
        lines.append(yaml.safe_dump(section, sort_keys=False).rstrip())
        for f in self.found:
            if f.settings and not f.better:
                rest = yaml.safe_dump({f.target: nested(f.settings)}, sort_keys=False).splitlines()
                lines += [f"#  {line}" for line in rest]
        return "\n".join(lines) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        targets = {f.target: {**vars(f), "better": f.better} for f in self.found}
        return {"as_of": str(self.as_of), "judged_on": str(self.judged_on), "targets": targets}

    def save(self, path: str | Path) -> None:
        """Write the section `models` to a file, whole or not at all."""
        with atomic_file(Path(path)) as temporary:
            disk.write_bytes(temporary, self.to_yaml().encode())


def tune(
    project: Project,
    as_of: date | str | None = None,
    *,
    trials: int = 50,
    minutes: float = 60.0,
    study: str | Path | None = None,
    history: Rows = None,
    progress: Progress = lambda _: None,
) -> Tuned:
    """Search hyperparameters of the churn and value models, and judge the best on a later date.

    The project's own settings are measured first. Trials are kept: a run that was stopped goes on where it was, and the
    same seed gives the same trials.

    Parameters
    ----------
    project
        The project whose learner settings are tuned.
    as_of
        The first day that is not known: a date, an ISO date as text, or `latest`; by default the first test date of the
        backtest.
    trials
        The largest number of settings tried for each target.
    minutes
        The time for all trials. Building the snapshots before them and judging after them come on top.
    study
        The SQLite file that keeps the trials; by default `tune.db` beside a SQLite tracking store, or else in the
        current folder.
    history
        The project's tables, opened before, or a DataFrame of transactions, or DataFrames by the name of the table;
        without it the project's files are read.
    progress
        A function that takes lines on the progress.

    Returns
    -------
    Tuned
        The search of each target, and the section `models` with the settings that were better beyond chance.

    Raises
    ------
    DataError
        If the history is too short to test on two dates.
    ProjectError
        If Optuna is not installed.
    OutputError
        If `study` cannot be used.
    OutputBusyError
        If another run uses `study`.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> import pandas as pd
    >>> from tiermodel import Project, open_history, tune
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> sales = pd.DataFrame({"id": ["a", "a"], "day": ["2024-01-01", "2024-03-01"], "amount": [5, 7]})
    >>> history = open_history(project, transactions=sales)
    >>> with TemporaryDirectory() as folder:  # doctest: +ELLIPSIS
    ...     tune(project, history=history, study=f"{folder}/tune.db")
    Traceback (most recent call last):
        ...
    tiermodel.errors.DataError: a backtest needs 210 days and more of history; the data runs from 2024-01-01 to ...

    """
    require_project(project)
    optuna, file = open_optuna(), study_file(project, study)
    with output_lock(file):
        say = words(project.language)
        progress(say["step_reading"])
        history = history_of(project, history)
        now = backtest_dates(project, history)[0] if as_of is None else one_date(as_of, history)
        dates = training_dates(project, complete_until(history, now), history.first_day)
        progress(say["step_snapshots_up_to"].format(day=dates[-1]))
        tally = Tally()
        panel = build_panel(
            project, dates, with_outcome=True, known_until=now, drawn_before=max(dates), history=history, tally=tally
        )
        x = design_matrix_of_panel(panel, input_names(load_scheme(project), panel), Horizons.of(Labels.of(project)))
        began = time.monotonic()
        with threadpool_limits(limits=1), open_storage(optuna, file) as storage:  # one thread: as in training
            searches = [Search.open(optuna, project, target, storage, panel, x) for target in get_args(Target)]
            _run_trials(searches, trials, began + 60 * minutes, progress)
            found = tuple(search.finish(trials) for search in searches)
    best = project
    for one in found:
        best = changed(best, one.target, one.settings if one.better else {})
    return Tuned(now, dates[-1], found, best.models, tally.accounts)


def _run_trials(searches: Sequence[Search], trials: int, deadline: float, progress: Progress) -> None:
    """Measure the project's settings and up to `trials` others of each target, in turn, until the deadline."""
    for number, search in product(range(trials + 1), searches):
        if number and time.monotonic() > deadline:
            break
        if number >= len(search.done()):  # else an earlier run has measured it
            search.step()
        progress(f"{search.target} {number}/{trials}: {search.words()}")
