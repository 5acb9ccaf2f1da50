"""Segments: one = batch for every method, criteria told, names kept through refits, profiles, a floor at the gate."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from commands import Run
from tiermodel.bundle.bundle import load_bundle, save_bundle
from tiermodel.config.tiers import Segments
from tiermodel.errors import GateError
from tiermodel.features.catalogue import expand
from tiermodel.features.panel import build_panel
from tiermodel.output import to_jsonable
from tiermodel.reporting.report import report
from tiermodel.segments.fit import (
    FITS,
    align_segments,
    assign_segments,
    fit_segments,
    nearest,
    scale_of,
    segment_names,
    standardised,
)
from tiermodel.segments.profiles import segment_lines, sorted_profiles
from tiermodel.segments.selection import FLOOR, choose_segments
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset
from tiermodel.tracking.gate import judge_segments
from tiermodel.tracking.promotion import promote
from tiermodel.tracking.registry import champion_of, log_training
from tiermodel.training.train import train
from worlds import LAST_DAY, TrainedWorld, bare_runs

METHODS = ("kmeans", "gaussian_mixture", "hdbscan")


def buyers(groups: int = 3, each: int = 80, seed: int = 3) -> pd.DataFrame:
    """Draw customers of so many habits that lie far apart, and a feature that says the same as another."""
    draw, n = np.random.default_rng(seed), groups * each
    habit = np.repeat(np.arange(groups), each)
    orders = np.round(np.exp(1 + 1.5 * habit + draw.normal(0, 0.15, n)))
    spend = np.round(orders * 20 * np.exp(draw.normal(0, 0.1, n)), 2)
    order = draw.permutation(n)
    frame = pd.DataFrame({
        "days_since_last": np.round(np.exp(5 - 1.5 * habit + draw.normal(0, 0.2, n))) + 1,
        "days_since_first": 400.0 + draw.integers(0, 20, n),
        "purchase_days_total": orders,
        "net_amount_total": spend,
        "net_amount_365d": spend,
        "order_amount_mean": spend / orders,
        "gap_days_mean": np.where(draw.random(n) < 0.1, np.nan, 300 / orders),
    })  # fmt: skip
    return frame.iloc[order].reset_index(drop=True).assign(habit=habit[order])


def chosen(method: str, frame: pd.DataFrame, k: Any = "auto") -> dict[str, Any]:
    state = choose_segments(Segments(method=method, groups=k), frame.drop(columns="habit"), 7)
    return dict(json.loads(json.dumps(to_jsonable(state), allow_nan=False)))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_finds_habits_that_are_there_and_says_how_stable_it_is(method: str) -> None:
    frame = buyers()
    state = chosen(method, frame, 3 if method == "gaussian_mixture" else "auto")
    labels = assign_segments(state, frame)
    inside = labels < 3
    assert inside.mean() > 0.8
    assert adjusted_rand_score(frame["habit"][inside], labels[inside]) > 0.95
    spend = [frame["net_amount_total"][labels == n].mean() for n in range(3)]
    assert spend == sorted(spend)
    assert state["stability"] > FLOOR
    assert segment_names(state) == ["segment_1", "segment_2", "segment_3", "segment_0"]
    assert len(state["criteria"]) == {"kmeans": 6, "gaussian_mixture": 1, "hdbscan": 3}[method]
    assert all({"candidate", "groups", "stability", "silhouette"} <= set(row) for row in state["criteria"])


@pytest.mark.parametrize("method", METHODS)
def test_one_customer_is_the_batch_in_any_order_for_every_method(method: str) -> None:
    frame = buyers()
    groups = 3 if method == "gaussian_mixture" else "auto"
    state, loaded = chosen(method, frame, groups), chosen(method, frame, groups)
    assert state == loaded
    whole = assign_segments(state, frame)
    one = [assign_segments(state, frame.iloc[[n]])[0] for n in range(len(frame))]
    assert whole.tolist() == one
    backwards = assign_segments(state, frame.iloc[::-1])
    assert backwards[::-1].tolist() == one


def test_a_mixture_is_the_one_that_scikit_learn_fits() -> None:
    frame = buyers()
    state = scale_of(frame)
    z = standardised(state, frame)
    fitted = FITS["gaussian_mixture"](z, 3, 7, 1)
    theirs = GaussianMixture(3, reg_covar=1e-2, max_iter=300, random_state=7, init_params="k-means++").fit(z.T)
    assert nearest(fitted, z).tolist() == theirs.predict(z.T).tolist()
    assert np.isclose(logsumexp(fitted["log_weight"]), 0)


def test_who_is_far_from_every_dense_group_is_in_none() -> None:
    frame = buyers()
    state = chosen("hdbscan", frame)
    odd = frame.iloc[[0]].assign(days_since_last=1.0, purchase_days_total=1.0, net_amount_total=1e6)
    assert segment_names(state)[assign_segments(state, odd)[0]] == "segment_0"
    same = pd.concat([frame.iloc[[0]]] * 30, ignore_index=True)
    alone = chosen("hdbscan", same)
    assert set(assign_segments(alone, same)) == {0}


def test_equal_customers_and_few_customers_make_fewer_groups() -> None:
    same = pd.concat([buyers().iloc[[0, 200]]] * 20, ignore_index=True)
    for method in ("kmeans", "gaussian_mixture"):
        assert len(segment_names(chosen(method, same, 5))) - 1 == 2


@settings(max_examples=25)
@given(order=st.permutations(range(3)), seed=st.integers(0, 50))
def test_a_refit_on_the_same_customers_keeps_all_names_whatever_its_order(order: list[int], seed: int) -> None:
    frame = buyers()
    champion = fit_segments(frame, 3, 7) | {"codes": [4, 2, 7], "last_code": 9}
    refit = fit_segments(frame, 3, seed)
    shuffled = refit | {"centres": [refit["centres"][n] for n in order]}
    aligned = align_segments(shuffled, champion, frame)
    names = [np.array(segment_names(s))[assign_segments(s, frame)].tolist() for s in (champion, aligned)]
    assert names[0] == names[1]
    assert "champion" not in aligned
    assert sorted(aligned["codes"]) == [2, 4, 7]
    assert aligned["last_code"] == 9
    plain = fit_segments(frame, 3, 7)
    assert align_segments(plain, plain, frame) == plain


def test_a_new_group_gets_a_number_that_was_never_used() -> None:
    frame = buyers()
    champion = fit_segments(frame[frame["habit"] < 2], 2, 7)
    aligned = align_segments(fit_segments(frame, 3, 7), champion, frame)
    names = segment_names(aligned)[:-1]
    assert sorted(names) == ["segment_1", "segment_2", "segment_3"]
    assert aligned["champion"]["new"] == [3]
    without = align_segments(fit_segments(frame[frame["habit"] > 0], 2, 7), aligned, frame[frame["habit"] > 0])
    assert [f"segment_{n}" for n in without["champion"]["gone"]] == names[:1]
    back = align_segments(fit_segments(frame, 3, 7), without, frame)
    assert set(back["codes"]) > set(without["codes"])
    assert 4 in back["codes"]


def test_profiles_name_what_sets_a_group_apart_once_and_hide_small_groups() -> None:
    frame = buyers()
    state = chosen("kmeans", frame, 3)
    for name, profile in sorted_profiles(state):
        inside = np.array(segment_names(state))[assign_segments(state, frame)] == name
        assert profile["customers"] == inside.sum()
        assert profile["marks"] or name == "segment_2"
        for mark in profile["marks"]:
            assert mark["median"] == pytest.approx(frame[mark["feature"]][inside].median())
            assert np.sign(mark["difference"]) == np.sign(mark["median"] - mark["median_all"])
        features = [mark["feature"] for mark in profile["marks"]]
        assert len({"net_amount_total", "net_amount_365d", "purchase_days_total"} & set(features)) <= 1
    few = pd.concat([frame[frame["habit"] == 0], frame[frame["habit"] == 2].head(3)], ignore_index=True)
    state = chosen("kmeans", few, 2)
    assert [p["customers"] for _, p in sorted_profiles(state)] == [80, None]
    assert segment_lines(state, {}, "en")[-1] == "segment_2: fewer than 5 customers"
    assert segment_lines(state, {}, "zh")[-1] == "segment_2: 少于 5 位客户"


@pytest.mark.parametrize(
    ("figures", "told"),
    [
        ({"median": 3.0, "median_all": 1.0, "mean": 9.0, "mean_all": 2.0}, "high clicks (median 3, all 1)"),
        ({"median": 0.0, "median_all": 0.0, "mean": 0.71, "mean_all": 0.2}, "high clicks (mean 0.71, all 0.2)"),
        ({"median": 0.0, "median_all": 0.0, "mean": 0.1, "mean_all": 0.2}, "high clicks"),  # one outlier outside
        ({"median": 1.0, "median_all": 1.0001, "mean": None, "mean_all": None}, "high clicks"),
        ({"median": 0.0, "median_all": 0.0}, "high clicks"),  # a bundle made before means were kept
    ],
)
def test_equal_medians_are_not_told_as_a_difference(figures: dict[str, float | None], told: str) -> None:
    profile = {"share": 0.5, "customers": 9, "marks": [{"feature": "clicks", "difference": 0.7, **figures}]}
    state = chosen("kmeans", buyers(), 2)
    lines = segment_lines({**state, "profiles": [profile], "names": [], "rules": []}, {}, "en")
    assert lines[1].split("; ")[1] == told


def test_the_gate_refuses_segments_that_a_refit_would_shuffle(trained: TrainedWorld) -> None:
    state = trained.trained.bundle.segments
    assert judge_segments(state).passed == (state["stability"] >= FLOOR)
    noise = judge_segments({**state, "stability": FLOOR - 0.01})
    assert not noise.passed
    assert "adjusted Rand index under resampling 0.59, 0.6 at least" in noise.words
    old = {k: v for k, v in state.items() if k not in {"stability", "criteria", "profiles"}}
    assert "train it again" in judge_segments(old).words


@pytest.mark.usefixtures("quick")
def test_names_follow_the_champion_and_shuffled_segments_are_not_promoted(
    trained: TrainedWorld, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracking = trained.project.tracking.model_copy(update={"uri": uri})
    changed = {"tracking": tracking, "seed": 11, "segments": Segments(groups=3)}  # as many as the champion has
    project = trained.project.model_copy(update=changed)
    assert champion_of(project) is None
    renamed = replace(
        trained.trained.bundle, segments=trained.trained.bundle.segments | {"codes": [6, 5, 4], "last_code": 6}
    )
    save_bundle(renamed, tmp_path / "one")
    with bare_runs():
        log_training(project, replace(trained.trained, bundle=renamed), tmp_path / "one", register=True)
    monkeypatch.setattr("tiermodel.tracking.promotion.judge", lambda *_: [])
    assert any("segments" in reason for reason in promote(project.name, None, tracking_uri=uri).reasons)
    champion = champion_of(project)
    assert champion is not None
    again = train(project, out=tmp_path / "two", champion=champion)
    told = load_bundle(tmp_path / "two").segments
    assert sorted(told["codes"]) == [4, 5, 6]
    assert told.get("champion", {}).get("agreement", 1.0) > 0.9
    shaky = replace(again.bundle, segments=again.bundle.segments | {"stability": 0.2})
    save_bundle(shaky, tmp_path / "two")
    with bare_runs():
        log_training(project, replace(again, bundle=shaky), tmp_path / "two", register=True)
    with pytest.raises(GateError, match=r"FAILED segments \(advisory\): 3 segments: adjusted Rand index .* 0\.20"):
        promote(project.name, None, tracking_uri=uri)


def test_the_command_line_shows_segments_in_both_languages(cli: Run, trained: TrainedWorld) -> None:
    shown = {language: cli("show", "model", trained.bundle, "--language", language) for language in ("zh", "en")}
    told = {language: json.loads(ran.out)["segments"] for language, ran in shown.items()}
    assert told["en"]["words"][0].startswith("k-means, 3 groups, stability under resampling")
    assert told["zh"]["words"][0].startswith("K 均值聚类，3 个客群")
    assert set(told["en"]["profiles"]) == {"segment_1", "segment_2", "segment_3"}
    catalogue = {f.name: f for f in expand(trained.project.features, trained.trained.bundle.columns)}
    first = told["zh"]["profiles"]["segment_1"]["marks"][0]["feature"]
    assert catalogue[first].zh in told["zh"]["words"][1]
    assert "## Segments" in (trained.bundle / "card.md").read_text()
    page = report([trained.bundle], Path("page.html"), "zh").read_text(encoding="utf-8")
    assert "客群说明" in page
    assert catalogue[first].zh in page


def test_a_segment_section_that_makes_no_sense_is_refused(cli: Run, tmp_path: Path) -> None:
    head = "version: 1\nname: s\ndata: {transactions: {path: a.csv, columns: {customer_id: c, time: t, amount: a}}}\n"
    for text, words in (
        ("{method: kmeens}", "kmeans"),
        ("{groups: 1}", "expected auto or a whole number from 2 to 20, got 1"),
        ("{method: hdbscan, groups: 4}", "leave groups: 4 out"),
        ("{group: 4}", "did you mean groups?"),
    ):
        (tmp_path / "s.yaml").write_text(f"{head}segments: {text}\n")
        ran = cli("show", "config", "s.yaml")
        assert ran.code == 2
        assert words in ran.err
        assert "segments" in ran.err


def test_the_command_line_tells_what_ten_per_cent_of_a_weight_changes(
    cli: Run, trained: TrainedWorld, tmp_path: Path
) -> None:
    panel = build_panel(trained.project, [LAST_DAY])
    scheme = fit_scheme(load_preset("four_indicators", (60, 365)), panel, panel, 7)
    save_bundle(replace(trained.trained.bundle, scheme=scheme), tmp_path / "bundle")
    shown = {lang: cli("show", "model", tmp_path / "bundle", "--language", lang) for lang in ("zh", "en")}
    told = {lang: json.loads(ran.out) for lang, ran in shown.items()}
    changed = told["en"]["sensitivity"]["changed"]
    assert changed == {k: pytest.approx(v) for k, v in scheme.state["sensitivity"].items()}
    assert any(share > 0 for pair in changed.values() for share in pair)
    name, (less, more) = next(iter(changed.items()))
    feature = {f.name: f for f in expand(trained.project.features, trained.trained.bundle.columns)}[name]
    words = f"weight of {feature.en} 10 % less: {less:.1%} of the customers change level; 10 % more: {more:.1%}"
    assert told["en"]["sensitivity"]["words"][0] == words
    assert told["zh"]["sensitivity"]["words"][0].startswith(f"{feature.zh}权重减少10%")
    plain = json.loads(cli("show", "model", trained.bundle).out)["sensitivity"]
    assert plain == {"changed": {}, "words": []}
