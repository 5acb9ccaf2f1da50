"""The grading dates of a project: on which days a scoring grades, and when the next grading is due."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

from tiermodel.config.tiers import EveryDays, GradingDates
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import Before

__all__ = ["before_scoring", "is_grading", "next_grading"]


def before_scoring(book: Ledger, day: date, dates: GradingDates, *, regrade: bool = False) -> Before:
    """Return what a scoring on a day starts from, and whether it grades: by the project's grading dates, or on request.

    Between gradings any day may be scored, also one before the last grading. Raises as `Ledger.before` does.
    """
    if regrade or is_grading(dates, book.graded, day) or day in book.again:
        return book.before(day, regrade=regrade)
    last = book.last_graded
    return book.before(day, regrade=last is not None and day < last, grades=False)


def is_grading(dates: GradingDates, graded: Sequence[date], day: date) -> bool:
    """Return whether a scoring on a day is a grading, after the gradings up to now; without dates every one is.

    The first scoring of all is a grading, and so is the first on or after the day on which the next one is due. A day
    that is graded stays one.
    """
    last = max((other for other in graded if other <= day), default=None)
    if last is None or dates is None or last == day:
        return True
    return day >= next_grading(dates, last)


def next_grading(dates: GradingDates, last: date) -> date:
    """Return the first day on which a grading is due after the last one: of the next month, quarter or week (Monday).

    >>> next_grading("monthly", date(2024, 12, 31)), next_grading("weekly", date(2024, 12, 31))
    (datetime.date(2025, 1, 1), datetime.date(2025, 1, 6))
    """
    if dates is None:
        return last + timedelta(1)
    if isinstance(dates, EveryDays):
        return last + timedelta(dates.every_days)
    if dates == "weekly":
        return last + timedelta(7 - last.weekday())
    months = 3 if dates == "quarterly" else 1
    first = last.year * 12 + (last.month - 1) // months * months + months
    return date(first // 12, first % 12 + 1, 1)
