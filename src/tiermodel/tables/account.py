"""The account of a table: how many rows are good, filtered or bad, what is odd, and when they are refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tiermodel.config.custom import custom_column, is_custom
from tiermodel.config.project import Project
from tiermodel.errors import DataError, EmptyInputError, TooManyBadRowsError
from tiermodel.tables import rules
from tiermodel.tables.contract import FILTERED, GOOD, Accounting, Contract, Groups
from tiermodel.tables.rules import RULES
from tiermodel.tables.source import Run, Source
from tiermodel.words import in_language, words

__all__ = ["account_of"]

_EXAMPLES = 5
_NOTES = (
    "ids_cleaned", "ids_whole", "ids_null_words", "quantity_missing", "discount_missing", "arrival_unknown",
    "orders_missing",
)  # fmt: skip
_FIRST, _LAST = -25567, 84005  # 1900-01-01 and 2199-12-31, in days since 1970


def account_of(run: Run, project: Project, contract: Contract, source: Source, groups: Groups) -> Accounting:
    """Return the account of a table's rows; refuse one without good rows, with too many bad ones, or with mixed zones.

    Raises DataError, or TooManyBadRowsError above `data.max_bad_share`.
    """
    names = dict(enumerate(RULES, 1))
    counts = {names[rule]: group["rows"] for rule, group in sorted(groups.items()) if rule in names}
    for record in source.rejected:
        counts[record.rule] = counts.get(record.rule, 0) + 1
    good = groups.get(GOOD, {})
    say, mapped = words(contract.language), contract.mapped
    warnings = tuple(
        say[f"note_{name}"].format(n=good[name], order_id=mapped.get("order_id")) for name in _NOTES if good.get(name)
    )
    for name in filter(is_custom, mapped):
        if good.get(f"{name}_missing"):
            key = f"features.custom.{name.removeprefix(custom_column(''))}"
            lacking = {"n": good[f"{name}_missing"], "key": key, "column": mapped[name]}
            warnings += (say["note_custom_missing"].format(**lacking),)
    if 2 * good.get("arrived_late", 0) > good.get("rows", 0):
        late = {"late": good["arrived_late"], "rows": good["rows"], "column": mapped["ingested_at"]}
        warnings += (say["note_loaded"].format(**late),)
    warnings += tuple(
        say["note_open"].format(n=good[f"{name}_open"], name=name, column=mapped[name])
        for name in rules.DATES
        if good.get(f"{name}_open")
    )
    account = Accounting(
        read=sum(group["rows"] for group in groups.values()) + len(source.rejected),
        filtered=groups.get(FILTERED, {}).get("rows", 0),
        quarantined=sum(counts.values()),
        rules=counts,
        warnings=source.warnings + warnings,
    )
    _refuse_empty(contract, source, account)
    _refuse_bad(run, project, contract, source, account)
    _refuse_impossible(contract, source, good)
    _refuse_mixed_zones(project, contract, good)
    _refuse_mixed_currencies(contract, good)
    return account


def _refuse_empty(contract: Contract, source: Source, account: Accounting) -> None:
    where = ", ".join(source.files[:3])
    if account.read == 0:
        kind = EmptyInputError if contract.table == "transactions" else DataError
        raise kind(f"TM1002 {where}: there are 0 rows of {contract.table}")
    if account.read == account.filtered:
        why = "data.events.kinds" if contract.table == "events" else f"data.{contract.table}.where"
        raise DataError(f"TM1002 {where}: {why} leaves none of {account.read} rows")


def _refuse_bad(run: Run, project: Project, contract: Contract, source: Source, account: Accounting) -> None:
    left = account.read - account.filtered
    share = account.quarantined / left
    damaged = account.rules.get("customer_id_damaged", 0)
    if share <= project.data.max_bad_share and account.quarantined < left and not damaged:
        return
    say = words(contract.language)
    lines = [say["bad_rows"].format(bad=account.quarantined, rows=left, share=share)]
    lines += _broken_rules(run, contract, source, account)
    if account.quarantined == left or damaged:
        why = say["bad_ids_damaged" if damaged else "bad_all"].format(lines[0])
        raise DataError("\n".join([why, *lines[1:]]))
    lines.append(say["bad_allowed"].format(project.data.max_bad_share))
    raise TooManyBadRowsError("\n".join(lines))


def _broken_rules(run: Run, contract: Contract, source: Source, account: Accounting) -> Iterator[str]:
    """Yield a line for each rule that rows break, and one for each of a few such rows."""
    for name, count in account.rules.items():
        example = next(contract.bad_rows(run, source, account.rules, 1, name))
        wrong = in_language(contract.language, f"{RULES[name].wrong_zh} ", "")
        yield f"  {count:,} × {wrong}{name} ({RULES[name].code}): {example[-1]}"
    say = words(contract.language)
    for file, row, name, _, column, value, _ in contract.bad_rows(run, source, account.rules, _EXAMPLES):
        shape = say["bad_shape"] if value and contract.hides(RULES[name].column) else ""
        yield say["bad_row"].format(file=file, row=row, column=column or say["bad_record"], value=value) + shape


def _refuse_impossible(contract: Contract, source: Source, good: dict[str, Any]) -> None:
    """Raise DataError for good rows whose day or amount no good row can have.

    DuckDB drops the test of a bound that holds by the statistics of a Parquet file, which a flipped bit makes untrue.
    """
    days = [*(good.get("first") or ()), *(good.get("last") or ())]
    impossible = {
        "a day before 1900 or after 2199": any(not _FIRST <= day <= _LAST for day in days),
        "an amount beyond 1e12": good.get("amount_none", 0) > 0,
    }
    for what in (told for told, found in impossible.items() if found):
        raise DataError(
            f"TM1105 {', '.join(source.files[:3])}: the {contract.table} hold {what}, but the file itself states that "
            "it has none: it is damaged, or its writer at fault. Copy or write it again."
        )


def _refuse_mixed_zones(project: Project, contract: Contract, good: dict[str, Any]) -> None:
    for name in rules.DATES:
        aware = good.get(f"{name}_aware", 0)
        dated = good.get("rows", 0) - good.get(f"{name}_absent", 0)
        if 0 < aware < dated:
            raise DataError(
                f"TM2066 {contract.mapped[name]!r} mixes times with an offset ({aware} rows) and without "
                f"({dated - aware} rows): write all of them one way, or, where those without are of "
                f"{project.timezone}, map {name} to TRY_CAST({contract.columns[name]} AS TIMESTAMPTZ)"
            )


def _refuse_mixed_currencies(contract: Contract, good: dict[str, Any]) -> None:
    currencies = good.get("currencies") or []
    if len(currencies) > 1:
        raise DataError(
            f"TM2052 {contract.mapped['currency']!r} holds {', '.join(currencies)}: amounts in them have no sum. "
            "Set the project's `currency` (rows in others are quarantined), or convert amounts to one."
        )
