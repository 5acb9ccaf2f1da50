"""A shadow beside the scores: the same bytes as alone, a true difference, and all files together."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from commands import Run
from tiermodel.bundle.bundle import Bundle, save_bundle
from tiermodel.config.project import Project
from tiermodel.errors import ModelError
from tiermodel.output import settle_beside
from tiermodel.predict import score
from tiermodel.predict.shadow import shadow_paths
from tiermodel.tiers.fitted_scheme import FittedScheme
from worlds import TrainedWorld, with_capacity

DAY = "2023-12-01"


def shifted(bundle: Bundle, **settings: Any) -> Bundle:
    """Give a bundle with risks nearer to a half and other cut points, as a later training might."""
    trees = bundle.churn
    state = json.loads(json.dumps(bundle.scheme.state))
    state = raised(state)
    changed = {**bundle.settings, **settings}
    return replace(bundle, scheme=FittedScheme(bundle.scheme.scheme, state), churn=trees, settings=changed)


def raised(part: Any) -> Any:
    """Raise every number of a fitted state by a tenth, so that some customers fall below a cut point."""
    if isinstance(part, dict):
        return {key: raised(value) for key, value in part.items()}
    if isinstance(part, list):
        return [raised(value) for value in part]
    return part * 1.1 if isinstance(part, float) else part


def both(folder: Path, project: Project, first: Bundle, second: Bundle, **options: Any) -> dict[str, Any]:
    """Score with a shadow and with each bundle alone; the tables must be the same bytes. Return the summary."""
    out = folder / "s.parquet"
    done = score(project, first, DAY, out, shadow=second, **options)
    score(project, first, DAY, folder / "first.parquet")
    score(project, second, DAY, folder / "second.parquet")
    scores, changes, summary = shadow_paths(out)
    if not options:
        assert out.read_bytes() == (folder / "first.parquet").read_bytes()
        assert scores.read_bytes() == (folder / "second.parquet").read_bytes()
    assert json.loads(summary.read_text()) == json.loads(json.dumps(done.shadow))
    assert done.shadow is not None
    check(done.shadow, pd.read_parquet(out), pd.read_parquet(scores), pd.read_parquet(changes))
    return done.shadow


def check(told: dict[str, Any], first: pd.DataFrame, second: pd.DataFrame, changes: pd.DataFrame) -> None:
    """Recompute the summary and the changes from the two score tables."""
    joined = first.merge(second, on="customer_id", suffixes=("", "_shadow"))
    cells = joined.groupby(["tier_code", "tier_code_shadow"])["expected_value"].agg(["size", "sum"])
    assert {(c["from"], c["to"]): c["customers"] for c in told["matrix"]} == cells["size"].to_dict()
    for cell in told["matrix"]:
        assert cell["value"] == pytest.approx(cells.loc[(cell["from"], cell["to"]), "sum"], abs=0.01)
    moved = joined[joined["tier"] != joined["tier_shadow"]]
    assert told["customers"] == len(joined) == len(first) == len(second)
    assert told["down"] == (moved["tier_shadow"] < moved["tier"]).sum()
    assert told["up"] == (moved["tier_shadow"] > moved["tier"]).sum()
    assert told["moved_value"] == pytest.approx(moved["expected_value"].sum(), abs=0.01)
    difference = joined["churn_risk_shadow"] - joined["churn_risk"]
    assert told["churn_risk"]["largest"] == pytest.approx(difference.abs().max(), abs=1e-9)
    assert set(changes["customer_id"][changes["because"].str.contains("tier")]) == set(moved["customer_id"])
    assert changes["expected_value"].abs().fillna(0).is_monotonic_decreasing
    kept = changes.merge(joined, on="customer_id", suffixes=("_told", ""))
    np.testing.assert_array_equal(kept["tier_code_told"], kept["tier_code"])
    np.testing.assert_array_equal(kept["shadow_tier_code"], kept["tier_code_shadow"])


def test_one_walk_gives_both_tables_and_the_difference(trained: TrainedWorld, tmp_path: Path) -> None:
    first = trained.trained.bundle
    told = both(tmp_path, trained.project, first, shifted(first))
    assert told["one_walk"]
    assert told["down"] > 0
    same = both(tmp_path, trained.project, first, first)
    assert (same["up"], same["down"], same["churn_risk"]["largest"]) == (0, 0, 0.0)
    assert pd.read_parquet(tmp_path / "s.shadow_changes.parquet").empty


def test_a_shadow_with_capacity_and_one_of_other_dates_walk_as_they_need(trained: TrainedWorld, tmp_path: Path) -> None:
    first = trained.trained.bundle
    full = with_capacity(first, {"major": 5})
    assert both(tmp_path, trained.project, first, full)["one_walk"]
    assert both(tmp_path, trained.project, full, first)["up"] > 0
    windows = {"panel": {**first.settings["panel"], "every_days": 30}}
    assert both(tmp_path, trained.project, first, shifted(first, **windows))["customers"] > 0


def test_the_ledger_sees_the_model_alone(trained: TrainedWorld, tmp_path: Path) -> None:
    first = trained.trained.bundle
    project = trained.project
    for name, shadow in (("plain", None), ("shadowed", shifted(first))):
        (tmp_path / name).mkdir()
        score(
            project,
            first,
            "2023-11-01",
            tmp_path / name / "a.parquet",
            ledger=tmp_path / name / "ledger",
            shadow=shadow,
        )
        score(project, first, DAY, tmp_path / name / "b.parquet", ledger=tmp_path / name / "ledger", shadow=shadow)
    files = {
        name: {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()}
        for name in ("plain", "shadowed")
    }
    extra = set(files["shadowed"]) - set(files["plain"])
    assert {path.name for path in extra} == {p.name for n in "ab" for p in shadow_paths(Path(f"{n}.parquet"))}
    tables = {path for path in files["plain"] if path.suffix == ".parquet"}
    assert tables
    assert all(files["plain"][path] == files["shadowed"][path] for path in tables)


def test_a_shadow_of_another_project_or_question_is_refused_and_nothing_written(
    trained: TrainedWorld, tmp_path: Path, cli: Run
) -> None:
    first = trained.trained.bundle
    project = tmp_path / "shop.yaml"
    project.write_text(json.dumps(trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)))
    others = {
        "other": (replace(first, name="other"), "of the project other"),
        "later": (
            replace(first, settings={**first.settings, "outcome": {**first.settings["outcome"], "horizon_days": 30}}),
            "answers another question",
        ),
    }
    for name, (bundle, words) in others.items():
        save_bundle(bundle, tmp_path / name)
        done = cli("score", project, "--model", trained.bundle, "--shadow", name, "--as-of", DAY, "--out", "s.parquet")
        assert (done.code, words in done.err) == (5, True), done.err
    missing = cli("score", project, "--model", trained.bundle, "--shadow", "no", "--as-of", DAY, "--out", "s.parquet")
    assert missing.code == 5
    assert not list(tmp_path.glob("s.*"))
    with pytest.raises(ModelError):
        score(trained.project, first, DAY, tmp_path / "s.parquet", shadow=others["other"][0])


def test_the_verb_prints_who_would_move(trained: TrainedWorld, tmp_path: Path, cli: Run) -> None:
    project = tmp_path / "shop.yaml"
    project.write_text(json.dumps(trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)))
    save_bundle(shifted(trained.trained.bundle), tmp_path / "next")
    run = ("score", project, "--model", trained.bundle, "--shadow", "next", "--as-of", DAY, "--out", "s.csv")
    told = cli(*run, "--json")
    assert told.code == 0, told.err
    found = json.loads(told.out)["shadow"]
    done = cli(*run)
    assert f"{found['up'] + found['down']} of {found['customers']} customers would change tier" in done.out
    assert all(str(path) in done.out for path in shadow_paths(Path("s.csv")))
    assert {path.name for path in tmp_path.glob("s.*")} == {
        "s.csv", "s.shadow.csv", "s.shadow_changes.csv", "s.shadow.json",
    }  # fmt: skip


def test_a_run_killed_between_two_files_is_finished_by_the_next(
    trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, out = trained.trained.bundle, tmp_path / "s.parquet"
    score(trained.project, first, "2023-11-01", out, shadow=first)
    old = out.read_bytes()
    from tiermodel import output  # noqa: PLC0415

    moved = output._put

    def killed(path: Path, temporary: Path | None) -> None:
        if path.name == "s.shadow.parquet":
            raise KeyboardInterrupt
        moved(path, temporary)

    monkeypatch.setattr(output, "_put", killed)
    monkeypatch.setattr(output, "settle", lambda _: None)
    monkeypatch.setattr(output.Staged, "clean_up", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        score(trained.project, first, DAY, out, shadow=shifted(first))
    monkeypatch.undo()
    assert out.read_bytes() != old
    journal = tmp_path / ".s.parquet.journal"
    assert journal.exists()
    settle_beside(out)
    assert not journal.exists()
    score(trained.project, shifted(first), DAY, tmp_path / "second.parquet")
    assert (tmp_path / "s.shadow.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert not list(tmp_path.glob(".*.tmp"))
