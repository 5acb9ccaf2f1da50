"""The page as a browser shows it, and what must hold without one: policy, colours, size, parts that belong together."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from browser import CHROMIUM, Tab, browser
from commands import Run
from tiermodel.bundle.bundle import load_bundle
from tiermodel.features.export import write_features
from tiermodel.output import write_json
from tiermodel.predict import score
from tiermodel.reporting.charts import library
from tiermodel.reporting.customer_table import ROWS
from tiermodel.reporting.inputs import read_sources
from tiermodel.reporting.palette import DARK, LIGHT, contrast, tier_colours
from tiermodel.reporting.parts import find_parts
from tiermodel.reporting.report import report
from tiermodel.reporting.summary import verdicts
from tiermodel.words import words
from worlds import LAST_DAY, TrainedWorld

HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def run_folder(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lay out what a refresh keeps: runs/ledger, and a run with scores, features and the model."""
    root = tmp_path_factory.mktemp("runs")
    run = root / str(LAST_DAY)
    run.mkdir()
    for back in (60, 30):
        score(trained.project, trained.bundle, LAST_DAY - timedelta(back), root / "old.parquet", ledger=root / "ledger")
    score(trained.project, trained.bundle, LAST_DAY, run / "scores.parquet", ledger=root / "ledger")
    write_features(trained.project, str(LAST_DAY), run / "features.parquet")
    shutil.copytree(trained.bundle, run / "model")
    (root / "CURRENT").symlink_to(run.name)
    return root


