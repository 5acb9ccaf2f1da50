"""A bundle whose manifest is right although files were changed: refused in a sentence, or scores in their ranges."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from bundle_variants import Files, trees_with, variants, with_json, with_manifest, write_variant
from commands import Run
from tiermodel.bundle.bundle import load_bundle
from tiermodel.bundle.bundle_shape import SegmentsShape
from tiermodel.errors import ModelError
from tiermodel.features.panel import build_panel
from tiermodel.predict import predict
from worlds import LAST_DAY, TrainedWorld

DRAWN = 60


@pytest.fixture(scope="module")
def files(trained: TrainedWorld) -> Files:
    return {path.name: path.read_bytes() for path in trained.bundle.iterdir()}


@pytest.fixture(scope="module")
def snapshot(trained: TrainedWorld) -> pd.DataFrame:
    return build_panel(trained.project, [LAST_DAY]).iloc[:30].reset_index(drop=True)


def json_is(key: str, value: Any) -> Callable[[Files], Files]:
    return lambda files: with_json(files, key, value)


def tree_is(pattern: str, new: str, name: str = "churn.txt") -> Callable[[Files], Files]:
    return lambda files: trees_with(files, name, pattern, new)


def replaced(name: str, old: bytes, new: bytes) -> Callable[[Files], Files]:
    return lambda files: with_manifest({**files, name: files[name].replace(old, new, 1)})


def without(files: Files, key: str) -> Files:
    data = {name: part for name, part in json.loads(files["bundle.json"]).items() if name != key}
    return with_manifest({**files, "bundle.json": json.dumps(data, ensure_ascii=False).encode()})


def dropped(name: str) -> Callable[[Files], Files]:
    return lambda files: with_manifest({key: content for key, content in files.items() if key != name})


# what once killed the process, hung, gave a traceback or scores that were no numbers
REFUSED: dict[str, tuple[Callable[[Files], Files], str]] = {
    "a child that is its own parent": (
        tree_is(r"^left_child=-?\d+", "left_child=0"), r"churn\.txt: left_child of split 0 of tree 0 is 0: no later"),
    "a child beyond the tree": (
        tree_is(r"^right_child=-?\d+", "right_child=99999"), r"right_child of split 0 of tree 0 is 99999: no later"),
    "a leaf that is not there": (
        tree_is(r"^left_child=-?\d+", "left_child=-99999"), r"left_child of split 0 of tree 0 is -99999: no later"),
    "more leaves than numbers": (
        tree_is(r"^num_leaves=\d+", "num_leaves=900"), r"numbers long, which does not fit num_leaves"),
    "more leaves than memory": (
        tree_is(r"^num_leaves=\d+", "num_leaves=2147483647"), r"num_leaves of tree 0 is 2.14748e\+09, not 1 to 1024"),
    "an input that is not there": (
        tree_is(r"^split_feature=\d+", "split_feature=9999"), r"split_feature of tree 0 is 9999, not 0 to \d+"),
    "a threshold that is no number": (
        tree_is(r"^threshold=\S+", "threshold=nan", "value.txt"), r"value\.txt: threshold of tree 0 is"),
    "a leaf that is infinite": (
        tree_is(r"^leaf_value=\S+", "leaf_value=1e999"), r"leaf_value of tree 0 is inf, not a finite number"),
    "a categorical split": (
        tree_is(r"^decision_type=\d+", "decision_type=1"), r"decision_type 1 is not that of a numeric split"),
    "categories": (tree_is(r"^num_cat=0", "num_cat=1"), r"num_cat of tree 0 is 1, and our trees have none"),
    "wrong sizes": (
        replaced("churn.txt", b"tree_sizes=", b"tree_sizes=1"), r"tree_sizes of tree 0 is 1\d+, but it has \d+ bytes"),
    "another number of trees": (
        replaced("churn.txt", b"tree_sizes=", b"tree_sizes=9 "), r"tree_sizes has \d+ trees, but \d+ lines hold"),
    "another objective": (
        replaced("churn.txt", b"objective=binary sigmoid:1", b"objective=binary sigmoid:0"), "objective is"),
    "another input": (
        replaced("churn.txt", b"feature_names=days_since_last", b"feature_names=days_since_lost"), "feature_names"),
    "cut off": (
        lambda files: with_manifest({**files, "churn.txt": files["churn.txt"][:5000]}), "the file is cut off"),
    "no trees": (lambda files: with_manifest({**files, "tier_0.txt": b""}), r"tier_0\.txt: 'end of trees' is missing"),
    "a file left out": (dropped("tier_0.txt"), r"tier_0\.txt is missing; copy the bundle again"),
    "a file too many": (
        lambda files: with_manifest({**files, "setup.py": b"import os"}), r"setup\.py is no file of this bundle"),
    "risks that are no numbers": (json_is("churn.blend", [float("nan")] * 6), "NaN is no number"),
    "too few weights": (json_is("churn.blend", [0.1]), r"churn\.blend: List should have at least 6 items"),
    "an infinite weight": (
        replaced("bundle.json", b'"least_amount": ', b'"least_amount": 1e999, "_": '), "inf is no finite"),
    "a weight as text": (json_is("churn.blend.0", "0.5"), r"churn\.blend\.0: .*got '0\.5'"),
    "a scale of zero": (json_is("churn.linear.scale.0", 0), r"churn\.linear\.scale\.0: .*greater than 0, got 0"),
    "a column that is not there": (json_is("value.linear.columns.0", 4000), r"value\.linear\.columns: 4000 is none of"),
    "a circle in a readable tree": (json_is("peers.tree.left.0", 0), r"peers\.tree: left: 0 at node 0 is no later"),
    "a reference too few": (json_is("peers.reference", [1.0]), r"peers: reference: 1 long, not"),
    "a segment of other axes": (json_is("segments.centres.0", [1.0]), r"segments: centres: 1 long, not 6"),
    "a level that is not there": (json_is("tier.mass", [0.5] * 7), r"tier\.mass: 7 long, not 4"),
    "cut points that fall": (json_is("scheme.state.cuts", [9, 5, 1]), r"scheme\.state\.cuts: 5 stands after 9"),
    "an unknown key": (json_is("churn.boosted", []), r"churn\.boosted: Extra inputs are not permitted"),
    "a huge whole number": (json_is("facts.customers", 10**400), "facts.customers: a whole number of 401 digits"),
    "a text without an end": (json_is("name", "x" * 10**6), "name: a text of 1000000 characters"),
    "nested lists": (
        replaced("bundle.json", b'"facts": {', b'"facts": {"x": ' + b"[" * 10**5 + b"]" * 10**5 + b","), "too deeply"),
    "a language that there is not": (json_is("settings.language", "de"), r"settings: language: .*got 'de'"),
    "settings that are none": (json_is("settings.features.windows_days", [0]), r"settings: features\.windows_days\.0"),
    "no JSON": (lambda files: with_manifest({**files, "bundle.json": b"\xff"}), "bundle.json: 'utf-8' codec"),
    "golden rows of others": (
        lambda files: with_json(files, "rows", {}, "golden.json"), "golden rows have"),
    "customer scores left out": (
        lambda files: without(files, "scores"), "this bundle has no score_loyalty, as it had when it was made"),
    "other scores": (
        json_is("churn.blend.0", 0.987654321),
        r"golden\.json: this bundle does not score as it did when it was made: churn_risk of made-up customer 0 was"),
    "a leaf changed by little": (
        tree_is(r"^leaf_value=\S+", "leaf_value=0.123"), "this bundle does not score as it did when it was made"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_was_changed_is_named(files: Files, tmp_path: Path, what: str) -> None:
    change, words = REFUSED[what]
    folder = write_variant(change(files), tmp_path / "bundle")
    with pytest.raises(ModelError, match=words) as refused:
        load_bundle(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(str(folder))


def test_lightgbm_never_sees_trees_that_were_refused(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("LightGBM was given trees that were not checked")

    monkeypatch.setattr(lightgbm, "Booster", parsed)
    folder = write_variant(trees_with(files, "tier_0.txt", r"^left_child=-?\d+", "left_child=0"), tmp_path / "bundle")
    with pytest.raises(ModelError, match=r"tier_0\.txt: left_child"):
        load_bundle(folder)


def test_the_verb_says_it_in_one_line_and_writes_nothing(
    trained: TrainedWorld, files: Files, tmp_path: Path, cli: Run
) -> None:
    folder = write_variant(with_json(files, "churn.blend.0", None), tmp_path / "bundle")
    project = tmp_path / "project.yaml"
    project.write_text(json.dumps(trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)))
    found = cli("score", project, "--model", folder, "--as-of", "latest", "--out", tmp_path / "s.parquet")
    assert (found.code, found.err.count("\n")) == (5, 1), found.err
    assert "bundle.json: churn.blend.0: " in found.err
    assert not (tmp_path / "s.parquet").exists()


@pytest.mark.parametrize("golden", [True, False], ids=["with golden rows", "of an earlier version"])
def test_drawn_changes_are_refused_or_score_within_the_ranges(
    files: Files, snapshot: pd.DataFrame, tmp_path: Path, *, golden: bool
) -> None:
    base = files if golden else with_manifest({name: c for name, c in files.items() if name != "golden.json"})
    original = predict(load_bundle(write_variant(base, tmp_path / "original")), snapshot)
    refused = scored = 0
    for n, variant in enumerate(variants({"small": base}, DRAWN, seed=3)):
        try:
            scores = predict(load_bundle(write_variant(variant.files, tmp_path / str(n))), snapshot)
        except ModelError as error:
            refused += "\n" not in str(error)
            continue
        scored += 1
        shares = scores[["churn_risk", *(name for name in scores.columns if name.startswith("p_"))]].to_numpy(
            dtype=float
        )
        assert ((shares >= 0) & (shares <= 1)).all(), variant.told
        if golden and re.search("dropped tree|number", variant.told) and "golden" not in variant.told:
            pd.testing.assert_series_equal(scores["churn_risk"], original["churn_risk"])
    assert refused + scored == DRAWN
    assert refused > DRAWN // 2


def test_a_bundle_of_an_earlier_version_loads_and_scores_to_the_bit(
    files: Files, snapshot: pd.DataFrame, tmp_path: Path
) -> None:
    earlier = with_manifest({name: content for name, content in files.items() if name != "golden.json"})
    loaded = load_bundle(write_variant(earlier, tmp_path / "earlier"))
    now = load_bundle(write_variant(files, tmp_path / "now"))
    aside = ["model_version"]
    pd.testing.assert_frame_equal(
        predict(loaded, snapshot).drop(columns=aside), predict(now, snapshot).drop(columns=aside), check_exact=True
    )


def test_golden_rows_are_of_nobody_and_some_have_missing_values(files: Files, trained: TrainedWorld) -> None:
    golden = json.loads(files["golden.json"])
    rows = pd.DataFrame(golden["rows"])
    assert list(rows) == list(trained.trained.bundle.inputs.names)
    assert rows.isna().any(axis=None)
    assert rows["days_since_last"].isna().sum() == 8  # prospects
    panel = build_panel(trained.project, [LAST_DAY])
    assert not rows.merge(panel[list(rows)], on=["net_amount_total", "days_since_first", "days_since_last"]).shape[0]
    scores = pd.DataFrame(golden["scores"])
    assert len(set(scores["tier"])) > 1
    assert scores["churn_risk"].dropna().between(0, 1).all()


def test_a_score_outside_its_range_never_leaves(
    trained: TrainedWorld, snapshot: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = load_bundle(trained.bundle)
    for column, part in (("churn_risk", "churn"), ("expected_value", "value")):
        with monkeypatch.context() as patch:
            patch.setattr(type(getattr(bundle, part)), "predict", lambda _, x: np.full(len(x), np.nan))
            with pytest.raises(ModelError, match=rf"{column} is nan at position 0, not .*the bundle is damaged"):
                predict(bundle, snapshot)


@pytest.mark.parametrize("factor", [[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0], [0.0]], []])
def test_a_factor_of_a_mixture_that_is_not_square_is_refused(factor: list[list[float]]) -> None:
    bounds = {"low": [0.0, 0.0], "high": [9.0, 9.0], "middle": [1.0, 1.0], "mean": [1.0, 1.0], "scale": [1.0, 1.0]}
    state = {**bounds, "features": ["a", "b"], "centres": [[0.0, 0.0]], "method": "gaussian_mixture"}
    given = {**state, "log_weight": [0.0], "precision": [factor]}
    with pytest.raises(ValidationError, match="precision"):
        SegmentsShape.model_validate(given)
    assert SegmentsShape.model_validate({**given, "precision": [[[1.0, 0.0], [0.0, 1.0]]]}).codes is None
