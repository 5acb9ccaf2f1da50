"""The features of `features.custom` against plain Python, their laws, and what is refused."""

from __future__ import annotations

import math
import random
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from tiermodel import Project, build_panel, open_history
from tiermodel.bundle.bundle import Bundle
from tiermodel.config.custom import CustomFeature, parsed
from tiermodel.config.project import Features, design_digest, load_project, project_digest
from tiermodel.errors import DataError, ProjectError, TierModelError, TooManyBadRowsError
from tiermodel.features.catalogue import expand
from tiermodel.features.custom import RESERVED
from tiermodel.features.export import write_features
from tiermodel.predict.table import score_schema
from tiermodel.tiers.fitted_features import FITTED
from tiermodel.training.facts import recorded_settings
from worlds import TrainedWorld, small_project

FIRST, DATES = date(2023, 1, 1), (date(2023, 2, 10), date(2023, 6, 1), date(2024, 1, 1))
COLUMNS = {"customer_id": "id", "time": "day", "amount": "amount"}
EVENTS = {"columns": {"customer_id": "id", "time": "day", "kind": "kind", "value": "score"}}
CUSTOM: list[dict[str, Any]] = [
    {"name": "gifts", "name_zh": "礼品行数", "name_en": "gift lines", "unit": "count",
     "measure": "(gift = 'Y' AND amount >= 0)::INTEGER"},
    {"name": "fees", "name_zh": "运费", "name_en": "freight", "unit": "amount", "measure": "fee", "windows_days": [7]},
    {"name": "reached", "name_zh": "接通", "name_en": "calls taken", "unit": "count", "table": "events",
     "measure": "CASE WHEN kind = 'visit' THEN score END"},
    {"name": "gift_share", "name_zh": "礼品占比", "name_en": "share of gifts", "unit": "share",
     "formula": "gifts_{w}d / order_count_{w}d", "windows_days": [30, 45]},
    {"name": "mixed", "name_zh": "混合", "name_en": "mixed", "unit": "number",
     "formula": "max(sqrt(abs(fees_total)), -coalesce(gift_share_30d, 1)) - min(gifts_total, 2) / 8 + visit_count_9d"},
]  # fmt: skip


def project_of(custom: list[dict[str, Any]] = CUSTOM, **features: Any) -> Project:
    data = {"transactions": {"columns": COLUMNS}, "events": EVENTS, "max_bad_share": 0.3}
    chosen = {"groups": ["rfm"], "windows_days": [30, 90], "custom": custom, **features}
    return Project.model_validate({"version": 1, "name": "shop", "data": data, "features": chosen})


def one(**entry: Any) -> list[dict[str, Any]]:
    return [{"name": "own", "name_zh": "自定义", "name_en": "own", **entry}]


