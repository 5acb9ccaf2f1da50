"""The policy in the score table, and the load that `show policy` prints."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from commands import Run
from tiermodel.config.project import Project, project_digest
from tiermodel.errors import ProjectError
from tiermodel.policy.service_policy import load_policy
from tiermodel.predict import score
from worlds import TrainedWorld

DAY = "2023-12-31"


def with_policy(project: Project, policy: str, **changes: object) -> Project:
    return project.model_copy(update={"policy": policy, **changes})


@pytest.mark.parametrize("language", ["zh", "en"])
def test_the_service_is_in_the_projects_language_and_its_columns_come_last(
    trained: TrainedWorld, tmp_path: Path, language: str
) -> None:
    plain, served = tmp_path / "plain.parquet", tmp_path / "served.parquet"
    score(trained.project, trained.bundle, DAY, plain)
    score(with_policy(trained.project, "retail", language=language), trained.bundle, DAY, served)
    before, after = pd.read_parquet(plain), pd.read_parquet(served)
    assert list(after.columns) == [*before.columns, "policy_id", "policy_name"]
    pd.testing.assert_frame_equal(before.drop(columns="policy"), after[before.columns].drop(columns="policy"))
    levels = load_policy("retail").levels
    told = {code: (level.id, level.name(language, code), level.text(language, code)) for code, level in levels.items()}
    rows = after[["tier_code", "policy_id", "policy_name", "policy"]].itertuples(index=False)
    assert all(told[str(row[0])] == tuple(row[1:]) for row in rows)
    assert after["tier_code"].nunique() > 2


def test_a_policy_that_lacks_a_level_or_is_not_there_ends_scoring_before_anything_is_written(
    trained: TrainedWorld, tmp_path: Path
) -> None:
    out = tmp_path / "scores.parquet"
    with pytest.raises(ProjectError, match="bank has no service for the levels small, regular, secondary, major"):
        score(with_policy(trained.project, "bank"), trained.bundle, DAY, out)
    with pytest.raises(ProjectError, match=r"'service\.yaml' is neither a policy that ships"):
        score(with_policy(trained.project, "service.yaml"), trained.bundle, DAY, out)
    assert not out.exists()


def test_a_policy_changes_no_digest(trained: TrainedWorld) -> None:
    assert project_digest(with_policy(trained.project, "retail")) == project_digest(trained.project)


def write_project(folder: Path, trained: TrainedWorld, policy: dict[str, object] | str | None) -> None:
    if isinstance(policy, dict):
        (folder / "service.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    settings["policy"] = "service.yaml" if isinstance(policy, dict) else policy
    settings = {key: value for key, value in settings.items() if value is not None}
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def test_show_policy_tells_where_managers_do_not_suffice_and_what_would_make_it_fit(
    trained: TrainedWorld, tmp_path: Path, cli: Run
) -> None:
    policy = {
        "version": 1,
        "name": "tight",
        "levels": {
            "small": {"name_zh": "自助", "name_en": "self-service"},
            "regular": {"name_zh": "标准", "name_en": "standard", "cost_per_year": 10},
            "secondary": {"name_zh": "经理", "name_en": "managed", "manager": "own"},
            "major": {"name_zh": "专属", "name_en": "dedicated", "manager": "own", "effort": 2},
        },
        "teams": {"own": {"managers": 1, "customers_per_manager": 5}},
    }
    write_project(tmp_path, trained, policy)
    scores = tmp_path / "scores.csv"
    tiers = ["small"] * 9 + ["regular"] * 4 + ["secondary"] * 5 + ["major"] * 2
    pd.DataFrame({"customer_id": range(len(tiers)), "tier_code": tiers}).to_csv(scores, index=False)
    ran = cli("show", "policy", "project.yaml", "scores.csv")
    assert ran.code == 0, ran.err
    assert "Team own lacks 4.0 places: add 1 managers, or serve 4 customers of managed as standard" in ran.out
    told = json.loads(cli("show", "policy", "project.yaml", "scores.csv", "--json").out)
    (team,) = told["load"]
    assert (team["taken"], team["places"], team["fits"], team["more_managers"]) == (9, 5, False, 1)
    assert team["move"] == {"customers": 4, "level": "secondary", "to": "regular"}
    assert [level["customers"] for level in told["levels"]] == [9, 4, 5, 2]
    ran = cli("show", "policy", "project.yaml", "scores.csv", "--language", "zh")
    assert "团队 own 缺 4.0 个名额：增加 1 位经理，或将 4 位经理改按标准服务" in ran.out
    assert "own" in cli("show", "policy", "project.yaml").out
    pd.DataFrame({"customer_id": [1], "tier_code": ["gold"]}).to_csv(scores, index=False)
    ran = cli("show", "policy", "project.yaml", "scores.csv")
    assert (ran.code, "tier_code gold is no level of policy tight" in ran.err) == (3, True)


def test_show_policy_needs_one_that_serves_every_level(trained: TrainedWorld, tmp_path: Path, cli: Run) -> None:
    write_project(tmp_path, trained, None)
    ran = cli("show", "policy", "project.yaml")
    assert (ran.code, "add one, such as policy: retail" in ran.err) == (2, True)
    write_project(tmp_path, trained, "bank")
    ran = cli("show", "policy", "project.yaml")
    assert (ran.code, "bank has no service for the levels small" in ran.err) == (2, True)


def test_the_line_runs_from_a_project_to_an_allocation(trained: TrainedWorld, tmp_path: Path, cli: Run) -> None:
    write_project(tmp_path, trained, "retail")
    ran = cli("score", "project.yaml", "--model", trained.bundle, "--as-of", DAY, "--out", "scores.parquet")
    assert ran.code == 0, ran.err
    words = ("--policy", "retail", "--budget", "300", "--out", "actions.parquet", "--project", "project.yaml")
    told = json.loads(cli("allocate", "scores.parquet", *words, "--json").out)
    written, scores = pd.read_parquet(tmp_path / "actions.parquet"), pd.read_parquet(tmp_path / "scores.parquet")
    assert told["period_days"] == trained.project.outcome.horizon_days
    alone = json.loads(cli("allocate", "scores.parquet", *words[:-2], "--json").out)
    assert (alone["period_days"], alone["period_assumed"]) == (told["period_days"], False)  # the scores tell it
    assert set(alone["tier_names"]) == set(pd.read_parquet(tmp_path / "scores.parquet")["tier_code"])
    assert told["exact"]
    assert (written["gain"] - written["cost"]).sum() == pytest.approx(told["objective"])
    assert written["cost"].sum() <= 300
    assert set(written["customer_id"][written["action"] == "letter"]) == set(
        scores["customer_id"][scores["tier_code"] == "small"]
    )
    ran = cli("show", "policy", "project.yaml", "scores.parquet")
    assert ran.code == 0, ran.err
