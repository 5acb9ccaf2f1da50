"""Effects of a randomised trial: by action and tier with intervals, refused where groups cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from commands import Run
from tiermodel.errors import DataError
from tiermodel.policy.measured import read_effects
from tiermodel.policy.service_policy import Policy

POLICY = {
    "version": 1,
    "name": "p",
    "levels": {tier: {"name_zh": tier, "name_en": tier} for tier in ("small", "major")},
    "actions": {"call": {"cost": 3, "gain": 100}, "gift": {"cost": 1, "gain": 2}},
}


def trial(seed: int = 0, effect: float = 10.0, bias: float = 0.0, rows: int = 400) -> pd.DataFrame:
    """Draw a trial of calls, in which only the customers of `small` answer; `bias` is in who was treated."""
    draw = np.random.default_rng(seed)
    before = draw.lognormal(3, 0.5, rows)
    tier = draw.choice(["small", "major"], rows)
    treated = draw.random(rows) < 1 / (1 + np.exp(-bias * (before - before.mean()) / before.std()))
    outcome = before + draw.normal(0, 5, rows) + effect * treated * (tier == "small")
    columns = {"customer_id": np.arange(rows).astype(str), "action": "call", "tier_code": tier, "treated": treated}
    return pd.DataFrame({**columns, "outcome": outcome, "pre_amount": before})


def effects(folder: Path, frame: pd.DataFrame) -> Any:
    path = folder / "trial.parquet"
    frame.to_parquet(path, index=False)
    return read_effects(path, Policy.model_validate(POLICY))


def test_the_effect_of_each_tier_is_the_difference_of_means_with_welchs_interval(tmp_path: Path) -> None:
    frame = trial()
    found = effects(tmp_path, frame)
    assert set(found) == {("call", "small"), ("call", "major")}
    for (_, tier), effect in found.items():
        cell = frame[frame["tier_code"] == tier]
        one, other = (cell["outcome"][cell["treated"] == side] for side in (True, False))
        assert effect.gain == pytest.approx(one.mean() - other.mean())
        error = np.sqrt(one.var() / len(one) + other.var() / len(other))
        freedom = error**4 / (
            (one.var() / len(one)) ** 2 / (len(one) - 1) + (other.var() / len(other)) ** 2 / (len(other) - 1)
        )
        assert effect.high - effect.gain == pytest.approx(stats.t.ppf(0.975, freedom) * error)
        assert (effect.treated, effect.control) == (len(one), len(other))
    assert found["call", "small"].low > 5
    assert found["call", "major"].low < 0 < found["call", "major"].high


def test_a_random_draw_is_hardly_ever_refused_and_a_biased_one_is(tmp_path: Path) -> None:
    refused = 0
    for seed in range(20):
        try:
            effects(tmp_path, trial(seed))
        except DataError:
            refused += 1
    assert refused <= 1
    with pytest.raises(
        DataError, match=r"the groups of call in tier \w+ are not comparable: pre_amount was .* not random"
    ):
        effects(tmp_path, trial(bias=1.0))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda f: f.drop(columns="pre_amount"), "without a column of the time before, such as pre_amount"),
        (lambda f: f.drop(columns="tier_code"), "there is no column tier_code"),
        (lambda f: f.assign(action="fax"), "action 'fax' is not in policy p, which has call, gift"),
        (lambda f: f.assign(tier_code="gold"), "tier_code 'gold' is not in policy p"),
        (lambda f: f.assign(outcome=f["outcome"].where(f.index > 0)), "outcome is empty in 1 rows"),
        (lambda f: f.assign(treated=f["treated"].map({True: "yes", False: "?"})), "treated is missing or unreadable"),
        (lambda f: pd.concat([f, f.head(1)]), "has 2 rows; the table holds one for each customer_id and action"),
        (lambda f: f.head(50), "no action has 30 treated customers and 30 others of one tier"),
    ],
)  # fmt: skip
def test_a_trial_that_cannot_be_used_is_refused(tmp_path: Path, change: Any, told: str) -> None:
    with pytest.raises(DataError) as error:
        effects(tmp_path, change(trial()))
    assert told in str(error.value)


def test_measured_gains_take_the_place_of_assumed_ones_and_are_called_so(tmp_path: Path, cli: Run) -> None:
    trial().to_csv(tmp_path / "trial.csv", index=False)
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(POLICY), encoding="utf-8")
    tiers = ["small", "major"] * 5
    pd.DataFrame({"customer_id": range(10), "tier_code": tiers}).to_parquet(tmp_path / "scores.parquet")
    words = ("allocate", "scores.parquet", "--policy", "policy.yaml", "--budget", "99", "--out", "o.csv")
    assumed, measured = (json.loads(cli(*words, *more, "--json").out) for more in ((), ("--measured", "trial.csv")))
    assert assumed["effects"] == {"kind": "assumed"}
    assert assumed["by_action"][0]["customers"] == 10
    assert measured["effects"]["kind"] == "measured"
    assert {(row["action"], row["tier_code"]) for row in measured["effects"]["measured"]} == {
        ("call", "small"), ("call", "major"),
    }  # fmt: skip
    written = pd.read_csv(tmp_path / "o.csv")
    assert set(written["tier_code"][written["action"] == "call"]) == {"small"}  # a call brings nothing in major
    small = next(row for row in measured["effects"]["measured"] if row["tier_code"] == "small")
    assert written["gain"][written["action"] == "call"].unique() == pytest.approx(small["gain"])
    ran = cli(*words, "--measured", "trial.csv")
    assert "Effects measured in a randomised trial" in ran.out
    assert "assumptions of the policy file" not in ran.out
    trial(bias=1.0).to_csv(tmp_path / "trial.csv", index=False)
    (tmp_path / "o.csv").unlink()
    ran = cli(*words, "--measured", "trial.csv")
    assert ran.code == 3
    assert not (tmp_path / "o.csv").exists()
