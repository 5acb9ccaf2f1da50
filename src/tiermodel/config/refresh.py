"""The settings of the nightly job: where it writes, when it trains, what it writes beside the scores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from tiermodel.config.data import Section, Text
from tiermodel.config.tiers import GradingDates, refuse_other_dates

__all__ = ["Refresh", "Retrain"]


class Retrain(Section):
    """When a refresh trains a challenger, besides the first time, when there is no champion.

    `schedule` trains on the first refresh of a week, month or quarter, or so many days after the last training;
    `max_age_days` once the champion's data end that many days before; `on_alarm` when monitoring advises it, but not
    sooner than `panel.every_days` after the last training. A challenger is trained as of the last day that lies whole
    steps of `panel.every_days` after the champion's, so that both are judged on the same dates.
    """

    schedule: GradingDates = None
    max_age_days: Annotated[int, Field(strict=True, ge=1, le=3660)] | None = None
    on_alarm: Annotated[bool, Field(strict=True)] = True

    @field_validator("schedule", mode="before")
    @classmethod
    def _known_dates(cls, value: object) -> object:
        return refuse_other_dates(value)


class Refresh(Section):
    """The job `tiermodel refresh`: its folder, its trainings, and whether it makes work lists.

    `folder` gets a folder for each date, the ledger, and `CURRENT`, a link to the last complete run; a relative path
    starts at the folder of the project file. `exports` are mapping files, or names of those that ship.
    """

    folder: Text = "runs"
    train: Retrain = Retrain()
    lists: Annotated[bool, Field(strict=True)] = True
    exports: tuple[Text, ...] = ()

    @field_validator("exports")
    @classmethod
    def _each_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("expected each mapping once")
        return value
