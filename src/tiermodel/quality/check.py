"""The data check: whether the transactions suffice to grade customers, and the churn horizon that they suggest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import Any

import pyarrow as pa

from tiermodel.config.project import Project, require_project
from tiermodel.engines.dispatch import Rows, history_of
from tiermodel.engines.duckdb import query_faults, rows_from
from tiermodel.quality.suitability import Finding, Level, suitability_of
from tiermodel.tables.contract import Accounting
from tiermodel.tables.history import History, read_history
from tiermodel.tables.personal_data import find_personal, looks_personal, names_column
from tiermodel.tables.privacy import hash_key, masked, public_ids, shows_values
from tiermodel.tables.readers.parquet_pages import has_checksums, values_outside
from tiermodel.tables.row_kinds import KINDS
from tiermodel.tables.rules import RULES
from tiermodel.tables.source import refuse_changed
from tiermodel.tables.table import EPOCH, Table
from tiermodel.tiers.schemes.load import load_scheme
from tiermodel.words import notebook_table, words

__all__ = ["CheckReport", "HorizonAdvice", "check", "suggest_horizon"]


_LIMITS = {
    "one_order_share": 0.8,
    "order_counts": 3,
    "gini": 0.05,
    "largest_customer_share": 0.2,
    "largest_value_share": 0.2,
    "default_date_share": 0.01,
    "thin_end_days": 3,
    "silent_days": 31,
}
_DEFAULT_DAYS, _YEAR = (-25567, 3652, 10957), 365  # 1900-01-01, 1980-01-01, 2000-01-01
_QUANTILES = (0.5, 0.75, 0.9, 0.95)
_ORDERS = "check_orders"
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class HorizonAdvice:
    """The churn horizon that the gaps between a customer's purchase days suggest.

    `gaps` is the number of gaps, `quantiles` their quantiles in days by share (0–1), `share_within` the share that is
    not longer than the project's `horizon_days`. Gaps are censored at the end of the data, so long ones are
    undercounted.
    """

    gaps: int
    quantiles: dict[float, int]
    horizon_days: int
    share_within: float
    suggested_days: int


@dataclass(frozen=True)
class CheckReport:
    """The result of a data check: the account of the rows, facts about the good ones, and the findings."""

    accounting: Accounting
    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    horizon: HorizonAdvice | None
    language: str = "en"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the lines of `to_text`, in the language of the project."""
        lines = self.to_text(self.language).splitlines()
        return notebook_table(self.language, words(self.language)["shown_check"], [(line,) for line in lines])

    @property
    def refused(self) -> bool:
        """Whether any finding refuses the data."""
        return any(finding.level == "refuse" for finding in self.findings)

    def to_text(self, language: str = "en") -> str:
        """Return the report in English or Chinese (zh), gravest findings first."""
        order: list[Level] = ["refuse", "warn", "ok"]
        wording = words(language)
        lines = [wording["check_summary"].format(**self.facts, **vars(self.accounting))]
        ranked = sorted(self.findings, key=lambda finding: order.index(finding.level))
        return "\n".join(lines + [f"{wording[f'check_is_{f.level}']}  {f.text(language)}" for f in ranked])

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values that JSON can hold."""
        findings = [
            {"level": item.level, "code": item.code, "text": item.text(), "text_zh": item.text("zh")}
            for item in self.findings
        ]
        horizon = {**vars(self.horizon), "quantiles": _named(self.horizon)} if self.horizon else None
        account = vars(self.accounting) | {"warnings": list(self.accounting.warnings)}
        result = {"refused": self.refused, "accounting": account, "facts": self.facts}
        return {**result, "findings": findings, "horizon": horizon}


def check(project: Project, *, history: Rows = None) -> CheckReport:
    """Check whether a project's transactions suffice to grade customers, and whether columns hold personal data.

    Parameters
    ----------
    project
        The project whose tables are read.
    history
        The project's tables, opened before; without it the project's files are read.

    Returns
    -------
    CheckReport
        The account of the rows, facts about the good ones, findings (ok, warn or refuse), and a churn horizon.

    Raises
    ------
    DataError
        If the data cannot be read, has no good row, or has more bad rows than `data.max_bad_share`.
    ProjectError
        If a mapping does not fit the columns, or the scheme is wrong.
    OutputError
        If memory or disk do not suffice.

    Examples
    --------
    >>> import pandas as pd
    >>> from tiermodel import Project, check, open_history
    >>> columns = {"customer_id": "id", "time": "day", "amount": "amount"}
    >>> data = {"transactions": {"path": "sales.csv", "columns": columns}}
    >>> project = Project.model_validate({"version": 1, "name": "shop", "data": data})
    >>> sales = pd.DataFrame({"id": ["a", "b"], "day": ["2024-01-01", "2024-03-01"], "amount": [5, 7]})
    >>> found = check(project, history=open_history(project, transactions=sales))
    >>> found.refused, [finding.code for finding in found.findings if finding.level == "refuse"]
    (True, ['buyers', 'repeat_buyers', 'history'])

    """
    require_project(project)
    history = read_history(project) if history is None else history_of(project, history)
    with query_faults():
        facts = _facts(history)
        customer = facts.pop("largest_value_customer")
        if facts["largest_value_share"] > _LIMITS["largest_value_share"]:  # else nobody is named
            name = public_ids(pa.array([customer]), hash_key(project))[0].as_py()
            personal = looks_personal(name) and not shows_values()  # an address of mail, a phone
            facts["largest_value_customer"] = masked(name) if personal else name
        purchase_days = _purchase_days(history, one_day=facts.pop("orders_of_one_day"))
        advice = _advice(history, purchase_days, project.outcome.horizon_days)
        history.connection.execute(f"DROP TABLE {_ORDERS}")
    for table in history.tables.values():
        refuse_changed(table.source.seen)
    account = history.account.with_stream(
        deduplicated=facts["duplicates"],
        out_of_window=facts.pop("later_rows"),
        used=facts["rows"] - facts["duplicates"],
    )
    account.check()
    accounts = [table.account for table in history.tables.values()]
    findings = (
        *_suitability(project, history, facts),
        *_span(project, facts),
        *_quality(facts),
        *_broken_rules(history),
        *(Finding("warn", "note", {"note": note}) for a in accounts for note in a.warnings),
        *_damage(history),
        *_personal(project, history),
        *([_horizon_finding(advice)] if advice else []),
    )
    return CheckReport(account, facts, findings, advice, project.language)


def suggest_horizon(history: History, horizon_days: int = 90) -> HorizonAdvice | None:
    """Return the quantiles of the gaps between purchases, and a horizon of whole weeks that covers 90 % of them.

    The suggestion is at most a third of the history, but a week at least. None where nobody returned.
    """
    return _advice(history, _purchase_days(history, one_day=False), horizon_days)


def _purchase_days(history: History, *, one_day: bool) -> str:
    """Return the SQL of the days of purchases: of orders, which are fewer than rows, if each is of one day."""
    of = f"{_ORDERS} WHERE bought >= 0" if one_day else f"({history.transactions_sql}) WHERE amount >= 0"
    return f"SELECT DISTINCT customer_id, day FROM {of}"


def _advice(history: History, purchase_days: str, horizon_days: int) -> HorizonAdvice | None:
    histogram = history.connection.execute(
        "SELECT gap, count(*) FROM (SELECT day - lag(day) OVER (PARTITION BY customer_id ORDER BY day) AS gap FROM "
        f"({purchase_days})) WHERE gap IS NOT NULL GROUP BY gap ORDER BY gap"
    ).fetchall()
    if not histogram:
        return None
    days = [gap for gap, _ in histogram]
    seen = list(accumulate(count for _, count in histogram))
    quantiles = {share: days[bisect_left(seen, share * seen[-1])] for share in _QUANTILES}
    within = sum(count for gap, count in histogram if gap <= horizon_days) / seen[-1]
    span = (history.last_day - history.first_day).days + 1
    suggested = max(7, min(-(-quantiles[0.9] // 7) * 7, span // 3 // 7 * 7))
    return HorizonAdvice(seen[-1], quantiles, horizon_days, within, suggested)


def _facts(history: History) -> dict[str, Any]:
    connection, rows = history.connection, history.transactions_sql
    distinct = f"SELECT DISTINCT * FROM ({rows})" if "row_key" in rows else rows
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_ORDERS} AS "
        "SELECT customer_id, order_key, min(day) AS day, max(day) AS last, count(*) AS lines, "
        "sum(amount) FILTER (WHERE amount >= 0) AS bought, count(*) FILTER (amount < 0) AS returned, "
        "sum(amount) AS net, "
        f"min(amount) AS least, max(amount) AS most, count(*) FILTER (day = {_default_day(history)}) AS undated "
        f"FROM ({distinct}) GROUP BY ALL"
    )
    facts = _record(
        history,
        "SELECT sum(lines)::BIGINT AS used, count(DISTINCT customer_id) AS customers, "
        "count(*) FILTER (bought >= 0) AS orders, sum(returned) / sum(lines) AS return_share, "
        "sum(net) / 10000.0 AS net, count(*) FILTER (last > day) = 0 AS orders_of_one_day, "
        f"min(least) = max(most) AS amounts_constant, sum(undated) / sum(lines) AS default_date_share FROM {_ORDERS}",
    )
    facts |= _record(
        history,
        "SELECT count(*) FILTER (orders > 0) AS buyers, count(*) FILTER (orders > 1) AS repeat_buyers, "
        "coalesce(count(*) FILTER (orders = 1) / nullif(count(*) FILTER (orders > 0), 0), 0) AS one_order_share, "
        "count(DISTINCT orders) FILTER (WHERE orders > 0) AS order_counts, "
        "max(lines) / sum(lines) AS largest_customer_share FROM (SELECT count(*) FILTER (bought >= 0) AS orders, "
        f"sum(lines) AS lines FROM {_ORDERS} GROUP BY customer_id)",
    )
    account, later = history.account, rows_from(history, (history.last_day - EPOCH).days + 1)[KINDS["transaction"]]
    good = account.read - account.quarantined - account.filtered - later
    facts |= {"default_date": str(EPOCH + timedelta(_default_day(history)))}
    facts |= {"rows": good, "later_rows": later, "duplicates": good - facts.pop("used")}
    facts |= _concentration(history) | _calendar(history) | _zeros(history)
    net = money = float(facts.pop("net") or 0)
    if facts["duplicates"]:  # only then, as it reads all rows again
        money = float(_record(history, f"SELECT sum(amount) / 10000.0 AS money FROM ({rows})")["money"] or 0)
    facts |= {"duplicate_amount": round(money - net, 4), "duplicate_share": (money - net) / money if money else 0.0}
    return facts


def _default_day(history: History) -> int:
    """Return the day that programs put for no date: 1970-01-01, or another such day, a year before the second day."""
    first = (history.first_day - EPOCH).days
    if first in _DEFAULT_DAYS:
        second = _record(history, f"SELECT min(day) AS day FROM ({history.transactions_sql}) WHERE day > {first}")[
            "day"
        ]
        if second is not None and second - first > _YEAR:
            return first
    return 0


def _record(history: History, sql: str) -> dict[str, Any]:
    cursor = history.connection.execute(sql)
    names = [column[0] for column in cursor.description or ()]
    return dict(zip(names, cursor.fetchall()[0], strict=True))


def _concentration(history: History) -> dict[str, Any]:
    """Return the shares of purchases (before returns) of the top fifth and of the largest buyer, and who that is.

    Beside them the Gini coefficient.
    """
    found = _record(
        history,
        "SELECT coalesce(sum(bought) FILTER (WHERE place > n - ceil(n / 5)) / sum(bought), 0) AS top_share, "
        "coalesce(2 * sum(place::HUGEINT * bought) / (max(n) * sum(bought)) - (max(n) + 1) / max(n), 0) AS gini, "
        "coalesce(max(bought) / sum(bought), 0) AS largest_value_share, "
        "arg_max(customer_id, place) AS largest_value_customer "
        "FROM (SELECT customer_id, sum(bought) AS bought, "
        "row_number() OVER (ORDER BY sum(bought), customer_id) AS place, "
        f"count(*) OVER () AS n FROM {_ORDERS} WHERE bought > 0 GROUP BY customer_id)",
    )
    largest = found.pop("largest_value_customer")
    return {name: round(float(value), 6) for name, value in found.items()} | {"largest_value_customer": largest}


def _calendar(history: History) -> dict[str, Any]:
    """Return the span, the longest silence, and the last days with under a tenth of the median day's rows, in days."""
    found = _record(
        history,
        "WITH days AS (SELECT day, count(*) AS n FROM "
        f"({history.transactions_sql}) GROUP BY day), "
        "gaps AS (SELECT day - lag(day) OVER (ORDER BY day) - 1 AS gap FROM days) "
        "SELECT coalesce((SELECT max(gap) FROM gaps), 0) AS silent_days, "
        "max(day) - max(day) FILTER (WHERE n >= 0.1 * (SELECT median(n) FROM days)) AS thin_end_days FROM days",
    )
    span = (history.last_day - history.first_day).days + 1
    edges = {"first_day": history.first_day.isoformat(), "last_day": history.last_day.isoformat()}
    return found | edges | {"span_days": span}


