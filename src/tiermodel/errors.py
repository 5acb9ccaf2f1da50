"""Every error a user can cause, one root, one exit code each."""

from __future__ import annotations

__all__ = [
    "DataError",
    "EmptyInputError",
    "GateError",
    "ModelError",
    "OutputBusyError",
    "OutputError",
    "ProjectError",
    "TierModelError",
    "TooManyBadRowsError",
    "TrackingError",
]


class TierModelError(Exception):
    """Say what is wrong, where, and what to do; the command line prints it without a traceback.

    >>> DataError("no rows").exit_code
    3
    """

    exit_code = 1


class ProjectError(TierModelError):
    """Refuse a project file, a scheme or a command line."""

    exit_code = 2


class DataError(TierModelError):
    """Refuse an input; nothing has been written."""

    exit_code = 3


class EmptyInputError(DataError):
    """Refuse transactions without a single row, unless the caller allows for none."""


class TooManyBadRowsError(DataError):
    """Refuse an input in which more rows broke the contract than `data.max_bad_share` allows."""

    exit_code = 4


class ModelError(TierModelError):
    """Refuse a bundle whose hash, format or columns do not fit."""

    exit_code = 5


class OutputBusyError(TierModelError):
    """Refuse to write where another run is writing."""

    exit_code = 6


class OutputError(TierModelError):
    """Report a disk or permission fault."""

    exit_code = 7


class TrackingError(TierModelError):
    """Report a tracking server that does not answer."""

    exit_code = 8


class GateError(TierModelError):
    """Report a gate that said no."""

    exit_code = 9
