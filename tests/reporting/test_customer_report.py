"""One customer on one page: what it says is what scores, ledger and models say; the letter tells of nobody else."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel.config.project import Features
from tiermodel.evaluation.attribution import churn_contributions
from tiermodel.features.catalogue import expand
from tiermodel.features.export import write_features
from tiermodel.predict import score
from tiermodel.reporting.customer import customer_page
from tiermodel.reporting.letter import plain_reasons
from worlds import TrainedWorld

DAYS = (date(2023, 11, 1), date(2023, 12, 1))


class Files(NamedTuple):
    """A score table, the features behind it, and the ledger of two gradings."""

    folder: Path
    scores: Path
    features: Path
    ledger: Path


@pytest.fixture(scope="module")
def files(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Files:
    here = tmp_path_factory.mktemp("customer")
    made = Files(here, here / "s.parquet", here / "f.parquet", here / "book")
    for day in DAYS:
        score(trained.project, trained.bundle, day, made.scores, ledger=made.ledger)
    write_features(trained.project, DAYS[-1:], made.features)
    return made


@pytest.fixture(scope="module")
def someone(files: Files) -> pd.Series:
    """Give a buyer who is in no extreme tier, with a risk."""
    scores = pd.read_parquet(files.scores)
    buyers = scores[scores["churn_risk"].between(0.1, 0.9) & (scores["tier"] < scores["tier"].max())]
    return buyers.iloc[0]


def text_of(path: Path) -> str:
    return re.sub(
        r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    )


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_page_says_what_scores_and_ledger_say(
    files: Files, someone: pd.Series, trained: TrainedWorld, cli: Run, language: str
) -> None:
    out = files.folder / f"{language}.html"
    words = ["report", files.scores, "--customer", someone["customer_id"], "--ledger", files.ledger]
    words += ["--model", trained.bundle, "--features", files.features, "--language", language, "--out", out]
    ran = cli(*words)
    assert ran.code == 0, ran.err
    page, html = text_of(out), out.read_text(encoding="utf-8")
    names = trained.trained.bundle.scheme.scheme.names(language)
    assert names[someone["tier"]] in page
    assert f"{someone['churn_risk']:.1%}" in page
    assert f"{someone['expected_value']:,.0f}" in page
    assert str(DAYS[0]) in page  # of the ledger
    assert "http" not in html.replace("http-equiv", "")
    assert "<script" not in html
    letter = html[html.index('<article class="letter">') : html.index("</article>")]
    others = set(pd.read_parquet(files.scores)["customer_id"]) - {someone["customer_id"]}
    assert not [other for other in others if other in html]
    for jargon in ("BTYD", "NBD", "%", "percentile", "log", "bundle", "模型包"):
        assert jargon not in letter
    assert ("GDPR" if language == "en" else "个人信息保护法") in letter
    chinese = len(re.findall(r"[\u4e00-\u9fff]", letter))
    assert (chinese == 0) == (language == "en")
    if language == "zh":  # the scores were written in the project's language, and the letter is in another
        assert not re.search(r"[a-z]{4,} [a-z]{2,} [a-z]{2,}", re.sub(r"<[^>]+>", "", letter)), letter
    first = out.read_bytes()
    cli(*words)
    assert out.read_bytes() == first


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_letter_tells_each_rule_with_a_figure_that_meets_it(
    files: Files, someone: pd.Series, trained: TrainedWorld, language: str
) -> None:
    features, bundle = pd.read_parquet(files.features), trained.trained.bundle
    page = customer_page(files.scores, someone["customer_id"], language, bundle, features, None)
    assert len(page.letter) == len(page.reasons) > 0
    own = features.set_index("customer_id").loc[someone["customer_id"]]
    for sentence, reason in zip(page.letter, page.reasons, strict=True):
        assert not re.search("[<>≤≥]", sentence)
        mine = [own[code] for code, f in bundle.features.items() if reason.startswith(getattr(f, language))]
        shown = float(re.findall(r"(?:：|: )(-?[\d,.]*\d)", sentence)[0].replace(",", ""))
        assert min(abs(shown - value) for value in mine) <= 0.5
        for sign, bound in re.findall(r"([<>≤≥]) (-?[\d,.]*\d)", reason):
            held = {"<": float.__lt__, ">": float.__gt__, "≤": float.__le__, "≥": float.__ge__}[sign]
            assert held(shown, float(bound.replace(",", "")))
            assert bound in sentence or f"{float(bound.replace(',', '')):,.2f}" in sentence


def test_sentences_have_units_and_what_is_no_bound_stays() -> None:
    known = {f.name: f for f in expand(Features(groups=("rfm", "behaviour"), windows_days=(90,)), ["discount"])}
    own = {"net_amount_90d": 140.004, "days_since_last": 12.0, "discount_share_90d": np.nan}
    rules = [
        "近90天净消费额 > 140 且 ≤ 1,241.5（提升）",
        "距最近一次购买的天数 ≤ 30 或缺失",
        "近90天折扣占折前金额的比例 ≥ 0.25",
        "人工指定等级",
    ]
    assert plain_reasons(rules, own, known, "CNY", "zh") == [
        "近90天净消费额：140.004 元，符合规则“高于 140 元、不高于 1,241.50 元”（提升）",
        "距最近一次购买的天数：12 天，符合规则“不高于 30 天，或没有记录”",
        "近90天折扣占折前金额的比例：没有记录，符合规则“不低于 百分之25”",
        "人工指定等级",
    ]
    assert plain_reasons(["industry is A: orders so far > 3", "kept by the stability rule"], {}, known, "", "en") == [
        "Industry is A: orders so far: above 3",
        "kept by the stability rule",
    ]


def test_the_project_gives_the_same_page_as_its_feature_table(
    files: Files, someone: pd.Series, trained: TrainedWorld, cli: Run
) -> None:
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (files.folder / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = ["report", files.scores, "--customer", someone["customer_id"], "--model", trained.bundle]
    pages = []
    for given in (["--features", files.features], ["--project", files.folder / "shop.yaml"]):
        out = files.folder / "page.html"
        ran = cli(*command, *given, "--out", out)
        assert ran.code == 0, ran.err
        pages.append(out.read_bytes())
    assert pages[0] == pages[1]
    alone = cli(*command[:4], "--project", files.folder / "shop.yaml", "--out", files.folder / "page.html")
    assert alone.code == 0, alone.err  # without a model there is nothing to build features for
    assert "No model was given" in text_of(files.folder / "page.html")


def test_probabilities_stand_in_percent_throughout(
    files: Files, someone: pd.Series, trained: TrainedWorld, cli: Run
) -> None:
    out = files.folder / "percent.html"
    command = [
        "report",
        files.scores,
        "--customer",
        someone["customer_id"],
        "--model",
        trained.bundle,
        "--language",
        "en",
    ]
    assert cli(*command, "--features", files.features, "--out", out).code == 0
    page = text_of(out)
    assert page.count(f"{someone['churn_risk']:.1%}") >= 2
    assert f"{someone['churn_risk']:.4f}" not in page
    assert not re.search(r"chance of no purchase by \S+: 0\.\d", page)


def test_places_and_reasons_are_those_of_the_tables(files: Files, someone: pd.Series, trained: TrainedWorld) -> None:
    bundle, scores = trained.trained.bundle, pd.read_parquet(files.scores)
    features = pd.read_parquet(files.features)
    page = customer_page(files.scores, someone["customer_id"], "en", bundle, features, None)
    risk = next(row for row in page.peers if row["name"] == "Churn risk")
    known = scores["churn_risk"].dropna().to_numpy()
    own = someone["churn_risk"]
    below = ((known < own).sum() + 0.5 * ((known == own).sum() - 1)) / (len(known) - 1)
    assert risk["all"] == pytest.approx(below)
    assert risk["value"] == own
    exposed = features[bundle.at_risk(features)].reset_index(drop=True)
    each = churn_contributions(bundle.churn, bundle.inputs.matrix(exposed))[1]
    mine = exposed["customer_id"] == someone["customer_id"]
    effects = (each[mine.to_numpy()] - each.mean(axis=0))[0]
    strongest = bundle.inputs.all_names[int(np.argmax(np.abs(effects)))]
    assert page.risk is not None
    if strongest in bundle.features:
        assert page.risk[0]["name"] == bundle.features[strongest].en
    assert page.risk[0]["share"] == pytest.approx(effects[np.argmax(np.abs(effects))] / np.abs(effects).sum(), abs=0.02)
    assert page.ways


def test_the_scores_alone_make_a_page_that_says_what_is_missing(files: Files, someone: pd.Series, cli: Run) -> None:
    out = files.folder / "bare.html"
    assert cli("report", files.scores, "--customer", someone["customer_id"], "--out", out).code == 0
    assert text_of(out).count("No ledger was given") == 1
    assert "No model was given" in text_of(out)


def test_faults_of_the_user_are_told(files: Files, someone: pd.Series, cli: Run) -> None:
    nobody = cli("report", files.scores, "--customer", "nobody", "--out", files.folder / "x.html")
    assert nobody.code == 3
    assert "'nobody' is not in" in nobody.err
    assert not (files.folder / "x.html").exists()
    assert cli("report", files.scores, "--ledger", files.ledger, "--out", files.folder / "x.html").code == 2
    several = ("report", files.scores, files.features, "--customer", someone["customer_id"])
    assert cli(*several, "--out", files.folder / "x.html").code == 2
