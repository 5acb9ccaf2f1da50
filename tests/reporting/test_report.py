"""Hold the report to: every section in both languages, nothing from outside, nothing unescaped, the same bytes."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiermodel.bundle.bundle import Bundle, load_bundle, save_bundle
from tiermodel.errors import DataError, ProjectError, TierModelError
from tiermodel.evaluation.bootstrap import paired_bootstrap
from tiermodel.evaluation.metrics import auc, churn_metrics, ece_null_band, log_loss, value_metrics
from tiermodel.features.export import write_features
from tiermodel.features.panel import build_panel
from tiermodel.monitoring.outcomes import outcomes
from tiermodel.output import write_json
from tiermodel.predict import score
from tiermodel.reporting import figures
from tiermodel.reporting.charts import library
from tiermodel.reporting.figures import FigureStyle, concentration, pyramid, save_png, svg
from tiermodel.reporting.figures_model import found_at, input_names, residuals
from tiermodel.reporting.models import verdict_on
from tiermodel.reporting.report import report
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset
from tiermodel.words import words
from worlds import LAST_DAY, TrainedWorld

SECTIONS = {
    *("says", "verdicts", "figures", "pyramid", "services", "concentration", "risk_map", "rfm", "trend", "movement"),
    *("ladders", "table", "outcomes", "rules", "importance", "churn", "residuals", "backtest", "schemes"),
    *("glossary", "about"),
}
VOID = {"meta", "br", "img", "link", "input", "hr"}
POLICY = """
version: 1
name: plain
levels:
  small: {name_zh: 自助, name_en: self-service, cost_per_year: 1}
  regular: {name_zh: 客服, name_en: desk, answer_hours: 24}
  secondary: {name_zh: 团队, name_en: team, manager: team}
  major: {name_zh: 专属, name_en: own manager, manager: own, visits_per_year: 12}
