"""The bundle: the same bytes for the same data and processor, refused before a parser sees a byte if one changed."""

from __future__ import annotations

import ast
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from tiermodel.bundle.bundle import load_bundle, save_bundle
from tiermodel.bundle.files import FORMAT
from tiermodel.errors import ModelError, ProjectError
from tiermodel.features.panel import build_panel
from tiermodel.predict import predict
from tiermodel.training.train import train
from worlds import LAST_DAY, TrainedWorld

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "models" / "complete-journey"
GOLDEN = ROOT / "tests" / "golden"
FILES = ("bundle.json", "card.md", "churn.txt", "golden.json", "value.txt", "tier_0.txt", "tier_1.txt", "tier_2.txt")


@pytest.fixture
def copied(trained: TrainedWorld, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.bundle, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def snapshot(trained: TrainedWorld) -> pd.DataFrame:
    return build_panel(trained.project, [LAST_DAY])


def test_a_loaded_bundle_is_the_one_saved_to_the_bit(
    trained: TrainedWorld, snapshot: pd.DataFrame, tmp_path: Path
) -> None:
    bundle, loaded = trained.trained.bundle, load_bundle(trained.bundle)
    assert loaded.version == bundle.version
    assert loaded.scheme_version == bundle.scheme_version
    assert loaded.facts == bundle.facts
    pd.testing.assert_frame_equal(predict(loaded, snapshot), predict(bundle, snapshot), check_exact=True)
    again = save_bundle(loaded, tmp_path / "again")
    anew = save_bundle(dataclasses.replace(loaded), tmp_path / "anew")  # written from what was read
    for file in sorted(trained.bundle.iterdir()):
        assert (again / file.name).read_bytes() == file.read_bytes()
        assert (anew / file.name).read_bytes() == file.read_bytes()


def test_other_words_on_the_card_leave_a_bundle_and_its_version_as_they_were(
    trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in trained.bundle.iterdir()}
    monkeypatch.setattr("tiermodel.bundle.bundle.model_card", lambda *_: "# the card of another release")
    loaded = load_bundle(trained.bundle)
    assert loaded.version == trained.trained.bundle.version
    again = save_bundle(loaded, tmp_path / "again")
    assert {path.name: path.read_bytes() for path in again.iterdir()} == before
    changed = dataclasses.replace(loaded, name="other")  # a new bundle, with a card of its own
    assert changed.version not in {loaded.version, f"other-{loaded.version.rpartition('-')[2]}"}
    assert (save_bundle(changed, tmp_path / "other") / "card.md").read_text() == "# the card of another release"


def test_law_8_the_same_data_project_and_seed_give_the_same_bundle_on_any_number_of_threads(
    trained: TrainedWorld,
) -> None:
    with threadpool_limits(limits=4):
        again = train(trained.project)
    assert again.bundle.version == trained.trained.bundle.version


def test_a_bundle_is_whole_or_absent_and_replaces_the_one_before(trained: TrainedWorld, tmp_path: Path) -> None:
    bundle, target = trained.trained.bundle, tmp_path / "model"
    target.mkdir()
    (target / "diary.txt").write_text("x")
    with pytest.raises(ProjectError, match="holds something that is no bundle"):
        save_bundle(bundle, target)
    assert [p.name for p in target.iterdir()] == ["diary.txt"]
    (target / "manifest.json").write_text('{"files": {"app.js": "0"}}')  # another program's manifest
    with pytest.raises(ProjectError, match="holds something that is no bundle"):
        save_bundle(bundle, target)
    (target / "manifest.json").write_text('{"files": {"diary.txt": "0"}}')
    save_bundle(bundle, target)
    assert sorted(p.name for p in target.iterdir()) == sorted([*FILES, "manifest.json"])
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_nothing_in_a_bundle_tells_of_the_machine_or_a_customer(trained: TrainedWorld) -> None:
    for file in trained.bundle.iterdir():
        text = file.read_text(encoding="utf-8")
        assert "ID-ZQX-" not in text
        assert str(trained.bundle.parent) not in text


def test_figures_that_are_not_numbers_survive_saving(trained: TrainedWorld, tmp_path: Path) -> None:
    bundle = trained.trained.bundle
    later = {**bundle.facts["later"], "churn": {"n": 3, "auc": float("nan")}}
    odd = type(bundle)(
        **{**{k: vars(bundle)[k] for k in bundle.__dataclass_fields__}, "facts": {**bundle.facts, "later": later}}
    )
    loaded = load_bundle(save_bundle(odd, tmp_path / "odd"))
    assert loaded.version == odd.version
    assert loaded.facts["later"]["churn"]["auc"] is None


# damage


def flip(path: Path, at: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(at * (len(content) - 1))] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_one_changed_bit_is_named_before_lightgbm_sees_it(
    copied: Path, name: str, at: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parsed(*_: object, **__: object) -> None:
        raise AssertionError("LightGBM was given bytes that were not checked")

    monkeypatch.setattr(lightgbm, "Booster", parsed)
    flip(copied / name, at)
    with pytest.raises(ModelError, match=rf"{name} changed since training") as refused:
        load_bundle(copied)
    assert refused.value.exit_code == 5


def rewrite(copied: Path, change: Callable[[dict[str, object]], object]) -> None:
    manifest = json.loads((copied / "manifest.json").read_text())
    (copied / "manifest.json").write_text(json.dumps(change(manifest)))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (lambda f: (f / "value.txt").unlink(), r"missing \['value.txt'\]"),
    "extra": (lambda f: (f / "setup.py").write_text("import os"), r"not in the manifest \['setup.py'\]"),
    "extra folder": (lambda f: (f / "code").mkdir(), r"not in the manifest \['code'\]"),
    "renamed": (lambda f: (f / "value.txt").rename(f / "v.txt"), r"missing \['value.txt'\].*\['v.txt'\]"),
    "swapped": (lambda f: (f / "value.txt").write_bytes((f / "churn.txt").read_bytes()), "value.txt changed"),
    "empty file": (lambda f: (f / "churn.txt").write_bytes(b""), "churn.txt changed"),
    "cut": (lambda f: (f / "tier_0.txt").write_bytes((f / "tier_0.txt").read_bytes()[:-9]), "tier_0.txt changed"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "there is no manifest.json"),
    "cut manifest": (lambda f: (f / "manifest.json").write_text('{"format": 1, "fil'), "not a manifest"),
    "deep manifest": (lambda f: (f / "manifest.json").write_text("[" * 100_000), "not a manifest"),
    "binary manifest": (lambda f: (f / "manifest.json").write_bytes(b"\xff\xfe\x00"), "not a manifest"),
    "list manifest": (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest"),
    "old format": (lambda f: rewrite(f, lambda m: {**m, "format": 0}), f"bundle format 0, this version reads {FORMAT}"),
    "new format": (lambda f: rewrite(f, lambda m: {**m, "format": "2"}), "bundle format '2'"),
    "wrong hash": (
        lambda f: rewrite(f, lambda m: {**m, "files": {**m["files"], "card.md": "0" * 64}}),  # type: ignore[dict-item]
        "card.md changed",
    ),
    "outside": (
        lambda f: rewrite(f, lambda m: {**m, "files": {**m["files"], "../x": "0"}}),  # type: ignore[dict-item]
        "missing",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_refused_in_words(copied: Path, damage: str) -> None:
    harm, words = DAMAGES[damage]
    harm(copied)
    with pytest.raises(ModelError, match=words):
        load_bundle(copied)


def test_links_are_not_followed(copied: Path, tmp_path: Path) -> None:
    for name in ("churn.txt", "manifest.json"):
        (copied / name).rename(tmp_path / name)
        (copied / name).symlink_to(tmp_path / name)
        with pytest.raises(ModelError, match=f"{name}: not a plain file"):
            load_bundle(copied)
        (copied / name).unlink()
        (tmp_path / name).rename(copied / name)
    assert load_bundle(copied).name == "small-world"


def test_there_is_no_bundle_where_there_is_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ModelError, match=r"so this is no bundle.*train --out"):
            load_bundle(path)


def test_nothing_here_unpickles_or_runs_text() -> None:
    """Neither our modules import a pickler, nor do they call what runs text as code."""
    for file in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"pickle", "joblib", "cloudpickle", "dill", "marshal"}, file
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"eval", "exec", "compile", "__import__"}, file


# the model that comes with the repository


@pytest.mark.skipif(not DEMO.is_dir(), reason="models/complete-journey is not there")
def test_the_committed_bundle_loads() -> None:
    bundle = load_bundle(DEMO)
    assert bundle.name == "complete-journey"
    assert bundle.scheme.rules(bundle.features, "zh")


@pytest.mark.skipif(not (GOLDEN / "complete_journey_scores.parquet").is_file(), reason="no golden scores")
def test_the_committed_bundle_scores_as_it_did() -> None:
    given = pd.read_parquet(GOLDEN / "complete_journey_snapshot.parquet")
    wanted = pd.read_parquet(GOLDEN / "complete_journey_scores.parquet")
    found = predict(load_bundle(DEMO), given)
    assert list(found.columns) == list(wanted.columns)
    for name in found:
        if found[name].dtype.kind == "f":
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-6, err_msg=str(name))
        else:
            assert found[name].astype(str).tolist() == wanted[name].astype(str).tolist(), name
