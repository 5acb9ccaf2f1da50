"""Leave out customers who opted out or never consented; find those who asked for no automated decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.errors import DataError
from tiermodel.tables.contract import FILTERED, Contract
from tiermodel.tables.row_kinds import KINDS, MAIN_KINDS
from tiermodel.tables.rules import NEVER
from tiermodel.tables.source import Part, Run, literal, scratch_folder
from tiermodel.tables.table import Table, common_id_type
from tiermodel.words import words

__all__ = ["objections", "objectors", "refusals", "without_refusals"]

_CONSENT = "tiermodel_consent"


def without_refusals(
    connection: duckdb.DuckDBPyConnection, run: Run, tables: dict[str, Table], selects: dict[str, str], columns: str
) -> tuple[dict[str, Table], dict[str, str]]:
    """Return tables and SELECTs (of `columns`, by table) without the rows of customers who refused.

    Rows left out count as filtered. Raises DataError where no customer is left.
    """
    if (joins := _consent_joins(connection, tables)) is None:
        return tables, selects
    listed, kept, left_out = joins
    tables = {name: replace(table, source=replace(table.source, beside=listed)) for name, table in tables.items()}
    tables = _with_filtered(run, tables, {name: f"FROM ({sql}) {left_out}" for name, sql in selects.items()})
    return tables, {name: f"SELECT {columns} FROM ({sql}) {kept}" for name, sql in selects.items()}


def _consent_joins(
    connection: duckdb.DuckDBPyConnection, tables: dict[str, Table]
) -> tuple[dict[str, Part], str, str] | None:
    """Return a list of customers and the joins with it that keep rows and that keep rows to leave out.

    The list, in a scratch file, has the customers who opted out, or those who consented where `consent` is mapped; None
    where neither column is mapped. The latest row of a customer counts, whatever the date of a snapshot: consent binds
    today. In doubt the customer is left out: a row quarantined for another column still refuses, an unreadable flag or
    date is a refusal, and among rows of one day a refusal wins.
    """
    mapped = tables["customers"].contract.mapped if "customers" in tables else {}
    if not {"consent", "opt_out"} & set(mapped):
        return None
    latest = refusals(tables["customers"].contract, common_id_type(tables))
    listed = scratch_folder(connection) / "consent.parquet"
    wanted = "NOT refused" if "consent" in mapped else "refused"
    connection.execute(
        f"COPY (SELECT customer_id FROM ({latest}) WHERE {wanted}) TO {literal(str(listed))} (FORMAT parquet)"
    )
    connection.execute(f"CREATE OR REPLACE VIEW {_CONSENT} AS FROM read_parquet({literal(str(listed))})")
    joins = [f"{kind} JOIN {_CONSENT} USING (customer_id)" for kind in ("SEMI", "ANTI")]
    kept, left_out = joins if "consent" in mapped else reversed(joins)
    return {_CONSENT: Part(str(listed), "customer_id")}, kept, left_out


def refusals(contract: Contract, id_type: str) -> str:
    """Return the SQL of every customer of the table, `customer_id`, and whether the latest row `refused`."""
    known = "coalesce(_tm_opt_out_value, _tm_opt_out_text IS NOT NULL)"
    opted_out = known if "opt_out" in contract.mapped else "false"
    refused = f"({opted_out} OR NOT coalesce({contract.value('consent', 'true')}, false))"
    return _latest(contract, refused, id_type)


def objections(contract: Contract, id_type: str) -> str:
    """Return the SQL of every customer, `customer_id`, and whether the latest row `refused` automated decisions."""
    name = "no_automated_decision"
    return _latest(contract, f"coalesce(_tm_{name}_value, _tm_{name}_text IS NOT NULL)", id_type)


def objectors(connection: duckdb.DuckDBPyConnection, tables: dict[str, Table]) -> pa.Array:
    """Return the ids of customers who asked for no automated decision, by their latest row; in doubt they did."""
    latest = objections(tables["customers"].contract, common_id_type(tables))
    found = connection.sql(f"SELECT customer_id FROM ({latest}) WHERE refused ORDER BY 1").to_arrow_table()
    return found["customer_id"].combine_chunks()


def _latest(contract: Contract, refused: str, id_type: str) -> str:
    """Return the SQL of each customer's latest answer (`refused`); in doubt it is a refusal."""
    mapped = contract.mapped
    since = f"{contract.value('valid_from', NEVER)}::BIGINT"
    if "valid_from" in mapped:
        unread = "_tm_valid_from_clean IS NULL AND _tm_valid_from_text IS NOT NULL"
        since = f"CASE WHEN {unread} THEN CASE WHEN {refused} THEN 2147483647 ELSE {NEVER} END ELSE {since} END"
    return (
        "SELECT customer_id, arg_max(refused, since * 2 + refused::INTEGER) AS refused FROM "
        f"(SELECT _tm_customer_id_value::{id_type} AS customer_id, {refused} AS refused, {since} AS since "
        f"FROM ({contract.checked}) WHERE _tm_rule <> {FILTERED} AND _tm_customer_id_value IS NOT NULL) "
        "GROUP BY customer_id"
    )


def _with_filtered(run: Run, tables: dict[str, Table], left_out: dict[str, str]) -> dict[str, Table]:
    """Return the tables with the rows of left-out customers, which `left_out` selects, counted as filtered."""
    lost = {name: _left_out(run, table, left_out[name]) for name, table in tables.items()}
    elsewhere = set().union(*(customers for name, (_, customers) in lost.items() if name != "customers"))
    refused = lost["customers"][1]
    result = {}
    for name, table in tables.items():
        rows, customers = lost[name]
        notes, say = [], words(table.contract.language)
        if rows:
            notes.append(say["note_refused"].format(rows=rows, table=name, customers=len(customers)))
        if name == "customers":
            nobody = len(refused - elsewhere)
            told = say["note_refused_nobody"].format(nobody=nobody, refused=len(refused))
            notes.append(told + (say["note_refused_alike"] if nobody else ""))
        account = replace(table.account, filtered=table.account.filtered + rows)
        result[name] = replace(table, account=replace(account, warnings=(*account.warnings, *notes)))
    account = result["transactions"].account
    if account.read == account.filtered + account.quarantined:
        raise DataError(
            f"TM2080 none of {len(lost['transactions'][1]):,} customers with transactions may be used: all opted out, "
            "or none consented (no row is no consent); check data.customers.columns, and that ids are written alike in "
            "both tables"
        )
    return result


def _left_out(run: Run, table: Table, rows: str) -> tuple[int, set[Any]]:
    """Return the number of source rows, and the ids, among rows of the stream."""
    codes = [KINDS[kind] for kind in MAIN_KINDS[table.contract.table]]
    count, customers = 0, set[Any]()
    for batch in run(table.source, f"SELECT kind, customer_id, count(*) AS rows FROM ({rows}) GROUP BY ALL"):
        found = batch.filter(pc.is_in(batch["kind"], pa.array(codes, pa.int8())))
        count += pc.sum(found["rows"]).as_py() or 0
        customers.update(found["customer_id"].to_pylist())
    return count, customers
