"""Capacity at scoring: held at every date with a ledger, whatever the batches; what a row then says."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tiermodel.bundle.bundle import Bundle, save_bundle
from tiermodel.cli.main import run
from tiermodel.config.tiers import Downgrade, Stability
from tiermodel.engines import dispatch
from tiermodel.engines import duckdb as engine
from tiermodel.features.panel import build_panel
from tiermodel.ledger.ledger import Ledger
from tiermodel.predict import predict, score
from tiermodel.predict.batch import Scored
from tiermodel.tiers.fitted_scheme import FittedScheme
from tiermodel.tiers.kinds.cut_points import band_edges
from worlds import TrainedWorld, with_capacity

DAYS = tuple(date(2023, 6, 1) + timedelta(60 * k) for k in range(3))
PLACES = {"secondary": 30, "major": 8}
STABLE = Stability(down=Downgrade(band=0.05, confirmations=2))
Gradings = dict[date, tuple[pd.DataFrame, Scored]]


@pytest.fixture(scope="module")
def plain(trained: TrainedWorld) -> Bundle:
    """Give the pyramid a stability rule and no capacity."""
    bundle = with_capacity(trained.trained.bundle, {}, stability=STABLE)
    values = build_panel(trained.project, DAYS[:1])[bundle.scheme.scheme.feature].to_numpy()  # type: ignore[attr-defined]
    bands = band_edges(bundle.scheme.scheme, bundle.scheme.state["cuts"], values)
    return replace(bundle, scheme=FittedScheme(bundle.scheme.scheme, bundle.scheme.state | bands))


@pytest.fixture(scope="module")
def capped(plain: Bundle) -> Bundle:
    return with_capacity(plain, PLACES, stability=STABLE)


def graded(trained: TrainedWorld, bundle: Bundle, folder: Path, days: tuple[date, ...] = DAYS) -> Gradings:
    found = {}
    for day in days:
        done = score(trained.project, bundle, day, folder / f"{day}.parquet", ledger=folder / "book")
        found[day] = pd.read_parquet(folder / f"{day}.parquet").set_index("customer_id"), done
    return found


@pytest.fixture(scope="module")
def before(trained: TrainedWorld, plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Gradings:
    return graded(trained, plain, tmp_path_factory.mktemp("before"))


@pytest.fixture(scope="module")
def after(trained: TrainedWorld, capped: Bundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Gradings, Path]:
    folder = tmp_path_factory.mktemp("after")
    return graded(trained, capped, folder), folder


def in_line(waiting: dict[str, float], there: set[str], everybody: list[float]) -> list[str]:
    """Order customers in plain Python: whoever is ahead by more than the band passes those who are there."""
    steps = round(0.05 * len(everybody))
    ahead = {who: sum(other > mine for other in everybody) for who, mine in waiting.items()}
    return sorted(waiting, key=lambda who: (ahead[who] - steps * (who in there), who not in there))


def test_no_level_exceeds_its_places_at_any_date_and_the_right_ones_are_in(
    trained: TrainedWorld, before: Gradings, after: tuple[Gradings, Path]
) -> None:
    feature = "net_amount_365d"
    held: dict[str, str] = {}
    for day in DAYS:
        (table, done), (wanted, _) = after[0][day], before[day]
        sizes = table["tier_code"].value_counts()
        assert sizes["major"] == 8
        assert sizes["secondary"] == 30
        features = build_panel(trained.project, [day]).set_index("customer_id")[feature]
        known = features.dropna().tolist()
        expected = {str(who): str(code) for who, code in wanted["tier_code"].items()}
        for code, below in (("major", "secondary"), ("secondary", "regular")):
            waiting = {who: float(features[who]) for who, tier in expected.items() if tier == code}
            above = {"major", code}
            line = in_line(waiting, {who for who, tier in held.items() if tier in above}, known)
            expected.update(dict.fromkeys(line[PLACES[code] :], below))
            level = next(one for one in done.capacity if one["tier"] == code)
            counts = {"places": PLACES[code], "asked": len(line), "fixed": 0, "no_place": len(line) - PLACES[code]}
            assert level == {"tier": code, **counts, "cut": waiting[line[PLACES[code] - 1]]}
        assert table["tier_code"].astype(str).to_dict() == expected
        held = expected
        assert done.tiers == {code: int(sizes.get(code, 0)) for code in done.tiers}


def test_a_row_without_a_place_says_so_and_hangs_together(
    capped: Bundle, before: Gradings, after: tuple[Gradings, Path]
) -> None:
    codes = capped.scheme.scheme.codes
    for day in DAYS:
        table, wanted = after[0][day][0], before[day][0]
        out = table["tier"] != wanted["tier"]
        assert out.sum() > 20
        full = wanted["tier_code"][out].astype(str)
        said = [f"capacity: all {PLACES[code]} places in {code} are taken" for code in full]
        assert table["reason_1"][out].tolist() == said
        assert not table["reason_1"][~out].str.startswith("capacity").any()
        for late, early in (("reason_2", "reason_1"), ("reason_3", "reason_2")):
            assert table[late][out].tolist() == wanted[early][out].tolist()
        assert [codes[t] for t in table["tier"]] == table["tier_code"].tolist()
        policy = {level.code: level.policy for level in capped.scheme.scheme.levels}
        assert table["policy"].tolist() == [policy[code] for code in table["tier_code"]]
        p = table[[f"p_{c}" for c in codes]].to_numpy()
        rises = capped.upgrade * (p * (np.arange(4) > table["tier"].to_numpy()[:, None])).sum(axis=1)
        np.testing.assert_allclose(table["upgrade_potential"], np.where(table["tier"] == 3, 0, rises), atol=1e-4)
        same = table.columns.drop([
            "tier", "tier_code", "tier_name", "previous_tier", "movement", "upgrade_potential", "policy",
            "reason_1", "reason_2", "reason_3", "scheme_version", "model_version",
        ])  # fmt: skip
        pd.testing.assert_frame_equal(table[same], wanted[same], check_exact=True)
    for earlier, later in itertools.pairwise(DAYS):
        first, then = after[0][earlier][0]["tier"].astype(float), after[0][later][0]
        assert then["previous_tier"].dropna().to_dict() == first.to_dict()
        step = np.sign(then["tier"] - then["previous_tier"]).tolist()
        assert then["movement"].tolist() == [{-1.0: "down", 0.0: "same", 1.0: "up"}.get(s, "new") for s in step]


def test_the_ledger_has_the_tier_in_force_the_tier_of_the_rule_priority_and_cut(
    before: Gradings, after: tuple[Gradings, Path]
) -> None:
    tables, folder = after
    book = Ledger(folder / "book")
    for day in DAYS:
        (table, done), (wanted, _) = tables[day], before[day]
        rows = book.as_of(day).set_index("customer_id")
        assert rows["tier_code"].to_dict() == table["tier_code"].astype(str).to_dict()
        assert rows["stable_code"].to_dict() == wanted["tier_code"].astype(str).to_dict()
        written = pd.read_parquet(folder / "book" / f"{day}.parquet").set_index("customer_id")
        ranked = written["stable_code"].isin(PLACES)
        cuts = {level["tier"]: level["cut"] for level in done.capacity}
        assert written["priority"].notna().tolist() == ranked.tolist()
        assert written["cut"][ranked].tolist() == [cuts[code] for code in written["stable_code"][ranked]]
        assert written["cut"][~ranked].isna().all()
        moved = written["event"].isin(["up", "down", "stay"]) & (written["tier_code"] != written["previous_code"])
        assert set(written["event"][moved]) <= {"up", "down"}
        assert set(written["event"][~moved & written["previous_code"].notna()]) <= {"stay"}


def test_who_is_set_by_hand_has_a_place_and_more_than_places_are_told(
    trained: TrainedWorld, capped: Bundle, tmp_path: Path
) -> None:
    table = graded(trained, capped, tmp_path, DAYS[:1])[DAYS[0]][0]
    chosen = [str(who) for who in table.index[table["tier_code"] == "small"][:9]]
    for who in chosen:
        start = DAYS[0] + timedelta(1)
        Ledger(tmp_path / "book").override(who, "major", start, until=None, operator="li", reason="a contract")
    table, done = graded(trained, capped, tmp_path, DAYS[1:2])[DAYS[1]]
    assert sorted(table.index[table["tier_code"] == "major"]) == sorted(chosen)
    assert (table.loc[chosen, "reason_1"] == "set by hand").all()
    major = done.capacity[0]
    assert {name: major[name] for name in ("tier", "places", "fixed", "cut")} == {
        "tier": "major", "places": 8, "fixed": 9, "cut": None,
    }  # fmt: skip
    assert major["no_place"] == major["asked"] - 9


@pytest.mark.parametrize("size", [101, 3_000])
def test_the_batches_of_the_engine_change_no_tier(
    trained: TrainedWorld, capped: Bundle, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(trained.project, capped, DAYS[0], tmp_path / "whole.parquet")
    original: Callable[..., Iterator[pa.RecordBatch]] = engine.sorted_rows

    def smaller(*given: Any) -> Iterator[pa.RecordBatch]:
        for batch in original(*given):
            yield from (batch.slice(i, size) for i in range(0, batch.num_rows, size))

    monkeypatch.setattr(dispatch, "sorted_rows", smaller)
    score(trained.project, capped, DAYS[0], tmp_path / "parts.parquet")
    whole, parts = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("whole", "parts"))
    assert whole["tier_code"].value_counts()["major"] == 8
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)


def test_between_two_gradings_nobody_loses_a_place(trained: TrainedWorld, capped: Bundle, tmp_path: Path) -> None:
    monthly = trained.project.tiers.model_copy(update={"grade": "monthly"})
    nightly = trained._replace(project=trained.project.model_copy(update={"tiers": monthly}))
    first = graded(nightly, capped, tmp_path, DAYS[:1])[DAYS[0]][0]
    files = sorted((tmp_path / "book").glob("*.parquet"))
    table, done = graded(nightly, capped, tmp_path, (DAYS[0] + timedelta(25),))[DAYS[0] + timedelta(25)]
    assert sorted((tmp_path / "book").glob("*.parquet")) == files
    assert table["tier_code"].astype(str)[first.index].to_dict() == first["tier_code"].astype(str).to_dict()
    assert set(table["movement"][first.index]) == {"same"}
    assert not table["reason_1"][first.index].str.startswith("capacity").any()
    assert [level["fixed"] for level in done.capacity] == [8, 30]


def test_a_frame_alone_is_graded_before_capacity(trained: TrainedWorld, plain: Bundle, capped: Bundle) -> None:
    snapshot = build_panel(trained.project, DAYS[:1])
    np.testing.assert_array_equal(predict(capped, snapshot)["tier"], predict(plain, snapshot)["tier"])


def test_a_ledger_from_before_there_were_priorities_still_opens(
    trained: TrainedWorld, plain: Bundle, capped: Bundle, tmp_path: Path
) -> None:
    graded(trained, plain, tmp_path, DAYS[:1])
    (file,) = (tmp_path / "book").glob("*.parquet")
    old = pq.read_table(file).drop_columns(["priority", "cut"])
    pq.write_table(old, file)
    assert len(Ledger(tmp_path / "book").as_of(DAYS[0])) == old.num_rows
    graded(trained, plain, tmp_path, DAYS[:1])  # the same grading again changes nothing
    table, _ = graded(trained, capped, tmp_path, DAYS[1:2])[DAYS[1]]
    assert table["tier_code"].value_counts()["major"] == 8
    rows = Ledger(tmp_path / "book").as_of(DAYS[1]).set_index("customer_id")
    assert rows["tier_code"].to_dict() == table["tier_code"].astype(str).to_dict()


def test_the_command_line_lists_who_found_no_place(trained: TrainedWorld, capped: Bundle, tmp_path: Path) -> None:
    settings = trained.project.model_dump(mode="json", exclude={"folder"}, exclude_none=True)
    (tmp_path / "shop.yaml").write_text(json.dumps(settings))
    save_bundle(capped, tmp_path / "bundle")
    asked = ["score", str(tmp_path / "shop.yaml"), "--model", str(tmp_path / "bundle"), "--as-of", str(DAYS[0])]
    asked += ["--out", str(tmp_path / "s.parquet")]
    shown = CliRunner().invoke(run, asked, catch_exceptions=False).stdout
    assert "no_place" in shown
    told = json.loads(CliRunner().invoke(run, [*asked, "--json"], catch_exceptions=False).stdout)
    assert [(level["tier"], level["places"]) for level in told["capacity"]] == [("major", 8), ("secondary", 30)]
    assert all(level["no_place"] > 0 for level in told["capacity"])
