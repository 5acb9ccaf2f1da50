"""A checked table of a project, and the type of customer ids in the stream of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date

from tiermodel.tables.contract import Accounting, Bad, Contract
from tiermodel.tables.source import Run, Source

__all__ = ["EPOCH", "TABLES", "Table", "common_id_type"]

TABLES = ("transactions", "customers", "events", "invoices", "costs")
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Table:
    """A checked table: its contract and source, the account of its rows, and the type of its customer ids."""

    contract: Contract
    source: Source
    account: Accounting
    id_type: str

    def with_warnings(self, warnings: tuple[str, ...]) -> Table:
        """Return the table with further warnings in its account."""
        return replace(self, account=replace(self.account, warnings=self.account.warnings + warnings))

    def bad_rows(self, run: Run) -> Iterator[Bad]:
        """Yield the quarantined rows, ordered by file."""
        return self.contract.bad_rows(run, self.source, self.account.rules)


def common_id_type(tables: dict[str, Table]) -> str:
    """Return the type of ids in the stream: text, unless they are numbers in every table."""
    types = {table.id_type for table in tables.values()}
    return types.pop() if len(types) == 1 else "VARCHAR"
