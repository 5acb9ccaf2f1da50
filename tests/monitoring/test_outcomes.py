"""What came of tiers: equal to sums by hand on a seeded shop, small groups hidden, nothing from after the window."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

import panels_made
from commands import Run
from conftest import Once
from histories import as_dates
from panels_made import HISTORIES, as_file_rows, file_project, write_other_tables
from tiermodel.config.project import Project, load_project, project_digest
from tiermodel.datasets.synthetic import make_world
from tiermodel.engines.dispatch import open_history, stream
from tiermodel.errors import DataError, ProjectError
from tiermodel.features.followed import Followed, followed_batches
from tiermodel.features.panel import Tally
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import table_of
from tiermodel.monitoring.measures import base_row, curve_rows, tier_rows
from tiermodel.monitoring.outcomes import outcomes, outcomes_beside
from tiermodel.monitoring.statistics import survey_score, wilson
from tiermodel.output import beside
from tiermodel.reporting.report import report
from tiermodel.words import words

CODES = ("low", "middle", "top")
DAYS = (date(2022, 9, 1), date(2022, 11, 1), date(2023, 3, 1))
HORIZON = 60
SURVEYS = {"csat": {}, "nps": {}, "quality": {}, "attitude": {}, "response_time": {"subject": ["speed", "速度"]}}


class Shop(NamedTuple):
    """Give a project file, its ledger, and its tables."""

    project: Path
    ledger: Path
    tables: dict[str, pd.DataFrame]

    def known_on(self, day: date) -> set[str]:
        """Return the customers of whom the tables have a row of an earlier day, but those who opted out."""
        people = self.tables["customers"]
        found = set(people["customer_id"][~people["opt_out"]])
        rows = pd.concat([self.tables[name][["customer_id", "time"]] for name in ("transactions", "events", "costs")])
        seen = set(rows.loc[rows["time"] < pd.Timestamp(day), "customer_id"])
        seen |= set(people["customer_id"][pd.to_datetime(people["signup"]) < pd.Timestamp(day)])
        return found & seen


def _made(folder: Path) -> None:
    path = make_world(seed=3, customers=150, days=450).write(folder)
    draw = np.random.default_rng(4)
    events = pd.read_parquet(folder / "events.parquet")
    buyers = pd.read_parquet(folder / "transactions.parquet")["customer_id"].unique()
    asked = pd.DataFrame({
        "customer_id": draw.choice(buyers, 900),
        "time": pd.Timestamp("2022-08-01") + pd.to_timedelta(draw.integers(0, 200, 900), unit="D"),
        "kind": "survey",
        "subject": draw.choice(["csat", "nps", "quality", "attitude", "speed", "速度", "other"], 900),
        "value": draw.integers(0, 11, 900).astype(float),
    })  # fmt: skip
    events = pd.concat([events[events["kind"] != "survey"], asked, asked.head(3)], ignore_index=True)
    events.to_parquet(folder / "events.parquet")
    people = pd.read_parquet(folder / "customers.parquet")
    people["came"] = draw.choice(["web", "shop", "rare"], len(people), p=[0.5, 0.48, 0.02])
    people.to_parquet(folder / "customers.parquet")
    content = yaml.safe_load(path.read_text())
    content["data"]["events"]["columns"]["subject"] = "subject"
    content["data"]["events"]["surveys"] = SURVEYS
    content["data"]["customers"]["categories"] = {"channel": "came"}
    path.write_text(yaml.safe_dump(content, allow_unicode=True))
    _grade(folder / "ledger", buyers, draw)


def _grade(ledger: Path, customers: Any, draw: np.random.Generator) -> None:
    """Grade at random; three customers only are in the top tier on the first day."""
    tiers = pd.Series(draw.integers(0, 2, len(customers)), index=sorted(customers))
    tiers.iloc[:3] = 2
    before = pd.Series(-1, index=tiers.index)
    for day in DAYS:
        codes = [CODES[tier] for tier in tiers]
        moved = np.sign(tiers - before).map({-1: "down", 0: "stay", 1: "up"}).where(before >= 0, "enter")
        rows = pd.DataFrame({
            "customer_id": tiers.index, "valid_from": day, "sequence": 0, "event": moved.to_numpy(),
            "tier": tiers.to_numpy(), "tier_code": codes, "stable_code": codes, "model_code": codes,
            "previous_code": [CODES[tier] if tier >= 0 else None for tier in before], "stable_since": day,
            "asked": 0, "scheme_version": "s", "model_version": "m",
        })  # fmt: skip
        Ledger(ledger).append(day, table_of(rows))
        before, tiers = tiers, tiers.where(draw.random(len(tiers)) < 0.7, (tiers + 1) % 3)


@pytest.fixture(scope="module")
def shop(once: Once) -> Shop:
    """Make a shop with costs, complaints, surveys and a ledger; tests must not change its files."""

    def made(folder: Path) -> Path:
        _made(folder)
        return folder

    folder: Path = once("outcomes_shop", made)
    names = ("transactions", "customers", "events", "costs")
    return Shop(
        folder / "project.yaml",
        folder / "ledger",
        {name: pd.read_parquet(folder / f"{name}.parquet") for name in names},
    )


def test_rows_are_the_sums_of_the_outcome_window(shop: Shop, tmp_path: Path) -> None:
    done = outcomes(load_project(shop.project), shop.ledger, tmp_path / "o.parquet", smallest=1)
    found = pd.read_parquet(tmp_path / "o.parquet")
    assert done.gradings == DAYS[:2]
    assert done.not_over == DAYS[2:]
    assert len(found) == len(DAYS[:2]) * len(CODES)
    book = Ledger(shop.ledger)
    for day, rows in found.groupby("graded"):
        first = pd.Timestamp(str(day))
        tier = book.as_of(first.date()).set_index("customer_id")["tier_code"]
        tier = tier[tier.index.isin(shop.known_on(first.date()))]
        within = {
            name: table[(table["time"] >= first) & (table["time"] < first + pd.Timedelta(days=HORIZON))]
            for name, table in shop.tables.items()
            if "time" in table
        }
        earlier = shop.tables["transactions"]
        earlier = earlier[(earlier["time"] < first) & (earlier["amount"] >= 0)]
        buyers = set(earlier["customer_id"])
        for row in rows.to_dict("records"):
            mine = tier.index[tier == row["tier_code"]]
            sales, costs, events = (
                within[name][within[name]["customer_id"].isin(mine)] for name in ("transactions", "costs", "events")
            )
            assert row["customers"] == len(mine)
            assert row["revenue"] == pytest.approx(sales["amount"].sum())
            assert row["margin"] == pytest.approx((sales["amount"] - sales["cost"]).sum())
            assert row["cost_to_serve"] == pytest.approx(costs.drop_duplicates()["amount"].sum())
            assert row["contribution"] == pytest.approx(row["margin"] - row["cost_to_serve"])
            bought = sales.loc[sales["amount"] >= 0, "customer_id"]
            assert row["at_risk"] == len(set(mine) & buyers)
            assert row["retained"] == len(set(bought) & buyers)
            assert (row["retained_low"], row["retained_high"]) == pytest.approx(
                wilson(row["retained"], row["at_risk"]), abs=1e-6
            )
            assert row["complaints"] == (events.drop_duplicates()["kind"] == "complaint").sum()
            asked = events[events["kind"] == "survey"].drop_duplicates()
            _check_surveys(row, asked)
        assert rows["value_share"].sum() == pytest.approx(1)


def _check_surveys(row: Mapping[Any, Any], asked: pd.DataFrame) -> None:
    for name, subjects in (("quality", ["quality"]), ("response_time", ["speed", "速度"])):
        answers = asked[asked["subject"].isin(subjects) & asked["value"].between(1, 5)]["value"]
        assert row[f"{name}_n"] == len(answers)
        if len(answers):
            assert row[f"{name}_score"] == pytest.approx(answers.mean(), abs=1e-6)
            assert 1 <= row[f"{name}_low"] <= row[f"{name}_score"] <= row[f"{name}_high"] <= 5
    answers = asked[asked["subject"] == "nps"]["value"]
    if len(answers):
        score = 100 * ((answers >= 9).mean() - (answers <= 6).mean())
        assert row["nps_score"] == pytest.approx(score, abs=1e-5)
    answers = asked[(asked["subject"] == "csat") & asked["value"].between(1, 5)]["value"]
    if len(answers):
        assert row["csat_score"] == pytest.approx((answers >= 4).mean(), abs=1e-6)


def test_moves_are_those_of_the_next_grading(shop: Shop, tmp_path: Path) -> None:
    outcomes(load_project(shop.project), shop.ledger, tmp_path / "o.parquet", smallest=1)
    found = pd.read_parquet(tmp_path / "o.parquet").set_index(["graded", "tier_code"])
    book = Ledger(shop.ledger)
    both = book.as_of(DAYS[0]).merge(book.as_of(DAYS[1]), on="customer_id", suffixes=("", "_then"))
    middle = both[both["tier_code"] == "middle"]
    ups = (middle["tier_then"] > middle["tier"]) & middle["customer_id"].isin(shop.known_on(DAYS[0]))
    assert found["moved_up"].to_dict()[DAYS[0], "middle"] == ups.sum()
    for name in ("moved_up", "moved_down"):
        assert found.xs(DAYS[0])[name].sum() > 0
    assert found["left"].sum() == 0


def test_tiers_on_a_day_are_those_of_the_ledger(shop: Shop, tmp_path: Path) -> None:
    shutil.copytree(shop.ledger, tmp_path / "ledger")
    customer = Ledger(shop.ledger).as_of(DAYS[2])["customer_id"].iloc[0]
    start, end = DAYS[2] + timedelta(5), DAYS[2] + timedelta(9)
    Ledger(tmp_path / "ledger").override(customer, "top", start, until=end, operator="Li", reason="key account")
    book = Ledger(tmp_path / "ledger")
    for day in (*DAYS, start, end, DAYS[0] - timedelta(1)):
        wanted = book.as_of(day).sort_values("customer_id")
        assert book.tiers_on(day)["customer_id"].to_pylist() == wanted["customer_id"].tolist()
        assert book.tiers_on(day)["tier_code"].to_pylist() == wanted["tier_code"].tolist()


def test_surveys_after_the_window_never_count(shop: Shop, tmp_path: Path) -> None:
    project = load_project(shop.project)
    usual = outcomes(project, shop.ledger, tmp_path / "o.parquet")
    events = shop.tables["events"]
    end = pd.Timestamp(DAYS[1] + timedelta(HORIZON))
    cut = events[~((events["kind"] == "survey") & (events["time"] >= end))]
    assert len(cut) < len(events)
    cut.to_parquet(tmp_path / "events.parquet")
    data = project.data.model_dump(mode="json", exclude_none=True)
    data["events"]["path"] = str(tmp_path / "events.parquet")
    other = Project.model_validate({**project.model_dump(exclude_none=True), "data": data})
    assert json.dumps(outcomes(other, shop.ledger, tmp_path / "p.parquet").to_dict()) == json.dumps(usual.to_dict())


def test_small_groups_are_hidden_and_cannot_be_worked_out(shop: Shop, tmp_path: Path) -> None:
    done = outcomes(load_project(shop.project), shop.ledger, tmp_path / "o.csv")
    first = [row for row in done.tiers if row["graded"] == DAYS[0]]
    hidden = {row["tier_code"] for row in first if row["hidden"]}
    assert "top" in hidden
    assert len(hidden) == 2
    told = pd.read_csv(tmp_path / "o.csv")
    of_hidden = told[told["hidden"]].drop(columns=["graded", "tier", "tier_code", "name_zh", "name_en", "hidden"])
    assert of_hidden.isna().all().all()
    for row in done.tiers:
        for name in SURVEYS:
            assert np.isnan(row[f"{name}_n"]) or row[f"{name}_n"] == 0 or row[f"{name}_n"] >= 5
    channels = pd.read_csv(outcomes_beside(tmp_path / "o.csv")[0])
    rare = channels[channels["channel"] == "rare"]
    assert rare["acquisition_cost"].isna().all()
    web = channels[(channels["channel"] == "web") & (channels["graded"] == str(DAYS[0]))].iloc[0]
    assert web["value_to_cac"] == pytest.approx(web["value_to_date"] / web["acquisition_cost"], abs=1e-5)


def test_the_whale_curve_of_a_constructed_base_is_exact() -> None:
    """Two in ten bring 150 % of the profit, three in ten lose 50 %."""
    rows = pd.DataFrame({
        "revenue": [400.0] * 2 + [100.0] * 8, "margin": [100.0, 80.0, *[0.0] * 5, 10.0, 20.0, 30.0],
        "cost_to_serve": [10.0, 20.0, *[0.0] * 5, 25.0, 40.0, 45.0],
    })  # fmt: skip
    found = base_row(rows)
    assert found["contribution"] == 100.0
    assert (found["whale_peak"], found["whale_peak_customers"], found["whale_loss"]) == (1.5, 0.2, 0.5)
    tiers = rows.assign(
        tier=[1, 1, *[0] * 8], after=0.0, value=rows["margin"], at_risk=1.0, churned=0.0, complaints=0.0
    )
    best, rest = tier_rows(tiers, [], {0: "low", 1: "key"}, {}, 1)
    assert (best["contribution_share"], rest["contribution_share"]) == (1.5, -0.5)
    assert best["herfindahl"] == pytest.approx((90**2 + 60**2) / 150**2)
    assert best["top_10_share"] == 1.0
    assert np.isnan(rest["herfindahl"])


def test_scores_of_surveys() -> None:
    assert survey_score("csat", {1: 2, 4: 5, 5: 3}, (1, 5))[:2] == (10, 0.8)
    assert survey_score("csat", {1: 2, 4: 5, 5: 3}, (1, 5))[2:] == wilson(8, 10)
    many = survey_score("quality", {2: 400, 4: 400}, (1, 5))
    assert many.score == 3
    assert many.high - many.low == pytest.approx(2 * 1.96 / np.sqrt(800), rel=0.1)


def test_the_last_grading_and_a_csv_give_the_same(shop: Shop, tmp_path: Path) -> None:
    project = load_project(shop.project)
    one, two = (outcomes(project, shop.ledger, tmp_path / f"{name}.csv") for name in ("one", "two"))
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize("which", ["shop", "contracts"])
def test_what_is_sorted_and_walked_gives_what_all_rows_give(shop: Shop, tmp_path: Path, which: str) -> None:
    """Rows that are summed nowhere are one row a customer, and columns that no sum reads are left out."""
    project = load_project(shop.project)
    dates: tuple[date, ...] = DAYS[:2]
    if which == "contracts":  # and invoices, profiles with dates, and every kind of event
        as_file_rows(HISTORIES).to_parquet(tmp_path / "rows.parquet")
        write_other_tables(tmp_path)
        project = file_project(tmp_path / "rows.parquet", churn={"contract_renewal_days": 20})
        dates = as_dates(panels_made.DAYS[:3])
    history, tally = open_history(project), Tally()
    followed, whole = Followed(project, history.columns, dates), history.whenever_arrived
    every = pa.Table.from_batches(stream(project, whole, whole.before(followed.plan.end), followed, tally))
    rows, tally = tally.used.sum(), Tally()
    few = pa.Table.from_batches(followed_batches(history, followed, tally))
    assert len(every) > 20
    pd.testing.assert_frame_equal(few.to_pandas(), every.to_pandas(), check_exact=True)
    assert tally.used.sum() < rows


def test_answers_that_do_not_count_are_counted(shop: Shop, tmp_path: Path, cli: Run) -> None:
    events = shop.tables["events"]
    none = events[events["subject"] == "quality"].head(9).assign(value=None, time=pd.Timestamp(DAYS[1]))
    pd.concat([events, none.drop_duplicates("customer_id")]).to_parquet(tmp_path / "events.parquet")
    content = yaml.safe_load(shop.project.read_text())
    for name, table in content["data"].items():
        folder = tmp_path if name == "events" else shop.project.parent
        table["path"] = str(folder / table["path"])
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content, allow_unicode=True))
    told = cli("outcomes", tmp_path / "p.yaml", "--ledger", shop.ledger, "--out", "o.csv", "--json")
    found = {row["survey"]: row for row in json.loads(told.out)["surveys_not_counted"]}
    inside = pd.Series(False, index=events.index)
    for day in DAYS[:2]:
        first = pd.Timestamp(day)
        inside |= (events["time"] >= first) & (events["time"] < first + pd.Timedelta(days=HORIZON))
    asked = events[inside & (events["kind"] == "survey")].drop_duplicates()
    for name, subjects in (("csat", ["csat"]), ("quality", ["quality"]), ("response_time", ["speed", "速度"])):
        off = ~asked[asked["subject"].isin(subjects)]["value"].between(1, 5)
        assert found[name]["off_scale"] == off.sum() > 0
        assert found[name]["scale"] == [1, 5]
    assert found["nps"]["off_scale"] == 0
    assert found["quality"]["without_score"] == none["customer_id"].nunique()
    said = cli("outcomes", tmp_path / "p.yaml", "--ledger", shop.ledger, "--out", "o.csv")
    assert f"survey csat: {found['csat']['off_scale']} answers are off its scale from 1 to 5" in said.out
    assert "survey nps" not in said.out


def test_what_is_not_mapped_is_said_and_not_told_as_zero(shop: Shop, tmp_path: Path, cli: Run) -> None:
    content = yaml.safe_load(shop.project.read_text())
    content["data"] = {"transactions": content["data"]["transactions"]}
    content["data"]["transactions"]["path"] = str(shop.project.parent / content["data"]["transactions"]["path"])
    del content["data"]["transactions"]["columns"]["cost"]
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({**content, "language": "en"}, allow_unicode=True))
    done = outcomes(load_project(tmp_path / "p.yaml"), shop.ledger, tmp_path / "o.parquet")
    assert done.lacking == ("margin", "cost_to_serve", "complaints", "surveys", "acquisition_cost")
    assert not {"margin", "cost_to_serve", "complaints", "csat_n", "value_to_cac"} & set(done.tiers[0])
    said = cli("outcomes", tmp_path / "p.yaml", "--ledger", shop.ledger, "--out", "o.parquet")
    for name in done.lacking:
        assert words("en")[f"outcomes_lacks_{name}"] in said.out
    assert "before service" in said.out
    assert not outcomes_beside(tmp_path / "o.parquet")[0].exists()


def test_value_over_cac_is_what_was_realised_and_said_so(shop: Shop, tmp_path: Path, cli: Run) -> None:
    """Value counts from the first purchase to the end of the window: nothing of what customers will bring later."""
    said = cli("outcomes", shop.project, "--ledger", shop.ledger, "--out", tmp_path / "o.csv")
    assert words("en")["outcomes_payback_note"] in said.out
    found = pd.read_csv(outcomes_beside(tmp_path / "o.csv")[0])
    web = found[(found["graded"] == str(DAYS[1])) & (found["channel"] == "web")].iloc[0]
    people = shop.tables["customers"].drop_duplicates("customer_id").set_index("customer_id")
    tier = Ledger(shop.ledger).as_of(DAYS[1])["customer_id"]
    mine = [one for one in tier if one in shop.known_on(DAYS[1]) and people["came"].get(one) == "web"]
    mine = [one for one in mine if pd.notna(people["acquisition_cost"][one])]
    sales = shop.tables["transactions"]
    end = pd.Timestamp(DAYS[1]) + pd.Timedelta(days=HORIZON)
    realised = sales[sales["customer_id"].isin(mine) & (sales["time"] < end)]
    assert web["customers_with_cac"] == len(mine)
    assert web["value_to_date"] == pytest.approx(realised["amount"].sum())


def test_the_whale_curve_has_no_step_of_few_customers() -> None:
    rows = pd.DataFrame({"revenue": [100.0, 80.0, *[0.0] * 5, -10.0, -20.0, -50.0]})
    curve = curve_rows(rows, 2)
    assert [point["customers_share"] for point in curve] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert [point["contribution_share"] for point in curve] == pytest.approx([0, 1.8, 1.8, 1.8, 1.7, 1])
    assert curve_rows(rows, 11) == []
    assert len(curve_rows(pd.DataFrame({"revenue": np.arange(5000.0)}), 5)) == 101
    assert np.isnan(base_row(rows, 11)["contribution"])


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_report_tells_what_the_file_tells(shop: Shop, tmp_path: Path, language: str) -> None:
    outcomes(load_project(shop.project), shop.ledger, tmp_path / "o.parquet")
    told, say = pd.read_parquet(tmp_path / "o.parquet"), words(language)
    last = told[told["graded"] == told["graded"].max()].sort_values("tier", ascending=False)
    page = report([tmp_path / "o.parquet"], tmp_path / "r.html", language).read_text(encoding="utf-8")
    section = page[page.index('<section id="outcomes">') : page.index('<section id="unknown">')]
    assert list(last["hidden"]).count(False) >= 2
    for row in last[~last["hidden"]].to_dict("records"):
        assert row[f"name_{language}"] in section
        assert f"{row['retained_share']:.1%} " in section
        for name in ("revenue", "margin", "cost_to_serve", "contribution", "moved_up"):
            assert f">{row[name]:,.0f}<" in section
        assert f"{row['top_10_share']:.1%}" in section
        shown = [name for name in ("quality", "attitude", "response_time") if row[f"{name}_n"] > 0]
        for name in shown:
            assert f"{row[f'{name}_score']:,.2f}" in section
    base, channels = (pd.read_parquet(beside(tmp_path / "o.parquet", name)) for name in ("base", "channels"))
    assert f"{base['top_fifth_share'].iloc[-1]:.1%}" in section
    assert f">{channels['value_to_cac'].iloc[-1]:,.2f}<" in section
    assert re.findall(r'data-chart="(\w+)"', section) == ["retention", "whale"]
    assert say["outcomes_payback_note"] in section
    assert "outcomes_lacks" not in section
    assert not any(text in section for key, text in say.items() if key.startswith("outcomes_lacks"))


def test_the_report_hides_what_the_file_hides_and_says_what_is_lacking(shop: Shop, tmp_path: Path) -> None:
    outcomes(load_project(shop.project), shop.ledger, tmp_path / "o.parquet")
    told = pd.read_parquet(tmp_path / "o.parquet").drop(columns=["cost_to_serve", "margin"])
    first = told[told["graded"] == told["graded"].min()]
    first.to_csv(tmp_path / "alone.csv", index=False)
    page = report([tmp_path / "alone.csv"], tmp_path / "r.html", "en").read_text(encoding="utf-8")
    assert page.count(words("en")["outcomes_hidden"]) == first["hidden"].sum() == 2
    assert words("en")["outcomes_lacks_cost_to_serve"] in page
    assert words("en")["outcomes_contribution"] not in page
    assert re.findall(r'data-chart="(\w+)"', page) == ["retention"]  # the whale curve is in a file beside the whole one
    (tmp_path / "empty.csv").write_text("graded,tier_code,hidden,retained_share\n")
    with pytest.raises(DataError, match="no row"):
        report([tmp_path / "empty.csv"], tmp_path / "r.html")
    (tmp_path / "odd.csv").write_text("graded,tier_code,hidden,retained_share,tier\n2024-01-01,a,false,much,0\n")
    with pytest.raises(DataError, match="retained_share"):
        report([tmp_path / "odd.csv"], tmp_path / "r.html")


# settings and bad input


def test_surveys_change_no_digest_where_there_are_none(shop: Shop) -> None:
    content = yaml.safe_load(shop.project.read_text())
    del content["data"]["events"]["surveys"], content["data"]["events"]["columns"]["subject"]
    plain = Project.model_validate({**content, "folder": shop.project.parent})
    assert '"surveys"' in plain.model_dump_json()
    assert project_digest(plain) != project_digest(load_project(shop.project))


@pytest.mark.parametrize(
    ("surveys", "columns", "message"),
    [
        ({"csat": {"scale": [5, 1]}}, {}, "the lowest and the highest"),
        ({"nps": {"scale": [1, 5]}}, {}, "from 0 to 10"),
        ({"csat": {}}, {"value": None}, "columns.value"),
        ({"csat": {}, "nps": {}}, {"subject": None}, "columns.subject"),
        ({"smile": {}}, {}, "smile"),
    ],
)
def test_surveys_that_cannot_be_told_apart_are_refused(
    shop: Shop, tmp_path: Path, surveys: dict[str, Any], columns: dict[str, Any], message: str
) -> None:
    content = yaml.safe_load(shop.project.read_text())
    events = content["data"]["events"]
    events["surveys"] = surveys
    events["columns"] = {k: v for k, v in {**events["columns"], **columns}.items() if v is not None}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ProjectError, match=message):
        load_project(tmp_path / "p.yaml")


def test_bad_input_is_named_and_nothing_is_written(shop: Shop, tmp_path: Path) -> None:
    project, out = load_project(shop.project), tmp_path / "o.parquet"
    with pytest.raises(ProjectError, match="is no ledger yet"):
        outcomes(project, tmp_path / "none", out)
    with pytest.raises(ProjectError, match="--smallest"):
        outcomes(project, shop.ledger, out, smallest=0)
    rows = table_of(pd.DataFrame([{"customer_id": "nobody", "event": "enter", "tier": 0, "tier_code": "low",
                                   "stable_code": "low", "model_code": "low"}]))  # fmt: skip
    Ledger(tmp_path / "strangers").append(DAYS[0], rows)
    with pytest.raises(DataError, match="no row of the customers graded"):
        outcomes(project, tmp_path / "strangers", out)
    Ledger(tmp_path / "young").append(DAYS[2], rows)
    with pytest.raises(ProjectError, match="no outcome window is over: that of 2023-03-01 ends on 2023-04-30"):
        outcomes(project, tmp_path / "young", out)
    assert not list(tmp_path.glob("o*"))


def test_the_verb_prints_a_table_and_json(shop: Shop, cli: Run) -> None:
    told = cli("outcomes", shop.project, "--ledger", shop.ledger, "--out", "o.parquet")
    assert told.code == 0
    assert str(DAYS[1]) in told.out
    done = cli("outcomes", shop.project, "--ledger", shop.ledger, "--out", "o.parquet", "--json")
    found = json.loads(done.out)
    assert len(found["tiers"]) == 6
    assert found["not_over"] == [str(DAYS[2])]
    assert cli("outcomes", shop.project, "--ledger", "none", "--out", "p.parquet").code == 2