@pytest.fixture(scope="module")
def page(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a page whose customers and tiers are named like an attack, on more customers than it lists."""
    folder = tmp_path_factory.mktemp("page")
    run = run_folder / str(LAST_DAY)
    frame = pd.read_parquet(run / "scores.parquet")
    frame = pd.concat([frame] * 8, ignore_index=True)
    frame["customer_id"] = [f"=1+{k}{HOSTILE}" for k in range(len(frame))]
    frame["tier_name"] = frame["tier_name"] + HOSTILE
    frame["reason_1"] = "net amount of the last 60 days > 83 and ≤ 216, days since the last purchase ≤ 12 or missing"
    assert len(frame) > 2_000
    frame.to_parquet(folder / "scores.parquet", index=False)
    backtest = _backtest({"value_capture_of_best": (0.02, 0.05), "qwk_value": (-0.01, 0.02)})
    write_json(backtest, folder / "backtest.json")
    sources = [folder / "scores.parquet", folder / "backtest.json", run_folder / "ledger", run / "features.parquet"]
    return report(sources, folder / "page.html", "zh")


def _backtest(ends: dict[str, tuple[float, float]], scheme: str = "pyramid") -> dict[str, Any]:
    minus = {m: {"difference": (low + high) / 2, "low": low, "high": high} for m, (low, high) in ends.items()}
    row = {"as_of": "2023-10-01", "monotone": True, "gini": 0.7, "key_customers_share": 0.2, "value_capture_top": 0.5}
    tiers = [{**row, "scheme": "learned", "ours": True}, {**row, "scheme": scheme, "ours": False, "minus_ours": minus}]
    found: dict[str, Any] = {"project": "small-world", "horizon_days": 60, "dates": ["2023-10-01"], "tiers": tiers}
    return found | {"churn": [], "value": [], "comparisons": []}


def test_the_policy_allows_the_page_s_own_scripts_and_style_and_nothing_else(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    allowed = policy[1].replace("&#39;", "'")
    assert allowed.startswith("default-src 'none'; ")
    for kind, tag in (("script-src", "script"), ("style-src", "style")):
        parts = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        hashes = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in parts]
        wanted = f"{kind} " + " ".join(f"'sha256-{h}'" for h in hashes)
        assert wanted in allowed.split("; ")
        assert len(parts) == {"script": 2, "style": 1}[tag]
    assert "unsafe" not in allowed


def test_names_stay_text_in_markup_and_in_the_charts_data(page: Path) -> None:
    text = page.read_text(encoding="utf-8").replace(library(), "")
    assert HOSTILE not in text
    assert "<img" not in text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert data is not None
    assert "<" not in data[1]
    assert HOSTILE in json.dumps(json.loads(data[1])["charts"]["pyramid"], ensure_ascii=False)


def test_a_page_of_many_customers_stays_below_three_megabytes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert ROWS < text.count("<tr>") <= 2_000
    assert page.stat().st_size <= 3_000_000


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_and_marks_stand_out_from_what_is_behind_them(colours: dict[str, str]) -> None:
    for behind, text in product(("paper", "panel"), ("ink", "muted", "series", "good", "warn", "bad")):
        assert contrast(colours[text], colours[behind]) >= 4.5, (text, behind)
    assert contrast(colours["second"], colours["paper"]) >= 3
    scheme = "light" if colours is LIGHT else "dark"
    for levels in (1, 2, 4, 5, 27):
        tiers = tier_colours(levels, scheme)
        assert len(set(tiers)) == levels
        assert all(contrast(tier, colours["paper"]) >= 3 for tier in tiers)
        assert not set(tiers) & set(colours.values())  # a tier's colour means the tier, and nothing else
    half = [_mixed(colours["series"], colours["paper"], share) for share in (0.05, 0.35, 0.5)]  # cells with text
    assert all(contrast(colours["ink"], behind) >= 4.5 for behind in half)


def _mixed(one: str, other: str, share: float) -> str:
    pairs = [(int(one[k : k + 2], 16), int(other[k : k + 2], 16)) for k in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def test_every_term_on_the_page_is_explained(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    asked = set(re.findall(r'popovertarget="([^"]+)"', text))
    assert {"term-kappa", "term-churn_risk", "term-value_at_risk"} <= asked
    assert asked <= set(re.findall(r'id="(term-\w+)" popover', text))


def test_contents_list_every_section(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    listed = re.findall(r'<li><a href="#(\w+)">', text)
    sections = [s for s in re.findall(r'<section id="(\w+)"', text) if s != "unknown"]
    assert listed == sections


def test_parts_are_found_in_a_run_folder_and_beside_the_scores(run_folder: Path) -> None:
    run = (run_folder / str(LAST_DAY)).resolve()
    wanted = {"scores": run / "scores.parquet", "features": run / "features.parquet", "bundle": run / "model"}
    for source in (run_folder, run, run / "scores.parquet"):
        parts = find_parts([source])
        wanted["ledger"] = run_folder / "ledger"
        assert {kind: path.resolve() for kind, path in parts.paths.items()} == wanted | {
            "ledger": run_folder / "ledger"
        }
        assert parts.missing == ("backtest", "predictions", "outcomes")
    inputs = read_sources(list(parts.paths.values()))
    assert inputs.ledger is not None
    assert [str(day) for day in inputs.ledger.graded][-1] == str(LAST_DAY)


def test_a_part_of_another_date_or_model_is_left_out(run_folder: Path, tmp_path: Path) -> None:
    frame = pd.read_parquet(run_folder / str(LAST_DAY) / "scores.parquet")
    day = str(LAST_DAY - timedelta(5))
    frame.assign(as_of=day, model_version="small-world-older").to_parquet(tmp_path / "scores.parquet", index=False)
    for name in ("features.parquet", "model"):
        (tmp_path / name).symlink_to(run_folder / str(LAST_DAY) / name)
    (tmp_path / "backtest.json").write_text("{", encoding="utf-8")
    parts = find_parts([tmp_path / "scores.parquet"])
    assert set(parts.paths) == {"scores"}
    reasons = {path.name: reason for path, reason in parts.left_out}
    assert day in reasons["features.parquet"]
    assert "small-world-older" in reasons["model"]
    assert "not JSON" in reasons["backtest.json"]


def test_the_verb_says_what_it_found_and_missed(run_folder: Path, tmp_path: Path, cli: Run) -> None:
    done = cli("report", run_folder, "--out", tmp_path / "page.html", "--no-ids")
    assert done.code == 0
    assert "model" in done.err
    assert words("en")["part_backtest"] in done.err
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '<section id="trend">' in text
    assert "<bdi>" not in text
    assert f"From {LAST_DAY - timedelta(30)} to {LAST_DAY}" in text
    assert words("en")["why_at_risk"] in text


def test_reasons_of_the_risk_stand_beside_those_of_the_tier(run_folder: Path, tmp_path: Path) -> None:
    parts = find_parts([run_folder])
    page = report(list(parts.paths.values()), tmp_path / "page.html", "en").read_text(encoding="utf-8")
    cells = re.findall(r'data-head="Why at risk">([^<]*)<', page)
    assert sum(bool(cell) for cell in cells) > len(cells) / 2
    bundle = load_bundle(parts.paths["bundle"])
    assert bundle.version in page


@pytest.mark.parametrize(
    ("ends", "state", "answer"),
    [
        ({"value_capture_of_best": (-0.09, -0.02), "qwk_value": (-0.01, 0.02)}, "good", "answer_yes"),
        ({"value_capture_of_best": (-0.05, 0.02), "qwk_value": (-0.01, 0.02)}, "warn", "answer_unclear"),
        ({"value_capture_of_best": (0.02, 0.05), "qwk_value": (-0.01, 0.02)}, "bad", "answer_no"),
        ({"value_capture_of_best": (0.02, 0.05), "qwk_value": (-0.09, -0.02)}, "bad", "answer_no"),
    ],
)
def test_tiers_are_judged_against_grading_by_spend(
    ends: dict[str, tuple[float, float]], state: str, answer: str, tmp_path: Path
) -> None:
    write_json(_backtest(ends), tmp_path / "backtest.json")
    told = {v["id"]: v for v in verdicts(read_sources([tmp_path / "backtest.json"]), "en")}
    assert (told["tiers"]["state"], told["tiers"]["answer"]) == (state, words("en")[answer])
    low, high = (-x for x in ends["qwk_value"])
    assert any(f"[{high:+.3f}, {low:+.3f}]" in line for line in told["tiers"]["lines"])


def test_a_clearly_better_scheme_is_recommended_and_one_that_is_worse_somewhere_is_not(tmp_path: Path) -> None:
    for capture, expected in (((0.02, 0.05), "tiers: {scheme: rfm}"), ((-0.05, -0.02), words("en")["answer_keep"])):
        backtest = _backtest({"value_capture_of_best": capture, "qwk_value": (0.01, 0.04)}, "rfm")
        write_json(backtest, tmp_path / "backtest.json")
        text = report([tmp_path / "backtest.json"], tmp_path / "page.html", "en").read_text(encoding="utf-8")
        assert expected in text


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """Give a tab of a headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with browser(tmp_path_factory.mktemp("profile")) as made:
        yield made


WIDER = """[...document.querySelectorAll("body *")].filter(part =>
  part.getBoundingClientRect().right > window.innerWidth + 1 && !part.closest(".scroll, .skip, .chart"))
  .map(part => part.outerHTML.slice(0, 90)).slice(0, 9)"""
LOOKS = [(390, False, "screen"), (768, True, "screen"), (1280, False, "screen"), (1280, False, "print")]


@pytest.mark.parametrize(("width", "dark", "media"), LOOKS)
def test_a_browser_shows_the_page_without_an_error_a_request_or_a_sideways_scroll(
    page: Path, tab: Tab, width: int, dark: bool, media: str
) -> None:
    tab.open(page, width, dark=dark, media=media)
    assert tab.said == []
    assert {url for url in tab.requests if not url.startswith("data:")} == {page.as_uri()}
    assert tab.value(WIDER) == []
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.value("[...document.querySelectorAll('.chart svg')].every(s => s.getBoundingClientRect().width > 100)")
    ground = tab.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(18, 23, 29)") is dark


def test_tables_search_filter_sort_page_and_download(page: Path, tab: Tab) -> None:
    tab.open(page, 1280)
    rows = "[...document.querySelectorAll('.customers tbody tr:not([hidden])')]"
    assert tab.value(f"{rows}.length") == 25
    tab.value("document.querySelectorAll('.pager button')[1].click()")
    assert tab.value(f"{rows}[0].cells[0].textContent") == "26"
    tab.value("document.querySelectorAll('.customers thead button')[4].click()")  # churn risk, highest first
    risks = [float(x) for x in tab.value(f"{rows}.map(r => r.cells[4].dataset.v)")]
    assert risks == sorted(risks, reverse=True)
    assert tab.value("document.querySelectorAll('.customers th')[4].getAttribute('aria-sort')") == "descending"
    change(tab, ".tools select", "selectedIndex = 1", "change")
    assert len(set(tab.value(f"{rows}.map(r => r.cells[2].textContent)"))) == 1
    change(tab, ".tools input", "value = 'nobody'", "input")
    assert tab.value(f"{rows}.length") == 0
    change(tab, ".tools input", "value = ''", "input")
    tab.value("window.kept = []; URL.createObjectURL = blob => { kept.push(blob); return 'data:,' }")
    tab.value("document.querySelector('[data-download]').click()")
    start = tab.value("kept[0].slice(0, 3).arrayBuffer().then(b => [...new Uint8Array(b)])")
    assert bytes(start) == b"\xef\xbb\xbf"
    lines = tab.value("kept[0].text()").splitlines()
    assert len(lines) > 25
    assert all("'=1+" in line for line in lines[1:])  # a spreadsheet shows it as text


def change(tab: Tab, selector: str, change: str, event: str) -> None:
    """Change a control as a reader does, with the event that follows."""
    tab.value(
        f"{{ const x = document.querySelector('{selector}'); x.{change}; x.dispatchEvent(new Event('{event}')) }}"
    )


def test_terms_open_by_keyboard(page: Path, tab: Tab) -> None:
    tab.open(page, 390)
    tab.value("document.querySelector('[popovertarget=term-churn_risk]').focus()")
    for kind in ("keyDown", "keyUp"):
        tab.do("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    assert tab.value("document.querySelector('#term-churn_risk').matches(':popover-open')")
