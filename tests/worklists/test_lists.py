"""Work lists: who is on which, in which order and why, by an account of its own; bad input leaves nothing behind."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import openpyxl
import pandas as pd
import pytest

from commands import Run
from conftest import Once
from failpoints import failing
from tiermodel.bundle.bundle import Bundle, load_bundle, save_bundle
from tiermodel.errors import DataError, ModelError, OutputError, ProjectError, TierModelError
from tiermodel.evaluation.attribution import churn_contributions
from tiermodel.features.catalogue import CATALOGUE
from tiermodel.features.export import write_features
from tiermodel.ledger.ledger import Ledger
from tiermodel.models.btyd.forecast import BTYD_INPUTS
from tiermodel.models.calibration.logit import log_odds
from tiermodel.predict import score, upgrades
from tiermodel.words import words
from tiermodel.worklists.files import COLUMNS
from tiermodel.worklists.lists import lists
from tiermodel.worklists.membership import LISTS
from tiermodel.worklists.risk_reasons import topic_of
from worlds import LAST_DAY, TrainedWorld

DAY = LAST_DAY - timedelta(60)
CAMPAIGN = {"contact": 1.0, "incentive": 2.0, "accepted_share": 0.3}
IDS = {0: "007", 1: "=1+1", 2: "-5", 3: "1e5", 4: "客户甲"}


class Made(NamedTuple):
    """Give what a run needs: the folder of the model, scores, features, and a ledger of the day."""

    model: Path
    scores: Path
    features: Path
    ledger: Path
    table: pd.DataFrame
    bundle: Bundle


def _made(trained: TrainedWorld, folder: Path, churn: dict[str, Any]) -> Path:
    settings = {**trained.trained.bundle.settings, "churn": churn}
    bundle = replace(trained.trained.bundle, settings=settings)
    save_bundle(bundle, folder / "model")
    score(trained.project, bundle, DAY, folder / "scores.parquet", ledger=folder / "ledger")
    write_features(trained.project, str(DAY), folder / "features.parquet")
    return folder


def _read(folder: Path) -> Made:
    scores = folder / "scores.parquet"
    parts = folder / "model", scores, folder / "features.parquet", folder / "ledger"
    return Made(*parts, pd.read_parquet(scores), load_bundle(folder / "model"))


@pytest.fixture(scope="module")
def plain(trained: TrainedWorld, once: Once) -> Made:
    """Score the small world without costs; tests must not change the files."""
    return _read(once("lists_plain", lambda folder: _made(trained, folder, {})))


@pytest.fixture(scope="module")
def costed(trained: TrainedWorld, once: Once) -> Made:
    """Score the small world with the costs of a campaign."""
    return _read(once("lists_costed", lambda folder: _made(trained, folder, {"campaign": CAMPAIGN})))


def read(folder: Path) -> dict[str, pd.DataFrame]:
    return {
        path.stem: pd.read_csv(path, dtype={"customer_id": str}, keep_default_na=False, na_values=[""])
        for path in sorted(folder.glob("*.csv"))
    }


def make(made: Made, out: Path, **given: Any) -> dict[str, pd.DataFrame]:
    lists(made.scores, made.model, made.features, out, **given)
    return read(out)


# who is on which list


def expected(table: pd.DataFrame, worth: pd.Series[float], sides: set[str]) -> pd.Series[str]:
    """Say who belongs where, in plain steps: the worth of lost customers and who is near a line are given."""
    say, found = words("en" if "churned" in set(table["lifecycle_stage"]) else "zh"), {}
    mean = table.groupby("tier")["clv"].mean()
    for row in table.to_dict("records"):
        lost = row["lifecycle_stage"] == say["lifecycle_churned"]
        costs = not np.isnan(row["contact_threshold"])
        warned = row["churn_risk"] >= row["contact_threshold"] if costs else row["churn_risk"] >= 0.2
        higher = [mean[level] for level in sorted(mean.index) if level > row["tier"] and not np.isnan(mean[level])]
        doubt = ".." in row["tier_set"] or row["model_tier"] != row["tier"] or row["customer_id"] in sides
        if lost and worth.get(row["customer_id"], 0.0) > 0:
            found[row["customer_id"]] = "win_back"
        elif not lost and row["clv"] > 0 and warned:
            found[row["customer_id"]] = "keep"
        elif not lost and row["upgrade_potential"] > 0 and higher and higher[0] > row["clv"]:
            found[row["customer_id"]] = "develop"
        elif doubt and not np.isnan(row["clv"]):
            found[row["customer_id"]] = "review"
    return pd.Series(found)


@pytest.mark.parametrize("name", ["plain", "costed"])
def test_every_customer_is_on_the_first_list_that_applies(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    made: Made = request.getfixturevalue(name)
    found = make(made, tmp_path / "lists")
    on = pd.concat([rows.assign(list=which) for which, rows in found.items()])
    assert on["customer_id"].is_unique
    snapshot = pd.read_parquet(made.features)
    low, high = made.bundle.scheme.sure_levels(snapshot)
    sides = set(snapshot["customer_id"][low != high])
    worth = pd.Series(1.0, index=made.table["customer_id"])
    wanted = expected(made.table, worth, sides)
    assert on.set_index("customer_id")["list"].sort_index().to_dict() == wanted.sort_index().to_dict()
    assert len(set(wanted)) >= 3
    for which, rows in found.items():
        assert list(rows.columns) == list(COLUMNS[which])
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1))
        assert rows.iloc[:, 4].is_monotonic_decreasing


def test_amounts_are_those_of_the_scores(costed: Made, tmp_path: Path) -> None:
    found, table = make(costed, tmp_path / "lists"), costed.table.set_index("customer_id")
    keep = found["keep"].set_index("customer_id")
    of_keep = table.loc[keep.index]
    assert keep["value_at_risk"].to_numpy() == pytest.approx(
        (of_keep["churn_risk"] * of_keep["clv"]).to_numpy(), abs=1e-4
    )
    assert (keep["churn_risk"] >= keep["contact_threshold"]).all()
    back = found["win_back"].set_index("customer_id")
    assert back["chance_to_return"].to_numpy() == pytest.approx(1 - table.loc[back.index, "churn_risk"].to_numpy())
    assert back["expected_worth"].to_numpy() == pytest.approx(
        (back["chance_to_return"] * back["worth_if_back"]).to_numpy(), abs=1e-4
    )
    develop = found["develop"].set_index("customer_id")
    means = table.groupby("tier")["clv"].mean()
    above = [means[means.index > tier].iloc[0] for tier in table.loc[develop.index, "tier"]]
    gain = np.array(above) - develop["clv"].to_numpy()
    assert develop["gain_if_up"].to_numpy() == pytest.approx(gain, abs=1e-3)
    assert develop["expected_gain"].to_numpy() == pytest.approx(
        gain * develop["upgrade_potential"].to_numpy(), abs=1e-3
    )


def test_the_risk_band_follows_the_costs(plain: Made, costed: Made) -> None:
    for made in (plain, costed):
        table = made.table[made.table["churn_risk"].notna()]
        edge = np.where(table["contact_threshold"].notna(), table["contact_threshold"], 0.5)
        say = words(made.bundle.language)
        high = table["risk_band"].astype(str) == say["risk_band_high"]
        assert (high.to_numpy() == (table["churn_risk"].to_numpy() >= edge)).all()
    assert (costed.table["risk_band"] != plain.table["risk_band"]).any()
    warned = costed.table["churn_warning"] == words(costed.bundle.language)["churn_warning_yes"]
    assert (warned == (costed.table["risk_band"] == say["risk_band_high"])).all()


def test_who_is_worth_most_comes_first_where_a_list_is_cut(plain: Made, tmp_path: Path) -> None:
    whole = make(plain, tmp_path / "whole")
    done = lists(plain.scores, plain.model, plain.features, tmp_path / "cut", limit=5)
    for which, rows in read(tmp_path / "cut").items():
        pd.testing.assert_frame_equal(rows, whole[which].head(5), check_dtype=False)
    assert {found.list: found.customers for found in done.lists} == {name: len(rows) for name, rows in whole.items()}
    assert all(found.listed == min(5, found.customers) for found in done.lists)
    assert done.on_none + sum(found.customers for found in done.lists) == done.customers == len(plain.table)


def test_lost_customers_without_a_risk_have_the_chance_by_pareto_nbd(trained: TrainedWorld, tmp_path: Path) -> None:
    made = _read(_made(trained, tmp_path, {"active_days": 30}))
    back = make(made, tmp_path / "lists")["win_back"].set_index("customer_id")
    risk = made.table.set_index("customer_id")["churn_risk"].loc[back.index]
    unknown = back.index[risk.isna()]
    assert len(unknown) > 10
    rows = pd.read_parquet(made.features).set_index("customer_id", drop=False).loc[unknown]
    x = made.bundle.inputs.matrix(rows)
    silent = x[:, made.bundle.inputs.all_names.index("pareto_p_zero")]
    assert back.loc[unknown, "chance_to_return"].to_numpy() == pytest.approx(1 - silent, abs=1e-6)


def test_who_opted_out_is_on_no_list_for_contacts(plain: Made, tmp_path: Path) -> None:
    first = make(plain, tmp_path / "before")["keep"]["customer_id"].iloc[0]
    told = plain.table.assign(opt_out=plain.table["customer_id"] == first)
    told.to_parquet(tmp_path / "scores.parquet")
    done = lists(tmp_path / "scores.parquet", plain.model, plain.features, tmp_path / "after")
    assert done.refused == 1
    found = read(tmp_path / "after")
    assert all(first not in set(found[which]["customer_id"]) for which in ("keep", "win_back", "develop"))


# why


def test_reasons_and_the_rest_add_up_to_the_risk(plain: Made, tmp_path: Path) -> None:
    keep = make(plain, tmp_path / "lists", language="en")["keep"]
    effects = keep[[f"risk_effect_{k}" for k in (1, 2, 3)]].fillna(0.0)
    assert (effects.to_numpy() >= 0).all()
    total = effects.sum(axis=1) + keep["risk_effect_others"]
    risk = keep["churn_risk"].to_numpy()
    assert (np.abs(total - log_odds(risk)) <= 3e-6 + 5e-7 / (risk * (1 - risk))).all()  # the file has six decimals
    rows = pd.read_parquet(plain.features).set_index("customer_id", drop=False).loc[keep["customer_id"]]
    inputs = plain.bundle.inputs
    baseline, each = churn_contributions(plain.bundle.churn, inputs.matrix(rows))
    by_topic = pd.DataFrame(each, columns=inputs.all_names).T.groupby(topic_of).sum().T
    best = np.sort(by_topic.to_numpy(), axis=1)[:, ::-1][:, :3]
    assert effects.to_numpy() == pytest.approx(np.where(best >= 0.01, best, 0.0), abs=2e-6)
    assert keep["risk_effect_others"].to_numpy() == pytest.approx(
        baseline + each.sum(axis=1) - effects.sum(axis=1).to_numpy(), abs=5e-6
    )
    for row, told in zip(rows.to_dict("records"), keep["risk_reason_1"], strict=True):
        if isinstance(told, str) and told.startswith("no purchase for"):
            assert row["days_since_last"] > row["gap_days_mean"]
            assert told.startswith(f"no purchase for {row['days_since_last']:,.0f} days, one every ")


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_input_of_the_risk_has_a_topic_in_words(language: str) -> None:
    names = [feature.name.format(w=30) for feature in CATALOGUE] + list(BTYD_INPUTS)
    topics = {topic_of(name) for name in names}
    assert {topic for topic in topics if f"risk_topic_{topic}" not in words(language)} == {"rhythm"}


def test_the_smallest_change_is_the_easiest_of_the_verb_upgrades(
    plain: Made, trained: TrainedWorld, tmp_path: Path
) -> None:
    develop = make(plain, tmp_path / "lists")["develop"].set_index("customer_id")
    upgrades(trained.project, plain.bundle, DAY, tmp_path / "ways.csv")
    ways = pd.read_csv(tmp_path / "ways.csv", dtype={"customer_id": str})
    level = {code: n for n, code in enumerate(plain.bundle.scheme.scheme.codes)}
    now = ways["customer_id"].map(plain.table.set_index("customer_id")["tier"])
    ways = ways[ways["reached_code"].map(level) > now]
    best = ways.sort_values(["customer_id", "easiness"]).groupby("customer_id").first()
    told = develop[develop["smallest_change"].notna()]
    assert len(told)
    assert told["smallest_change"].to_dict() == best.loc[told.index, "words"].to_dict()
    assert told["reached_code"].to_dict() == best.loc[told.index, "reached_code"].to_dict()
    assert not set(develop.index[develop["smallest_change"].isna()]) & set(best.index)


def test_expiring_overrides_come_first_and_say_what_else_is_due(plain: Made, tmp_path: Path) -> None:
    before = make(plain, tmp_path / "before")
    book = tmp_path / "ledger"
    shutil.copytree(plain.ledger, book)
    soon, late = before["keep"]["customer_id"].iloc[:2]
    code = plain.bundle.scheme.scheme.codes[-1]
    for customer, days in ((soon, 40), (late, 41)):
        Ledger(book).override(
            customer, code, DAY + timedelta(1), until=DAY + timedelta(days), operator="Li", reason="=key account"
        )
    # the day of the scores comes before the overrides: nothing is in force yet
    assert make(plain, tmp_path / "early", ledger=book)["expiring_overrides"].empty
    table = plain.table.assign(as_of=DAY + timedelta(10))
    features = pd.read_parquet(plain.features).assign(as_of=pd.Timestamp(DAY + timedelta(10)))
    table.to_parquet(tmp_path / "scores.parquet")
    features.to_parquet(tmp_path / "features.parquet")
    later = plain._replace(scores=tmp_path / "scores.parquet", features=tmp_path / "features.parquet")
    found = make(later, tmp_path / "later", ledger=book)
    listed = found["expiring_overrides"].iloc[0]
    assert len(found["expiring_overrides"]) == 1
    assert (listed["customer_id"], listed["days_left"], listed["operator"]) == (soon, 30, "Li")
    assert listed["reason"] == "'=key account"
    assert listed["also_due"] == words(plain.bundle.language)["list_keep"]
    assert soon not in set(found["keep"]["customer_id"])
    assert late in set(found["keep"]["customer_id"])
    assert set(found) == set(LISTS)
    again = make(later, tmp_path / "later")  # without a ledger the old list goes
    assert "expiring_overrides" not in again


# files


def renamed(made: Made, folder: Path, ending: str) -> Made:
    """Give some customers ids that a spreadsheet would spoil."""
    names = dict(zip(made.table["customer_id"], made.table["customer_id"], strict=True))
    listed = make(made, folder / "plain")
    for number, name in IDS.items():
        names[listed["keep"]["customer_id"].iloc[number]] = name
    given = made.table.assign(customer_id=made.table["customer_id"].map(names))
    features = pd.read_parquet(made.features)
    features = features.assign(customer_id=features["customer_id"].map(names))
    features.to_parquet(folder / "features.parquet")
    scores = folder / f"scores{ending}"
    if ending == ".csv":
        escaped = given["customer_id"].map(lambda name: f"'{name}" if name[0] in "=-" else name)
        given.assign(customer_id=escaped).to_csv(scores, index=False)
    else:
        given.to_parquet(scores)
    return made._replace(scores=scores, features=folder / "features.parquet")


def test_ids_stay_text_and_no_cell_is_a_formula(plain: Made, tmp_path: Path) -> None:
    for ending in (".parquet", ".csv"):
        folder = tmp_path / ending[1:]
        folder.mkdir()
        keep = make(renamed(plain, folder, ending), folder / "lists", language="en")["keep"]
        told = ["007", "'=1+1", "'-5", "1e5", "客户甲"]
        assert keep["customer_id"].iloc[:5].tolist() == told
        sheet = openpyxl.load_workbook(folder / "lists" / "keep.xlsx").active
        assert sheet is not None
        rows = list(sheet.iter_rows())
        assert [cell.value for cell in rows[0]][:2] == ["Rank", "Customer"]
        assert [row[1].value for row in rows[1:6]] == told
        assert {cell.data_type for row in rows for cell in row} <= {"s", "n"}
        assert len(rows) == len(keep) + 1
        column = list(keep.columns).index("churn_risk")
        assert [row[column].value for row in rows[1:]] == pytest.approx(keep["churn_risk"].tolist())
    for path in (tmp_path / "csv" / "lists").iterdir():
        assert path.read_bytes() == (tmp_path / "parquet" / "lists" / path.name).read_bytes(), path.name


def test_the_order_of_rows_changes_no_byte(plain: Made, tmp_path: Path) -> None:
    lists(plain.scores, plain.model, plain.features, tmp_path / "one")
    for name, path in (("s", plain.scores), ("f", plain.features)):
        pd.read_parquet(path).sample(frac=1, random_state=3).to_parquet(tmp_path / f"{name}.parquet")
    lists(tmp_path / "s.parquet", plain.model, tmp_path / "f.parquet", tmp_path / "two")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {f"{which}{ending}" for which in LISTS[1:] for ending in (".csv", ".xlsx")}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name


def test_a_full_disk_leaves_the_old_lists(plain: Made, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    lists(plain.scores, plain.model, plain.features, out, limit=3)
    (out / "notes.txt").write_text("ours")
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with failing(10_000, errno.ENOSPC) as steps:
        lists(plain.scores, plain.model, plain.features, tmp_path / "counted")
    renames = [n for n, step in enumerate(steps, 1) if step == "rename"]
    for step in (1, renames[0]):
        with failing(step + 1, errno.ENOSPC, lasting=True), pytest.raises((OutputError, OSError)):
            lists(plain.scores, plain.model, plain.features, out)
    lists(plain.scores, plain.model, plain.features, out, limit=3)  # settles what a stopped run left
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


# bad input


def changed(edit: Callable[[pd.DataFrame], pd.DataFrame], which: str) -> Callable[[Made, Path], dict[str, Any]]:
    def given(made: Made, folder: Path) -> dict[str, Any]:
        path: Path = getattr(made, which)
        edit(pd.read_parquet(path)).to_parquet(folder / path.name)
        return {which: folder / path.name}

    return given


BAD: dict[str, tuple[Any, type[TierModelError], str]] = {
    "no scores": (lambda _, f: {"scores": f / "none.parquet"}, DataError, "none.parquet"),
    "no clv": (changed(lambda t: t.drop(columns="clv"), "scores"), DataError, "lack the columns clv"),
    "text": (changed(lambda t: t.assign(clv="much"), "scores"), DataError, "column clv is not a number"),
    "twice": (changed(lambda t: pd.concat([t, t.head(1)]), "scores"), DataError, "has 2 rows"),
    "unknown tier": (
        changed(lambda t: t.assign(tier_code=["gold", *t["tier_code"][1:]]), "scores"), DataError,
        "tier_code gold is no level of",
    ),
    "two dates": (
        changed(lambda t: t.assign(as_of=[DAY, *[LAST_DAY] * (len(t) - 1)]), "scores"), DataError, "one date"
    ),
    "other model": (
        changed(lambda t: t.assign(model_version="shop-1"), "scores"), ModelError, "model shop-1 made these scores"
    ),
    "other day": (
        changed(lambda t: t.assign(as_of=pd.Timestamp(LAST_DAY)), "features"), DataError, f"no features of {DAY}"
    ),
    "fewer customers": (changed(lambda t: t.iloc[1:], "features"), DataError, "1 customers of the scores"),
    "customer twice": (changed(lambda t: pd.concat([t, t.head(1)]), "features"), DataError, "is there twice"),
    "fewer features": (
        changed(lambda t: t.drop(columns="gap_days_mean"), "features"), ModelError, "'gap_days_mean'"
    ),
    "text feature": (changed(lambda t: t.assign(gap_days_mean="x"), "features"), DataError, "Could not convert"),
    "infinite": (changed(lambda t: t.assign(gap_days_mean=np.inf), "features"), DataError, "infinite"),
    "no ledger": (lambda _, f: {"ledger": f / "none"}, ProjectError, "is no ledger yet"),
    "no limit": (lambda *_: {"limit": 0}, ProjectError, "--limit"),
    "too long": (lambda *_: {"limit": 2_000_000}, ProjectError, "--limit"),
    "no days": (lambda *_: {"expiring_days": -1}, ProjectError, "--expiring-within"),
    "no model": (lambda _, f: {"model": f / "none"}, ModelError, "no bundle"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_named_and_nothing_is_written(name: str, plain: Made, tmp_path: Path) -> None:
    given, error, message = BAD[name]
    usual: dict[str, Any] = {"scores": plain.scores, "model": plain.model, "features": plain.features}
    with pytest.raises(error, match=message):
        lists(**{**usual, **given(plain, tmp_path)}, out=tmp_path / "lists")
    assert not (tmp_path / "lists").exists()


def test_no_list_replaces_an_input(plain: Made, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    plain.table.to_csv(tmp_path / "out" / "keep.csv", index=False)
    with pytest.raises(ProjectError, match="one of the inputs"):
        lists(tmp_path / "out" / "keep.csv", plain.model, plain.features, tmp_path / "out")


# command line


def test_the_verb_prints_counts_and_json(plain: Made, cli: Run) -> None:
    words_given = ("lists", plain.scores, "--model", plain.model, "--features", plain.features, "--out", "lists")
    told = cli(*words_given, "--language", "zh")
    assert told.code == 0
    assert "重点挽留" in told.out
    assert "流失挽回" in told.out
    done = cli(*words_given, "--json", "--limit", 7, "--ledger", plain.ledger)
    assert done.code == 0
    found = json.loads(done.out)
    assert found["as_of"] == str(DAY)
    assert [row["list"] for row in found["lists"]] == list(LISTS)
    rows = read(Path("lists"))
    assert {row["list"]: row["listed"] for row in found["lists"]} == {name: len(rows[name]) for name in LISTS}
    refused = cli(*words_given, "--limit", 0)
    assert (refused.code, refused.out) == (2, "")
