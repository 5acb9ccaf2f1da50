"""The errors that a user can cause: one base class, and one class with its own exit code for each cause."""

from __future__ import annotations

__all__ = [
    "DataError", "EmptyInputError", "GateError", "LedgerError", "ModelError", "OutputBusyError", "OutputError",
    "ProjectError", "TierModelError", "TooManyBadRowsError", "TrackingError",
]  # fmt: skip


class TierModelError(Exception):
    """Base class of every error that a user can cause.

    The message states what is wrong, where, and what to do. The command line prints it without a traceback.

    Attributes
    ----------
    exit_code : int
        Exit code of the command line: 1 here, 2 to 9 in the subclasses.

    Examples
    --------
    >>> from tiermodel import TierModelError, load_project
    >>> try:
    ...     load_project("missing.yaml")
    ... except TierModelError as error:
    ...     print(error, error.exit_code, sep="; exit code ")
    missing.yaml: no such file; give the path of a project file (YAML); exit code 2

    """

    exit_code = 1


class ProjectError(TierModelError):
    """A fault in a project file, a scheme or a command line."""

    exit_code = 2


class DataError(TierModelError):
    """A fault in the input data; nothing has been written."""

    exit_code = 3


class EmptyInputError(DataError):
    """Transactions without a single row, where the caller did not allow an empty table."""


class TooManyBadRowsError(DataError):
    """Too many rows that break the contract: a larger share of the input than `data.max_bad_share` allows."""

    exit_code = 4


class ModelError(TierModelError):
    """A bundle, or a registered model, that is missing or whose hashes, format or columns do not fit."""

    exit_code = 5


class LedgerError(TierModelError):
    """A tier ledger with a file that is damaged, or with gradings that do not follow from each other."""

    exit_code = 5


class OutputBusyError(TierModelError):
    """An output that another run is writing at the moment."""

    exit_code = 6


class OutputError(TierModelError):
    """A fault of the disk, a permission, memory or a server while reading or writing."""

    exit_code = 7


class TrackingError(TierModelError):
    """A tracking store that does not exist or does not answer."""

    exit_code = 8


class GateError(TierModelError):
    """A refused promotion: the challenger failed the gate, or cannot be compared with the champion.

    `verdict` has every check where there was something to judge, else it is None.
    """

    exit_code = 9

    def __init__(self, message: str, verdict: object = None) -> None:
        """Keep the message and the verdict."""
        super().__init__(message)
        self.verdict = verdict