def _zeros(history: History) -> dict[str, Any]:
    kind = history.connection.execute(f"DESCRIBE SELECT customer_id FROM {_ORDERS}").fetchall()[0][1]
    if kind != "VARCHAR":
        return {"leading_zero_pairs": 0}
    return _record(
        history,
        "SELECT count(*) AS leading_zero_pairs FROM (SELECT ltrim(customer_id, '0') AS bare FROM "
        f"{_ORDERS} GROUP BY bare HAVING count(DISTINCT customer_id) > 1)",
    )


def _suitability(project: Project, history: History, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield findings on preconditions: what training needs, windows within the history, and values that differ."""
    yield from suitability_of(project, history, facts["customers"])
    long = [str(days) for days in project.features.windows_days if days > facts["span_days"]]
    if long:
        yield Finding("warn", "windows", {"span_days": facts["span_days"], "windows": ", ".join(long)})
    for name, bad in (
        ("one_order_share", facts["one_order_share"] > _LIMITS["one_order_share"]),
        ("order_counts", facts["order_counts"] < _LIMITS["order_counts"]),
    ):
        yield Finding("warn" if bad else "ok", name, {name: facts[name], "limit": _LIMITS[name]})
    values = {"top_share": facts["top_share"], "gini": facts["gini"]}
    yield Finding("ok" if facts["gini"] > _LIMITS["gini"] else "warn", "value_differs", values)


def _span(project: Project, facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield the finding on the customers against managers times customers each, where the scheme states them."""
    teams = [level for level in load_scheme(project).levels if level.managers is not None]
    if not teams:
        return
    places = sum(level.places or 0 for level in teams)
    values = {"managers": sum(level.managers or 0 for level in teams), "places": places, "buyers": facts["buyers"]}
    wide = facts["buyers"] <= places
    yield Finding("warn" if wide else "ok", "span_wide" if wide else "span", values)


def _quality(facts: dict[str, Any]) -> Iterator[Finding]:
    """Yield findings on the rows themselves: shares and counts beyond their limits."""
    yield Finding("ok", "returns", facts)
    for code, bad in (
        ("amounts_constant", facts["amounts_constant"]),
        ("largest_customer_share", facts["largest_customer_share"] > _LIMITS["largest_customer_share"]),
        ("largest_value", facts["largest_value_share"] > _LIMITS["largest_value_share"]),
        ("default_date", facts["default_date_share"] > _LIMITS["default_date_share"]),
        ("thin_end", facts["thin_end_days"] >= _LIMITS["thin_end_days"]),
        ("silent_days", facts["silent_days"] > _LIMITS["silent_days"]),
        ("leading_zeros", facts["leading_zero_pairs"] > 0),
        ("duplicates", facts["duplicates"] > 0),
    ):
        if bad:
            yield Finding("warn", code, facts)


def _damage(history: History) -> Iterator[Finding]:
    """Yield what Parquet files without checksums hold against their own footers, and how many such files there are."""
    unguarded = set()
    for table in history.tables.values():
        mapped = " ".join(table.contract.mapped.values())
        used = {name for name in table.source.columns if name in mapped}
        for file in table.source.origins:
            if not file.lower().endswith(_PARQUET) or has_checksums(file):
                continue
            unguarded.add(file)
            if outside := next(values_outside(file, used), None):
                shown = {name: masked(outside[name]) for name in ("found", "least", "most")}
                yield Finding("warn", "values_outside", outside | (shown if _hidden(table, outside) else {}))
    if unguarded:
        yield Finding("ok", "no_checksums", {"files": len(unguarded)})


def _hidden(table: Table, outside: dict[str, Any]) -> bool:
    """Return whether values of a source column are shown as shapes: of ids, and what looks like personal data."""
    contract, column = table.contract, outside["column"]
    mapped = [name for name, text in contract.mapped.items() if names_column(text, column)]
    return any(contract.hides(name, outside["found"]) for name in [*mapped, *([] if mapped else [""])])


def _personal(project: Project, history: History) -> Iterator[Finding]:
    """Yield the columns that look like personal data, mapped or not; never their values."""
    for name, table in history.tables.items():
        customer = table.contract.mapped["customer_id"]
        for found in find_personal(history.connection, table.source, table.account.read, customer):
            values: dict[str, Any] = {"table": name, "column": found.column, "kind": found.kind}
            values |= {"share": found.share, "sampled": found.sampled}
            hashed = found.is_customer_id and project.data.hash_ids is not None
            code = "personal_id" if found.is_customer_id and not hashed else "personal"
            yield Finding("ok" if hashed else "warn", code, values)


def _broken_rules(history: History) -> Iterator[Finding]:
    """Yield the rules that rows break, each with the remedy for the first such row."""
    for table in history.tables.values():
        for name, count in table.account.rules.items():
            first = next(table.contract.bad_rows(history.run, table.source, table.account.rules, 1, name))
            values = {"count": count, "rule": name, "code": RULES[name].code, "remedy": first[-1]}
            values["wrong_zh"] = f"{RULES[name].wrong_zh}（{name}）"
            values["wrong_en"] = f"{RULES[name].wrong_en}, {name}"
            yield Finding("warn", "rule", values)


def _horizon_finding(advice: HorizonAdvice) -> Finding:
    values = {"q90": advice.quantiles[0.9], "q95": advice.quantiles[0.95], "horizon": advice.horizon_days}
    return Finding("ok", "horizon", {**values, "share": advice.share_within, "suggested": advice.suggested_days})


def _named(advice: HorizonAdvice) -> dict[str, int]:
    return {f"{share:.0%}": days for share, days in advice.quantiles.items()}
