"""One customer on one page: what it says is what scores, ledger and models say; the letter tells of nobody else."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from commands import Run
from tiermodel.evaluation.attribution import churn_contributions
from tiermodel.features.export import write_features
from tiermodel.predict import score
from tiermodel.reporting.customer import customer_page
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
