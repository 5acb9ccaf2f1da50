"""Movement: the matrix adds up and hides small cells, forecasts are played against the past, the CLI shows them."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import Run
from tiermodel.errors import DataError, ProjectError
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.movement import SMALL, Movement, forecast_sizes, ledger_forecast, ledger_movement, movement
from tiermodel.predict import score
from worlds import TrainedWorld

CODES = ["low", "middle", "high"]
DAYS = tuple(date(2023, 6, 1) + timedelta(60 * k) for k in range(4))
tiers = st.dictionaries(st.integers(0, 60).map(str), st.sampled_from(CODES), max_size=60)


def frame(tier: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"customer_id": list(tier), "tier_code": list(tier.values())}, dtype=object)


@given(before=tiers, after=tiers)
def test_the_counts_add_up_to_everybody_and_to_a_diary(before: dict[str, str], after: dict[str, str]) -> None:
    worth = pd.Series(2.0, index=[str(n) for n in range(61)])
    found = movement(frame(before), frame(after), CODES, worth)
    assert found.counts.sum() == len({*before, *after})
    for n, code in enumerate(CODES):
        assert found.counts[n].sum() == sum(tier == code for tier in before.values())
        assert found.counts[:, n].sum() == sum(tier == code for tier in after.values())
        for m, other in enumerate(CODES):
            assert found.counts[n, m] == sum(before.get(c) == code and after.get(c) == other for c in before)
    assert found.counts[-1, -1] == 0
    assert found.value is not None
    np.testing.assert_allclose(found.value, 2 * found.counts)
    summary = found.summary()
    assert sum(summary.values()) == len({*before, *after})
    assert summary["new"] == len({*after} - {*before})
    assert summary["gone"] == len({*before} - {*after})
    assert movement(frame(before), frame(before), CODES).summary()["same"] == len(before)


@given(st.lists(st.integers(0, 30), min_size=16, max_size=16))
def test_no_small_cell_is_told_and_none_can_be_worked_out(numbers: list[int]) -> None:
    counts = np.array(numbers).reshape(4, 4)
    counts[-1, -1] = 0
    found = Movement(CODES, counts)
    for cell in found.cells():
        assert cell["customers"] is None or cell["customers"] >= SMALL
        assert (cell["share"] is None) == (cell["customers"] is None)
    for line, hidden in ((counts, found.hidden), (counts.T, found.hidden.T)):
        for row, mask in zip(line, hidden, strict=True):
            assert mask.sum() != 1 or (row > 0).sum() == 1  # then nobody else is in the line
    totals = {row["from \\ to"]: row["all"] for row in found.table("en")}
    for name, row, mask in zip([*CODES, "new"], counts, found.hidden, strict=True):
        assert (totals[name] in {"…", f"< {SMALL}"}) == (mask.sum() == 1 or 0 < row.sum() < SMALL)
    told = [cell["share"] for cell in found.cells() if cell["share"] is not None]
    assert all(0 < share <= 1 for share in told)
    words = {text for row in found.table("en") for text in row.values()}
    assert not words & {str(n) for n in range(1, SMALL)}


def test_twice_or_unknown_is_refused() -> None:
    twice = pd.concat([frame({"a": "low"})] * 2)
    with pytest.raises(DataError, match="more than once before"):
        movement(twice, frame({}), CODES)
    with pytest.raises(DataError, match="'vip' after is none of low, middle, high"):
        movement(frame({}), frame({"a": "vip"}), CODES)


def chain(steps: int, shares: np.ndarray, new: list[int], start: list[int]) -> list[Movement]:
    """Move sizes on by fixed shares, as whole customers."""
    sizes, found = np.array(start), []
    for _ in range(steps):
        counts = np.zeros((4, 4), dtype=np.int64)
        counts[:3] = np.round(sizes[:, None] * shares)
        counts[-1, :3] = new
        found.append(Movement(CODES, counts))
        sizes = counts[:, :3].sum(axis=0)
        assert (sizes > 0).all()
    return found


def test_a_chain_is_forecast_better_than_as_many_as_now_and_a_still_world_is_not() -> None:
    shares = np.array([[0.7, 0.2, 0.0, 0.1], [0.1, 0.7, 0.2, 0.0], [0.0, 0.1, 0.9, 0.0]])
    steps = chain(5, shares, [1000, 0, 0], [10_000, 1000, 100])
    days = [date(2024, 1, 1) + timedelta(30 * n) for n in range(6)]
    found = forecast_sizes(days, steps)
    assert [row["day"] for row in found.backtest] == days[2:]
    assert all(row["error"] < 0.01 < row["error_as_now"] for row in found.backtest)
    truth = np.array(list(found.now.values())) @ shares[:, :3] + [1000, 0, 0]
    np.testing.assert_allclose(list(found.forecast.values()), truth, rtol=2e-3)
    assert found.verdict("en").endswith("better on 4: the forecast is better")
    still = forecast_sizes(days, chain(5, np.eye(3, 4), [0, 0, 0], [100, 50, 10]))
    assert still.forecast == still.now == {"low": 100, "middle": 50, "high": 10}
    assert still.verdict("en").endswith('no better than "as many as now"')
    assert still.verdict("zh").endswith("预测并不优于“维持现状”")
    assert "too few" in forecast_sizes(days[:2], steps[:1]).verdict("en")


def test_a_forecast_does_not_see_the_step_that_it_is_judged_on() -> None:
    shares = np.array([[0.7, 0.2, 0.0, 0.1], [0.1, 0.7, 0.2, 0.0], [0.0, 0.1, 0.9, 0.0]])
    steps = chain(4, shares, [100, 0, 0], [1000, 1000, 100])
    days = [date(2024, 1, 1) + timedelta(30 * n) for n in range(5)]
    other = [*steps[:-1], Movement(CODES, steps[-1].counts[::-1].copy())]
    assert forecast_sizes(days, steps).backtest[:-1] == forecast_sizes(days, other).backtest[:-1]


@pytest.fixture(scope="module")
def book(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Score date after date with one ledger; keep the first and the last table."""
    folder = tmp_path_factory.mktemp("moved")
    for n, day in enumerate(DAYS):
        score(trained.project, trained.bundle, day, folder / f"{n}.parquet", ledger=folder / "book")
    return folder


