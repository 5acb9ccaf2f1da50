"""A checked table of a project, and the SQL of its customer ids in the stream of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from tiermodel.tables.contract import Accounting, Bad, Contract
from tiermodel.tables.source import Run, Source

__all__ = ["EPOCH", "TABLES", "Table", "common_id_type", "customer_sql"]

TABLES = ("transactions", "customers", "events", "invoices", "costs")
EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Table:
    """A checked table: its contract and source, the account of its rows, and the type of its customer ids.

    If `whole_ids`, all ids are text such as 13085.0, and the ending `.0` is dropped.
    """

    contract: Contract
    source: Source
    account: Accounting
    id_type: str
    whole_ids: bool

    def bad_rows(self, run: Run) -> Iterator[Bad]:
        """Yield the quarantined rows, ordered by file."""
        return self.contract.bad_rows(run, self.source, self.account.rules)


def customer_sql(table: Table) -> str:
    """Return the SQL of a row's customer id, without the ending of 13085.0 where all ids of the table have it."""
    customer = "_tm_customer_id_value"
    if not table.whole_ids:
        return customer
    return f"CASE WHEN ends_with({customer}, '.0') THEN left({customer}, length({customer}) - 2) ELSE {customer} END"


def common_id_type(tables: dict[str, Table]) -> str:
    """Return the type of ids in the stream: text, unless they are numbers in every table."""
    types = {table.id_type for table in tables.values()}
    return types.pop() if len(types) == 1 else "VARCHAR"