def rows_of(seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Draw sales and events of twenty customers; some fees are missing, and none has an exact binary form."""
    draw = random.Random(seed)  # noqa: S311  no secret
    who = [f"客户{n:02d}" for n in range(20)]
    sold = [
        {"id": draw.choice(who), "day": str(FIRST + timedelta(draw.randrange(400))), "gift": draw.choice("YN"),
         "amount": draw.choice([-5.25, 0, 7.1, 12.34]), "fee": draw.choice([None, 0.1, 0.2, 0.30005, -0.7]), "n": n}
        for n in range(400)
    ]  # fmt: skip
    seen = [
        {"id": draw.choice(who), "day": str(FIRST + timedelta(draw.randrange(400))), "n": n,
         "kind": draw.choice(["visit", "click"]), "score": draw.choice([None, 1, 2.5])}
        for n in range(200)
    ]  # fmt: skip
    return pd.DataFrame(sold), pd.DataFrame(seen)


def panel_of(project: Project, sold: pd.DataFrame, seen: pd.DataFrame) -> pd.DataFrame:
    return build_panel(project, DATES, history=open_history(project, transactions=sold, events=seen))


def in_units(value: Any) -> Fraction:
    """Round to 1/10,000, half away from zero; nothing counts as zero."""
    if value is None or math.isnan(value):
        return Fraction(0)
    return Fraction(Decimal(repr(value)).quantize(Decimal("0.0001"), ROUND_HALF_UP))


def told_by_python(sold: list[dict[str, Any]], seen: list[dict[str, Any]], day: date) -> dict[str, float]:
    """Compute the custom features of a customer from the rows before a date."""

    def total(rows: list[dict[str, Any]], value: Any, days: int | None = None) -> float:
        start = date.min if days is None else day - timedelta(days)
        return float(
            sum((in_units(value(r)) for r in rows if start <= date.fromisoformat(r["day"]) < day), Fraction(0))
        )

    def gift(r: dict[str, Any]) -> int:
        return int(r["gift"] == "Y" and r["amount"] >= 0)

    def orders(days: int) -> int:  # without an order id, the purchases of one day are one order
        start = day - timedelta(days)
        return len({r["day"] for r in sold if r["amount"] >= 0 and start <= date.fromisoformat(r["day"]) < day})

    values = {**{f"gifts_{w}d": total(sold, gift, w) for w in (30, 90)}, "gifts_total": total(sold, gift)}
    values |= {"fees_7d": total(sold, lambda r: r["fee"], 7), "fees_total": total(sold, lambda r: r["fee"])}
    for w in (30, 90, None):
        reached = total(seen, lambda r: r["score"] if r["kind"] == "visit" else None, w)
        values["reached_total" if w is None else f"reached_{w}d"] = reached
    for w in (30, 45):
        values[f"gift_share_{w}d"] = total(sold, gift, w) / orders(w) if orders(w) else math.nan
    share = 1 if math.isnan(values["gift_share_30d"]) else values["gift_share_30d"]
    visits = total(seen, lambda r: int(r["kind"] == "visit"), 9)
    values["mixed"] = max(math.sqrt(abs(values["fees_total"])), -share) - min(values["gifts_total"], 2) / 8 + visits
    return values


def test_custom_features_equal_plain_python_to_the_bit() -> None:
    sold, seen = rows_of()
    panel = panel_of(project_of(), sold, seen)
    columns = open_history(project_of(), transactions=sold, events=seen).columns
    names = [f.name for f in expand(project_of().features, columns) if f.group == "custom"]
    assert len(panel) > 50
    for row in panel.to_dict("records"):
        own = [t[t["id"] == row["customer_id"]].to_dict("records") for t in (sold, seen)]
        wanted = told_by_python(own[0], own[1], row["as_of"].date())
        assert list(wanted) == names
        assert {n: row[n] for n in wanted} == pytest.approx(wanted, rel=0, abs=0, nan_ok=True), row["customer_id"]
    assert panel["gift_share_30d"].isna().any()


def test_the_order_of_rows_and_later_rows_change_no_bit() -> None:
    sold, seen = rows_of()
    wanted = panel_of(project_of(), sold, seen)
    turned = panel_of(project_of(), sold.sample(frac=1, random_state=1), seen.sample(frac=1, random_state=2))
    pd.testing.assert_frame_equal(turned, wanted, check_exact=True)
    later = sold.assign(day=str(max(DATES)), fee=99.0, gift="Y", n=sold["n"] + 1000)
    grown = panel_of(project_of(), pd.concat([sold, later]), pd.concat([seen, seen.assign(day="2024-01-01", n=-1)]))
    pd.testing.assert_frame_equal(grown, wanted, check_exact=True)


def test_other_features_are_as_they_were() -> None:
    sold, seen = rows_of()
    without, having = (panel_of(project_of(c), sold, seen) for c in ([], CUSTOM))
    pd.testing.assert_frame_equal(having[without.columns], without, check_exact=True)


def test_the_dictionary_has_them_in_both_languages() -> None:
    columns = {"visit", "value", *(f"custom_{c['name']}" for c in CUSTOM)}
    made = {f.name: f for f in expand(project_of().features, columns) if f.group == "custom"}
    assert (made["gifts_90d"].zh, made["gifts_90d"].en) == ("近90天礼品行数", "gift lines in the last 90 days")
    assert (made["gifts_total"].zh, made["gifts_total"].en) == ("累计礼品行数", "gift lines so far")
    assert (made["gift_share_45d"].zh, made["gift_share_45d"].unit) == ("近45天礼品占比", "share")
    assert made["mixed"].en == "mixed"


def test_missing_values_are_counted_and_said() -> None:
    sold, seen = rows_of()
    words = open_history(project_of(), transactions=sold, events=seen).account.warnings
    assert f"{sold['fee'].isna().sum()} rows without a value of features.custom.fees (fee) count as 0" in words


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("gifts_total / (gifts_total - gifts_total)", math.nan),
        ("-gifts_total / (gifts_total - gifts_total)", math.nan),
        ("gifts_total * 1e300 * 1e300", math.nan),
        ("sqrt(-1 - gifts_total)", math.nan),
        ("coalesce(1 / (gifts_total - gifts_total), 7)", 7.0),
        ("+order_count_total - order_count_total + 1.5", 1.5),
    ],
)
def test_division_by_zero_and_what_is_not_finite_is_missing(formula: str, value: float) -> None:
    sold, seen = rows_of()
    formula = formula.replace("coalesce(1 /", "coalesce(0 /")
    panel = panel_of(project_of([CUSTOM[0], *one(formula=formula)]), sold[sold["gift"] == "Y"], seen)
    assert np.array_equal(panel.loc[panel["gifts_total"] > 0, "own"].unique(), [value], equal_nan=True)


def bad_rows(measure: str, sold: pd.DataFrame, folder: Path) -> tuple[int, list[str]]:
    project = project_of(one(measure=measure))
    history = open_history(project, transactions=sold, events=rows_of()[1])
    write_features(project, "latest", folder / "f.parquet", history=history)
    file = folder / "f.quarantine.csv"
    return history.account.quarantined, file.read_text("utf-8").splitlines()[1:] if file.exists() else []


def test_a_row_on_which_the_measure_is_no_number_is_quarantined_with_its_value(tmp_path: Path) -> None:
    sold, _ = rows_of()
    sold.loc[3, "amount"], sold["note"] = 77.0, "1"
    sold.loc[3, "note"] = "soon"
    count, lines = bad_rows("1 / (amount - 77)", sold, tmp_path)
    assert count == 1
    assert "custom_not_a_number,TM2058,custom,own = inf" in lines[0]
    assert "nullif" in lines[0]
    assert bad_rows("1 / nullif(amount - 77, 0)", sold, tmp_path) == (0, [])  # the remedy works
    count, lines = bad_rows("note", sold, tmp_path)
    assert count == 1
    assert "own = soon" in lines[0]
    assert bad_rows("TRY_CAST(note AS DOUBLE)", sold, tmp_path) == (0, [])
    assert bad_rows("note::INTEGER", sold, tmp_path) == (0, [])  # fails on that row, which counts as 0
    assert bad_rows("amount * 1e11", sold, tmp_path)[0] == 1 + (sold["amount"] == 12.34).sum()


def test_sums_beyond_64_bits_are_refused() -> None:
    sold, seen = rows_of()
    sold = pd.concat([sold.assign(n=sold["n"] + 1000 * k, id="one") for k in range(4)])
    with pytest.raises(DataError, match="TM2044 customer 'one'"):
        panel_of(project_of(one(measure="900000000000 + amount")), sold, seen)


@pytest.mark.parametrize(
    ("measure", "error", "words"),
    [
        ("fees", ProjectError, r"TM1307 features\.custom\.own: 'fees': there is no column 'fees'; did you mean 'fee'"),
        ("sum(fee)", ProjectError, r"features\.custom\.own: 'sum\(fee\)' .* aggregates"),
        ("sum(fee) FILTER (gift = 'Y')", ProjectError, "aggregates"),
        ("(SELECT max(fee) FROM transactions)", ProjectError, "a subquery is not allowed"),
        ("row_number() OVER ()", ProjectError, "a window is not allowed"),
        ("#1", ProjectError, "a positional_reference is not allowed"),
        ("$1", ProjectError, "a parameter is not allowed"),
        ("*", ProjectError, "features.custom.own"),
        ("fee; DROP TABLE transactions", ProjectError, "syntax error"),
        ("fee) FROM transactions WHERE (1", ProjectError, "features.custom.own"),
        ("random()", ProjectError, "random does not give the same value on every run"),
        ("epoch(now())", ProjectError, "now does not give the same value"),
        ("current_date - day::DATE", ProjectError, "current_date does not give the same value"),
        ("length(read_text('/etc/passwd'))", ProjectError, "table function"),
        ("unnest([1, 2])", ProjectError, "features.custom.own"),
        ("gift = 'Y'", ProjectError, r"TM2045 features\.custom\.own: .* is BOOLEAN.*map \(gift = 'Y'\)::INTEGER"),
        ("gift", DataError, "No row is good.*TM2058"),
        ("fee / 0", TooManyBadRowsError, "TM2058"),
    ],
)
def test_a_measure_that_is_not_a_number_of_its_own_row_is_refused(
    measure: str, error: type[TierModelError], words: str
) -> None:
    sold, seen = rows_of()
    with pytest.raises(error, match=f"(?s){words}"):
        open_history(project_of(one(measure=measure)), transactions=sold, events=seen)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"formula": "order_count_totl + 1"}, "there is no feature order_count_totl.*did you mean order_count_total"),
        ({"formula": "net_amount_30"}, "did you mean net_amount_30d"),
        ({"formula": "own + 1"}, "there is no feature own, nor a custom one above"),
        ({"formula": "invoice_count_30d"}, "needs data.invoices, which is not mapped; map it"),
        ({"formula": "attribute_size * 2"}, "there is no feature attribute_size"),
        ({"name": "net_amount", "measure": "fee"}, "the name net_amount_30d is taken; choose another"),
        ({"name": "order_amount_mean", "formula": "order_count_total"}, "name order_amount_mean is taken"),
        ({"name": "visit_count_12d", "formula": "order_count_total"}, "name visit_count_12d is taken"),
        *(({"name": name, "formula": "order_count_total"}, f"name {name} is taken") for name in ("tier", "p_top")),
    ],
)
def test_names_that_are_taken_or_unknown_are_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ProjectError, match=rf"features\.custom\..*{words}"):
        expand(project_of(one(**entry)).features, {"visit", "value", "custom_own", "custom_net_amount"})


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"formula": "a b"}, "'a b' is not a formula: invalid syntax; write such as a / b"),
        ({"formula": "order_count_total ** 2"}, r"use \+ - \* / only; a square is a \* a"),
        ({"formula": "__import__('os').system('x')"}, "is not allowed: use names, numbers"),
        ({"formula": "order_count_total if gifts_total else 1"}, "is not allowed"),
        ({"formula": "exp(order_count_total)"}, "is not allowed"),
        ({"formula": "max(order_count_total)"}, "max takes 2 arguments, got 1"),
        ({"formula": "order_count_total + 1e999"}, "inf is not a finite number"),
        ({"formula": "order_count_total + True"}, "'True' is not allowed"),
        ({"formula": "1 + 2"}, "names no feature"),
        ({"formula": "-" * 400 + "a" + "+a" * 200}, "is longer than 500 characters"),
        ({"formula": "order_count_total", "measure": "fee"}, "expected either"),
        ({}, "expected either `measure`"),
        ({"formula": "order_count_total", "table": "events"}, "`table` belongs to a measure"),
        ({"formula": "order_count_total", "windows_days": [30]}, "windows_days needs `{w}`"),
        ({"measure": "fee", "windows_days": [60, 30]}, r"write \[30, 60\]"),
        ({"measure": "fee", "table": "invoices"}, "'transactions', 'events' or 'costs'"),
        ({"measure": "fee", "table": "costs"}, "data.costs is not mapped"),
        ({"measure": "fee", "name": "Ab c"}, "use lower-case letters.*got 'Ab c'"),
        ({"measure": "fee", "name": "coalesce"}, "no word of formulas"),
        ({"measure": "fee", "unit": "euros"}, "'count', 'amount'"),
        ({"measure": "fee", "name_zh": " "}, "must not be empty"),
    ],
)
def test_the_project_file_says_what_is_wrong(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        project_of(one(**entry))


def test_a_name_that_is_there_twice_and_the_place_in_the_file_are_told(tmp_path: Path) -> None:
    file = tmp_path / "shop.yaml"
    entry = "{name: own, name_zh: 自, name_en: own, formula: order_count_total %s 2}"
    head = (
        "version: 1\nname: shop\ndata:\n  transactions: {path: a.csv, columns: {customer_id: a, time: b, amount: c}}\n"
    )
    file.write_text(f"{head}features:\n  custom:\n    - {entry % '^'}\n", encoding="utf-8")
    with pytest.raises(ProjectError, match=r"shop\.yaml:7:.*features\.custom.*formula.*use \+ - \* /"):
        load_project(file)
    file.write_text(f"{head}features:\n  custom: [{entry % '+'}, {entry % '-'}]\n", encoding="utf-8")
    with pytest.raises(ProjectError, match="the name own is there twice"):
        load_project(file)


def test_one_name_stands_for_both() -> None:
    named = {"name": "own", "formula": "a / b"}
    both = CustomFeature.model_validate({**named, "name_zh": "自有", "name_en": "自有"})
    assert CustomFeature.model_validate({**named, "name_zh": "自有"}) == both
    assert CustomFeature.model_validate({**named, "name_en": "自有"}) == both
    with pytest.raises(ValueError, match="name_zh"):
        CustomFeature.model_validate(named)


def test_a_deep_formula_is_no_crash() -> None:
    with pytest.raises(ValueError, match="a formula"):
        parsed("(" * 250 + "a" + ")" * 249)
    assert parsed("-" * 200 + "a")


def test_digests_and_settings_of_projects_without_custom_features_stay_as_they_are(tmp_path: Path) -> None:
    plain, own = (small_project(tmp_path / "a.parquet", **({"features": f} if f else {}))
                  for f in (None, {"windows_days": [60, 365], "custom": one(formula="order_count_total")}))  # fmt: skip
    assert "custom" not in recorded_settings(plain, None)["features"]
    assert recorded_settings(own, None)["features"]["custom"][0]["name"] == "own"
    assert project_digest(plain) != project_digest(own)
    assert design_digest(plain, {}) != design_digest(own, {})
    assert Features.model_validate(recorded_settings(own, None)["features"]) == own.features.model_copy(
        update={"audited": ()}
    )


def test_every_column_of_scores_and_every_fitted_feature_is_reserved(trained: TrainedWorld) -> None:
    bundle: Bundle = trained.trained.bundle
    named = {n for n in (*score_schema(bundle).names, *FITTED) if not n.startswith(("p_", "score_"))}
    assert {n for n in named if not n.endswith("_score")} <= RESERVED
