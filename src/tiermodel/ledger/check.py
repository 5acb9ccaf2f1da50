"""Check of a ledger: that its files can be read, and that its gradings, spans and overrides follow from each other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pyarrow.compute as pc

from tiermodel.errors import LedgerError
from tiermodel.ledger.files import read_rows
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.tombstones import Tombstones, read_tombstones
from tiermodel.words import words

__all__ = ["CHECKS", "Checked", "check_ledger", "refuse_faults"]

CHECKS = ("files", "chain", "state", "spans", "exits", "overrides", "erased")
"""What is checked; the words of each are `ledger_check_<name>`."""

_SHOWN = 3  # faults of a kind that are named

# Each row beside the customer's row before it. A changed scheme may have no level of the old code: it begins anew.
_CHAIN = """
    select *, lag(tier_code) over w as was, lag(stable_code) over w as stable_was, lag(event) over w as event_was,
        lag(stable_since) over w as since_was, lag(asked) over w as asked_was,
        lag(asked_since) over w as asked_since_was, lag(operator) over w as operator_was,
        lag(scheme_version) over w as scheme_was,
        sequence = 0 and event <> 'exit' and stable_was is not null and scheme_version = scheme_was as goes_on,
        count(*) over (partition by customer_id, valid_from, sequence) as times
    from rows window w as (partition by customer_id order by valid_from, sequence)
"""
_FAULTS = {
    "chain": """
        sequence = 0 and previous_code is distinct from was
            and not (previous_code is null and scheme_version is distinct from scheme_was)
        or sequence = 0 and (event = 'exit') <> (tier_code is null)""",
    "state": """
        goes_on and (
            stable_since <> case when stable_code = stable_was then since_was else valid_from end
            or (asked = 0) <> (asked_since is null)
            or asked <> 0 and (stable_code <> stable_was or case when sign(asked) = sign(asked_was)
                then asked <> asked_was + sign(asked) or asked_since is distinct from asked_since_was
                else abs(asked) <> 1 or asked_since is distinct from valid_from end))""",
    "spans": "times > 1",
    "exits": "event_was = 'exit' and sequence = 0 and event not in ('enter', 'override')",
    "overrides": """
        sequence = 0 and operator is not null and operator is distinct from operator_was
        or sequence > 0 and event = 'override' and (trim(coalesce(operator, '')) = '' or expires <= valid_from)
        or sequence > 0 and trim(coalesce(reason_1, '')) = ''
        or sequence > 0 and stable_code is null and not $corrected""",
}


@dataclass(frozen=True)
class Checked:
    """What a check counted, and the first faults by the name of the check; none where the ledger holds together."""

    counts: dict[str, int]
    first: str
    last: str
    faults: dict[str, list[str]]

    def to_text(self, language: str) -> str:
        """Return what was proved, in words."""
        wording = words(language)
        lines = [wording["ledger_check_counts"].format(first=self.first, last=self.last, **self.counts)]
        return "\n".join([*lines, *(f"✓ {wording[f'ledger_check_{name}'].format(**self.counts)}" for name in CHECKS)])


def check_ledger(folder: str | Path) -> Checked:
    """Return what a check of a ledger counted and found.

    Every file is read, every page of it checked; then each grading is held against what was in force before it, each
    state of the stability rule against the one before, and the spans of each customer against each other. Raises
    `LedgerError` for a file that cannot be read, `ProjectError` for a folder without a ledger.
    """
    book = Ledger(folder).must_exist()
    faults: dict[str, list[str]] = {name: [] for name in CHECKS}
    faults["files"] += _files(book)
    for name, found in _chain(book).items():
        faults[name] += found
    spans = book.history()
    faults["spans"] += _spans(book, spans)
    tombstones = read_tombstones(book.folder)
    faults["erased"] += _erased(book, tombstones)
    gradings = [file for file in book.files if not file.sequence]
    counts = {
        "files": len(book.all_files),
        "gradings": len(gradings),
        "overrides": len(book.files) - len(gradings),
        "superseded": len(book.all_files) - len(book.files),
        "rows": book.rows,
        "customers": int(spans["customer_id"].nunique()),
        "spans": len(spans),
        "erased": len(tombstones),
    }
    return Checked(counts, str(book.graded[0]), str(book.last_graded), {k: v for k, v in faults.items() if v})


def _files(book: Ledger) -> list[str]:
    """Return the faults of the files: rows of another day, and files that others name and that are not there."""
    names: set[str] = {file.name for file in book.all_files}
    faults: list[str] = []
    for file in book.all_files:
        rows = read_rows([file])
        faults += [
            f"{file.path}: a row has another {column} than {wanted}"
            for column, wanted in (("valid_from", file.day), ("sequence", file.sequence))
            if not pc.all(pc.equal(rows[column], wanted), min_count=0).as_py()
        ]
        faults += [
            f"{book.folder / missing}.parquet is not there, and {file.path.name} goes on from it"
            for missing in sorted({*file.supersedes, *file.follows} - names)
        ]
    return faults


def _erased(book: Ledger, tombstones: Tombstones) -> list[str]:
    """Return the faults of files that have rows of customers who were erased; who they are is not told."""
    faults = []
    for file in book.all_files if len(tombstones) else ():
        found = sum(customer in tombstones for customer in pc.unique(read_rows([file])["customer_id"]).to_pylist())
        faults += [f"{file.path} has rows of {found} customers who were erased: run `tiermodel forget` again"] * bool(
            found
        )
    return faults


def _chain(book: Ledger) -> dict[str, list[str]]:
    """Return the faults of rows that do not follow from the customer's row before."""
    corrected = any(file.supersedes for file in book.all_files)
    found: dict[str, list[str]] = {}
    for name, condition in _FAULTS.items():
        rows = book.query(
            f"with chain as ({_CHAIN}) select customer_id, valid_from, event, was, previous_code from chain "
            f"where {condition} order by valid_from, customer_id limit {_SHOWN}",
            corrected=corrected,
        )
        found[name] = [_told(name, row) for _, row in rows.iterrows()]
    codes = set(book.known_levels)
    unknown = book.query("select distinct tier_code from rows where sequence > 0 and tier_code is not null")
    found["overrides"] += [f"an override gives tier {c!r}, never graded" for c in set(unknown["tier_code"]) - codes]
    return found