"""


class Page(HTMLParser):
    """Collect the tags, ids, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.scripts = 0
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag, its id and attributes."""
        self.tags.add(tag)
        self.scripts += tag == "script"
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note a tag that closes itself."""
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """Check that tags close in order."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Note text."""
        self.words.append(data)

    @property
    def text(self) -> str:
        """Give all text, spaces collapsed."""
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def made(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one of every source: a learned bundle, its scores, features, a backtest and its predictions."""
    folder = tmp_path_factory.mktemp("report")
    bundle = _learned(trained)
    save_bundle(bundle, folder / "bundle")
    for name in ("scores.parquet", "scores.csv"):
        score(trained.project, bundle, LAST_DAY, folder / name)
    write_features(trained.project, str(LAST_DAY), folder / "features.parquet")
    predictions = _predictions(trained)
    predictions.to_parquet(folder / "predictions.parquet", index=False)
    write_json(_backtest(predictions), folder / "backtest.json")
    for back in (200, 130):
        score(trained.project, bundle, LAST_DAY - timedelta(back), folder / "old.csv", ledger=folder / "ledger")
    outcomes(trained.project, folder / "ledger", folder / "outcomes.parquet")
    (folder / "policy.yaml").write_text(POLICY, encoding="utf-8")
    return folder


def _learned(trained: TrainedWorld) -> Bundle:
    bundle, project = trained.trained.bundle, trained.project
    dates = [pd.Timestamp(bundle.facts[day]).date() for day in ("first_snapshot", "last_snapshot")]
    panel = build_panel(project, dates, with_outcome=True)
    scheme = load_preset("learned", project.features.windows_days)
    return dataclasses.replace(bundle, scheme=fit_scheme(scheme, panel, panel, project.seed))


def _predictions(trained: TrainedWorld) -> pd.DataFrame:
    churn, value = (trained.trained.out_of_fold[target] for target in ("churn", "value"))
    frame = churn.rename(columns={"actual": "churned", "predicted": "churn_tiermodel"})
    frame = frame[["customer_id", "as_of", "churned", "churn_tiermodel"]]
    value = value.rename(columns={"actual": "value", "predicted": "value_tiermodel"})
    frame = frame.merge(value[["customer_id", "as_of", "value", "value_tiermodel"]], on=["customer_id", "as_of"])
    return frame.assign(churn_rate=frame["churned"].mean(), churn_mbg_nbd=frame["churn_tiermodel"] ** 2)


def _backtest(predictions: pd.DataFrame) -> dict[str, Any]:
    days = sorted(predictions["as_of"].astype(str).str[:10].unique())
    found: dict[str, Any] = {"project": "small-world", "horizon_days": 60, "value_measure": "amount", "dates": days}
    found |= {"churn": [], "value": [], "tiers": [], "comparisons": []}
    for day in days:
        rows = predictions[predictions["as_of"].astype(str).str[:10] == day]
        actual, ours = rows["churned"].to_numpy(), rows["churn_tiermodel"].to_numpy()
        for model in ("tiermodel", "rate", "mbg_nbd"):
            p = rows[f"churn_{model}"].to_numpy()
            by_chance = ece_null_band(p, draws=50)
            figures_of = {"model": model, "as_of": day, **churn_metrics(actual, p), "ece_by_chance": by_chance}
            found["churn"].append(figures_of)
            for name, metric in (("log_loss", log_loss), ("auc", auc)):
                difference, low, high = paired_bootstrap(metric, actual, ours, p, draws=20)
                ends = {"difference": difference, "low": low, "high": high}
                found["comparisons"] += [{"target": "churn", "metric": name, "against": model, "as_of": day, **ends}]
        value = value_metrics(rows["value"].to_numpy(), rows["value_tiermodel"].to_numpy())
        found["value"].append({"model": "tiermodel", "as_of": day, "n": len(rows), **value})
        for name, ours_too, capture in (("learned", True, 0.6), ("<rfm>", False, None)):
            numbers = {"key_customers_share": 0.2, "value_capture_top": capture, "gini": 0.7, "moved_share": 0.1}
            numbers |= {"reversed_share": 0.0, "qwk": None}
            found["tiers"].append({"scheme": name, "as_of": day, "monotone": True, "ours": ours_too, **numbers})
    return found


def every_source(made: Path) -> list[Path]:
    tables = ("scores.parquet", "predictions.parquet", "features.parquet", "outcomes.parquet")
    return [made / name for name in (*tables, "bundle", "backtest.json", "ledger", "policy.yaml")]


@pytest.fixture(scope="module")
def pages(made: Path) -> dict[str, Path]:
    """Make the whole page once in each language."""
    return {language: report(every_source(made), made / f"{language}.html", language) for language in ("zh", "en")}


def scores_of(made: Path) -> pd.DataFrame:
    return pd.read_parquet(made / "scores.parquet")


def changed(made: Path, folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> Path:
    frame = scores_of(made)
    change(frame).to_parquet(folder / "changed.parquet", index=False)
    return folder / "changed.parquet"


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_section_is_there_in_both_languages(pages: dict[str, Path], language: str) -> None:
    page = Page(pages[language])
    assert set(page.ids) >= SECTIONS
    assert not page.open
    told, other = words(language), words({"zh": "en", "en": "zh"}[language])
    for key in ("head_figures", "head_pyramid", "customers_share", "head_rfm", "predicted_risk", "better_arrow"):
        assert told[key] in page.text
        assert other[key] not in page.text
    assert told["unknown"] not in page.text
    names = {"zh": "重要客户", "en": "major"}
    assert names[language] in page.text


def test_the_same_sources_give_the_same_bytes(made: Path, pages: dict[str, Path], tmp_path: Path) -> None:
    assert report(every_source(made), tmp_path / "again.html", "zh").read_bytes() == pages["zh"].read_bytes()


def test_the_page_asks_nobody_for_anything(pages: dict[str, Path]) -> None:
    page = Page(pages["en"])
    ours = pages["en"].read_text(encoding="utf-8").replace(library(), "")  # the library names namespaces, no more
    assert not re.search(r"https?:|//[a-z]|@import|url\(", ours.replace("  // ", ""))
    assert page.tags & {"script", "link", "img", "iframe", "object", "image"} == {"script"}
    assert all(value.startswith("#") for name, value in page.attributes if name in {"src", "href", "xlink:href"})
    assert "style" not in {name for name, _ in page.attributes}
    assert len(page.ids) == len(set(page.ids))


def test_names_and_ids_cannot_become_markup(made: Path, tmp_path: Path) -> None:
    script, image = "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>-->'

    def hostile(frame: pd.DataFrame) -> pd.DataFrame:
        ids = [f"{script}{n}" for n in range(len(frame))]
        spoiled = {"tier_name": image, "policy": script, "reason_1": image, "model_version": script}
        return frame.assign(customer_id=ids, lifecycle_stage=frame["lifecycle_stage"], **spoiled)

    path = report([changed(made, tmp_path, hostile), made / "backtest.json"], tmp_path / "page.html")
    page = Page(path)
    assert not page.tags & {"img", "rfm"}
    assert page.scripts == 3
    assert "onerror" not in {name for name, _ in page.attributes}
    assert script in page.text
    assert image in page.text
    assert "<rfm>" in page.text


def test_a_level_named_like_mathematics_is_drawn(tmp_path: Path) -> None:
    figure = pyramid(FigureStyle("en", browser=True), ["$x^", "$$"], [3, 1], [1.0, 9.0], "")
    assert "$x^" in svg(figure, "p", "l")
    save_png(figure, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000


def test_headline_numbers_add_up(made: Path, pages: dict[str, Path]) -> None:
    text = Page(pages["en"]).text
    frame = scores_of(made)
    key = frame["tier_code"].isin(["secondary", "major"])
    still = frame[frame["lifecycle_stage"] != "churned"]
    at_risk = (still["churn_risk"] * still["expected_value"]).sum()
    share = frame.loc[key, "expected_value"].sum() / frame["expected_value"].sum()
    for shown in (
        f"{len(frame):,}",
        f"{key.sum():,}",
        f"{share:.1%}",
        f"{still['churn_risk'].sum():,.0f}",
        f"{frame['expected_value'].sum():,.0f}",
        f"{at_risk:,.0f}",
    ):
        assert re.search(rf"(?<![\d,.]){re.escape(shown)}(?![\d,.]*\d)", text), shown


def test_customers_to_contact_are_those_with_most_at_risk_who_are_still_there(made: Path, tmp_path: Path) -> None:
    frame = scores_of(made)
    frame.loc[frame.index[:50], "lifecycle_stage"] = "churned"
    frame.to_parquet(tmp_path / "gone.parquet", index=False)
    text = report([tmp_path / "gone.parquet"], tmp_path / "page.html").read_text(encoding="utf-8")
    gone = frame["lifecycle_stage"] == "churned"
    order = frame.assign(gone=gone, at_risk=-(frame["churn_risk"] * frame["expected_value"]))
    order = order.sort_values(["gone", "at_risk"], kind="stable", na_position="last")
    assert re.findall(r"<bdi>(.*?)</bdi>", text) == order["customer_id"].tolist()
    assert f"Another {gone.sum():,} left long ago" in text


def test_ids_can_be_left_out(made: Path, tmp_path: Path) -> None:
    page = Page(report(every_source(made), tmp_path / "page.html", ids=False))
    shown = {
        word for text in (page.text, *(value for _, value in page.attributes)) for word in re.findall(r"\w+", text)
    }
    assert not shown & set(scores_of(made)["customer_id"])
    assert "bdi" not in page.tags
    assert words("en")["table_no_ids"] in page.text


def test_csv_and_parquet_scores_give_the_same_page(made: Path, tmp_path: Path) -> None:
    one, two = (
        report([made / name], tmp_path / "page.html").read_text(encoding="utf-8").replace(name, "scores")
        for name in ("scores.parquet", "scores.csv")
    )
    assert one == two


def test_what_was_not_given_is_said_in_a_line_each(made: Path, tmp_path: Path) -> None:
    page = Page(report([made / "scores.parquet"], tmp_path / "scores.html"))
    assert not set(page.ids) & {"rules", "churn", "backtest", "schemes", "rfm"}
    for key in ("no_bundle", "no_features", "no_backtest", "no_predictions", "currency_unknown", "horizon_unknown"):
        assert words("en")[key] in page.text
    page = Page(report([made / "bundle"], tmp_path / "bundle.html"))
    assert words("en")["no_scores"] in page.text
    assert {"rules", "about"} <= set(page.ids)
    page = Page(report([made / "backtest.json"], tmp_path / "backtest.html"))
    assert {"churn", "backtest", "schemes"} <= set(page.ids)


def test_scores_of_another_model_are_pointed_out(made: Path, tmp_path: Path) -> None:
    other = changed(made, tmp_path, lambda frame: frame.assign(model_version="small-world-older"))
    text = Page(report([other, made / "bundle"], tmp_path / "page.html")).text
    assert "the scores were made by model small-world-older" in text


def test_small_groups_are_not_shown(made: Path, tmp_path: Path) -> None:
    def move_three(frame: pd.DataFrame) -> pd.DataFrame:
        top = frame["tier"].max()
        frame["previous_tier"] = frame["tier"].astype(float)
        lowest = frame.index[frame["tier"] == 0]
        frame.loc[lowest[:3], "previous_tier"] = float(top)
        return frame

    path = report([changed(made, tmp_path, move_three)], tmp_path / "page.html")
    cells = re.findall(r'<td class="cell (\w+) depth-\d">(.*?)</td>', path.read_text(encoding="utf-8"))
    assert cells.count(("small", "&lt; 5")) >= 1
    assert cells.count(("small", "…")) >= 1  # else the totals would tell the hidden cell
    assert not any(0 < int(text.replace(",", "")) < figures.SMALL for kind, text in cells if kind != "small")


def test_a_first_grading_says_so(made: Path, tmp_path: Path) -> None:
    first = changed(made, tmp_path, lambda frame: frame.assign(previous_tier=np.nan))
    assert words("zh")["movement_none"] in Page(report([first], tmp_path / "page.html", "zh")).text


@pytest.mark.parametrize(
    ("metric", "low", "high", "verdict"),
    [
        ("auc", 0.1, 0.2, "better"),
        ("auc", -0.2, -0.1, "worse"),
        ("auc", -0.1, 0.1, "unclear"),
        ("log_loss", -0.2, -0.1, "better"),
        ("log_loss", 0.1, 0.2, "worse"),
        ("mae", None, None, "not_measured"),
    ],
)
def test_a_verdict_needs_the_whole_interval(metric: str, low: float | None, high: float | None, verdict: str) -> None:
    assert verdict_on({"metric": metric, "difference": low, "low": low, "high": high}) == verdict


def _unknown(made: Path, folder: Path) -> Iterator[tuple[list[Path], type[TierModelError], str]]:
    def write(name: str, content: str) -> Path:
        (folder / name).write_text(content, encoding="utf-8")
        return folder / name

    yield [], ProjectError, "needs a source"
    yield [folder / "nowhere.parquet"], ProjectError, "no such file"
    yield [write("notes.txt", "x")], ProjectError, r"\.parquet and \.csv"
    yield [write("other.csv", "a,b\n1,2\n")], ProjectError, "no table that a report knows"
    yield [write("broken.parquet", "x")], DataError, "cannot be read|can be read"
    yield [write("broken.json", "{")], DataError, "not JSON"
    yield [write("empty.json", "{}")], DataError, "comparisons"
    yield [write("list.json", "[]")], DataError, "comparisons"
    yield [write("thin.csv", "tier_code,churn_risk\na,0.5\n")], DataError, "lack the columns"
    yield [made / "scores.parquet", made / "scores.csv"], ProjectError, "takes one scores"


def test_a_figure_without_its_source_is_left_out(made: Path, tmp_path: Path) -> None:
    bundle = load_bundle(made / "bundle")
    facts = {name: fact for name, fact in bundle.facts.items() if name != "importance"}
    save_bundle(dataclasses.replace(bundle, facts=facts), tmp_path / "older")
    predictions = pd.read_parquet(made / "predictions.parquet").drop(columns="value_tiermodel")
    predictions.to_parquet(tmp_path / "predictions.parquet", index=False)
    sources = [tmp_path / "older", tmp_path / "predictions.parquet"]
    ids = Page(report(sources, tmp_path / "page.html")).ids
    assert {"rules", "churn"} <= set(ids)
    assert not {"importance", "residuals"} & set(ids)


def test_what_moves_the_predictions_is_told_in_words(pages: dict[str, Path], made: Path) -> None:
    bundle = load_bundle(made / "bundle")
    for language in ("zh", "en"):
        text = Page(pages[language]).text
        names = input_names(FigureStyle(language, browser=True), bundle.features)
        told = [names[row["feature"]].split()[0] for rows in bundle.facts["importance"].values() for row in rows[:6]]
        assert [name for name in told if name not in text] == []
        assert f"↓ {words(language)['more_lowers']}" in text


def test_unknown_sources_are_refused(made: Path, tmp_path: Path) -> None:
    for sources, error, message in _unknown(made, tmp_path):
        with pytest.raises(error, match=message):
            report(sources, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("tier", 9, "tier 9.0 is not among the levels"),
        ("churn_risk", 1.5, "churn_risk 1.5 is not a probability"),
        ("customer_id", "twin", "'twin' has more than one row"),
        ("expected_value", "much", "'expected_value' of the scores is not a number"),
    ],
)
def test_scores_that_cannot_be_are_refused(made: Path, tmp_path: Path, column: str, value: Any, message: str) -> None:
    bad = changed(made, tmp_path, lambda frame: frame.assign(**{column: value}))
    with pytest.raises(DataError, match=re.escape(message)):
        report([bad], tmp_path / "page.html")


def test_ending_and_language_are_checked(made: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match=r"\.html"):
        report([made / "scores.parquet"], tmp_path / "page.pdf")
    with pytest.raises(ProjectError, match="zh or en"):
        report([made / "scores.parquet"], tmp_path / "page.html", "de")


def test_one_customer_without_a_purchase_makes_a_page(made: Path, tmp_path: Path) -> None:
    def lonely(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.head(1).assign(churn_risk=np.nan, expected_value=0.0, previous_tier=np.nan)

    page = Page(report([changed(made, tmp_path, lonely)], tmp_path / "page.html"))
    assert words("en")["no_concentration"] in page.text
    assert "nan" not in page.text.lower().split()


def test_without_a_chinese_font_pictures_say_so_and_pages_stay_chinese(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(figures, "CJK", ("No Such Font",))
    curve = {"value": np.array([1.0, 2.0, 7.0])}
    picture = concentration(FigureStyle("zh"), curve)
    assert words("en")["cjk_note"] in svg(picture, "c", "l")
    assert words("en")["cum_value"] in svg(picture, "c", "l")
    save_png(picture, tmp_path / "c.png")
    page = svg(concentration(FigureStyle("zh", browser=True), curve), "c", "l")
    assert words("zh")["cum_value"] in page
    assert words("en")["cjk_note"] not in page


def test_pictures_are_the_same_bytes_again(tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        save_png(concentration(FigureStyle(), {"value": np.array([1.0, 2.0, 7.0])}), tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_residuals_of_a_heavy_tail_and_of_equal_predictions_are_drawn(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    actual = np.where(draw.random(900) < 0.7, 0.0, draw.lognormal(3, 2, 900))
    actual[:3] = -500.0  # returns
    panels = {"2024-01-01": (actual, draw.lognormal(2, 1, 900)), "2024-02-01": (actual[:4], np.full(4, 2.0))}
    for name in ("1.png", "2.png"):
        save_png(residuals(FigureStyle(), panels, "EUR"), tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert "actual − predicted (EUR)" in svg(residuals(FigureStyle(), panels, "EUR"), "r", "l")
    perfect = np.arange(20.0)
    save_png(residuals(FigureStyle(), {"2024-01-01": (perfect, perfect)}), tmp_path / "3.png")


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=1, max_size=30), st.randoms())
def test_gains_rise_from_none_to_all_whatever_the_order(rows: list[tuple[bool, float]], shuffler: Any) -> None:
    rows = [(True, 0.3), *rows]
    mixed = shuffler.sample(rows, len(rows))
    one, two = (
        found_at(np.array([float(y) for y, _ in order]), np.array([p for _, p in order]), np.linspace(0, 1, 11))
        for order in (rows, mixed)
    )
    assert one[0] == 0
    assert one[-1] == pytest.approx(1)
    assert np.all(np.diff(one) >= -1e-12)
    assert one.tolist() == pytest.approx(two.tolist())


def test_the_verdict_of_the_gate_stands_at_the_top(tmp_path: Path) -> None:
    checks = [
        {"name": "signal", "kind": "blocking", "passed": True, "accepted": False, "words": "better", "remedy": ""},
        {"name": "movement", "kind": "advisory", "passed": False, "accepted": False, "words": "<b>", "remedy": "look"},
    ]  # fmt: skip
    told = {"name": "shop", "version": "2", "champion": "1", "promoted": False, "passed": False, "accepted": None}
    write_json({**told, "checks": checks}, tmp_path / "gate.json")
    for language in ("zh", "en"):
        page = report([tmp_path / "gate.json"], tmp_path / "r.html", language).read_text(encoding="utf-8")
        t = words(language)
        top, checks_of = page.split('<section id="gate">')
        assert top.index('<section id="verdicts">') < top.index(t["answer_refused"]) < top.index("movement: &lt;b&gt;")
        assert checks_of.index("movement") < checks_of.index("signal")  # what failed comes first
        assert t["verdict_failed"].format(n=1, all=2) in page
        assert "&lt;b&gt;" in page
        assert "look" in page
    (tmp_path / "gate.json").write_text('{"name": "shop"}')
    with pytest.raises(DataError, match="promote --json"):
        report([tmp_path / "gate.json"], tmp_path / "r.html")