def test_a_ledger_tells_what_its_score_tables_tell(book: Path) -> None:
    one, other = (pd.read_parquet(book / f"{n}.parquet") for n in (0, 3))
    found = ledger_movement(book / "book", DAYS[0], DAYS[3] + timedelta(5), [book / "0.parquet", book / "3.parquet"])
    plain = movement(one, other, found.codes)
    assert found.counts.tolist() == plain.counts.tolist()
    assert found.summary()["new"] == len(other) - len(one)
    assert found.value is not None
    assert found.value.sum() == pytest.approx(other["expected_value"].sum())
    assert ledger_movement(book / "book", DAYS[0], DAYS[0] + timedelta(1)).summary()["same"] == len(one)
    known = ledger_forecast(book / "book")
    assert known.day == DAYS[3]
    assert known.now == other["tier_code"].astype(str).value_counts().reindex(found.codes).astype(float).to_dict()
    assert len(known.backtest) == 2


def test_bad_days_and_tables_are_refused(book: Path, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="the second day must be after the first"):
        ledger_movement(book / "book", DAYS[1], DAYS[1])
    with pytest.raises(ProjectError, match="nobody has a tier on 2023-05-31"):
        ledger_movement(book / "book", DAYS[0] - timedelta(1), DAYS[1])
    (tmp_path / "s.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"s\.csv is no score table"):
        ledger_movement(book / "book", DAYS[0], DAYS[1], [tmp_path / "s.csv"])


def test_an_expired_override_leaves_the_number_of_the_tier_too(tmp_path: Path, trained: TrainedWorld) -> None:
    score(trained.project, trained.bundle, DAYS[0], tmp_path / "s.parquet", ledger=tmp_path / "b")
    ledger = Ledger(tmp_path / "b")
    first = pd.read_parquet(tmp_path / "s.parquet")
    who = str(first.loc[first["tier"] == 0, "customer_id"].iloc[0])
    day = DAYS[0] + timedelta(1)
    ledger.override(who, ledger.codes[-1], day, until=day + timedelta(5), operator="li", reason="a test")
    for after, tier in ((0, len(ledger.codes) - 1), (5, 0)):
        held = ledger.as_of(day + timedelta(after)).set_index("customer_id").loc[who]
        assert (held["tier"], held["tier_code"]) == (tier, ledger.codes[tier])


def test_the_command_line_shows_movement_and_forecast(cli: Run, book: Path) -> None:
    days = ("--from", DAYS[0], "--to", DAYS[3])
    ran = cli("ledger", "movement", book / "book", *days, "--json")
    cells = json.loads(ran.out)["cells"]
    assert {"from", "to", "customers", "share", "value"} == set(cells[0])
    assert sum(cell["customers"] or 0 for cell in cells) > 100
    table = cli("ledger", "movement", book / "book", *days, "--scores", book / "3.parquet", "--language", "zh")
    assert table.code == 0
    assert "首次定级" in table.out
    assert "升级" in table.out
    assert cli("ledger", "movement", book / "book", "--from", DAYS[1], "--to", DAYS[0]).code == 2
    forecast = cli("ledger", "forecast", book / "book")
    assert "past gradings: mean error" in forecast.out
    assert json.loads(cli("ledger", "forecast", book / "book", "--json").out)["backtest"][0]["day"] == str(DAYS[2])