def _told(name: str, row: pd.Series) -> str:
    where = f"customer {row['customer_id']!r} on {pd.Timestamp(row['valid_from']).date()} ({row['event']})"
    return {
        "chain": f"{where}: the tier before was {row['was']}, and the grading goes on from {row['previous_code']}",
        "state": f"{where}: the state of the stability rule does not go on from the grading before",
        "spans": f"{where}: two rows of one day",
        "exits": f"{where}: goes on after the customer left",
        "overrides": f"{where}: an override without operator, reason or end after its start, or that nobody set",
    }[name]


def _spans(book: Ledger, spans: pd.DataFrame) -> list[str]:
    """Return the faults of spans that overlap, or that leave a gap though the customer did not leave."""
    after = spans["valid_from"].shift(-1).where(spans["customer_id"] == spans["customer_id"].shift(-1))
    left = book.query("select customer_id, valid_from as valid_to from rows where tier_code is null")
    ended = spans.merge(left.assign(gone=True), on=["customer_id", "valid_to"], how="left")["gone"].notna()
    end, begin = pd.to_datetime(spans["valid_to"]), pd.to_datetime(after)
    wrong = ((end != begin) & begin.notna() & ~(ended.to_numpy() & (end < begin))) | (
        end.notna() & begin.isna() & ~ended.to_numpy()
    )
    return [
        f"customer {row['customer_id']!r}: the span from {row['valid_from']} ends on {row['valid_to']}, not where the "
        "next begins"
        for _, row in spans[wrong].head(_SHOWN).iterrows()
    ]


def refuse_faults(folder: Path, found: Checked) -> None:
    """Raise `LedgerError` with the first faults, where there are any."""
    told = [fault for faults in found.faults.values() for fault in faults]
    if told:
        more = "" if len(told) <= _SHOWN else f"; and {len(told) - _SHOWN} more"
        first = f"{folder} does not hold together: {'; '.join(told[:_SHOWN])}{more}"
        raise LedgerError(f"{first}. Put back the files from a backup, or grade again from the first such day")
