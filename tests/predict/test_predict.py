"""Scoring: the agreed columns, one record as the batch, no trace of the future, whole files or none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tiermodel.bundle.bundle import Bundle
from tiermodel.config.project import Project
from tiermodel.engines import dispatch
from tiermodel.engines import duckdb as engine
from tiermodel.errors import DataError, ModelError, OutputBusyError, ProjectError, TooManyBadRowsError
from tiermodel.features.panel import build_panel
from tiermodel.output import atomic_file, escape_formulas
from tiermodel.predict import predict, score, score_schema
from worlds import TrainedWorld, small_project

AS_OF = date(2023, 11, 1)
EVERY = timedelta(60)
COLUMNS = [
    "customer_id", "as_of", "tier", "tier_code", "tier_name", "p_small", "p_regular", "p_secondary", "p_major",
    "tier_set", "model_tier", "previous_tier", "movement", "segment", "lifecycle_stage", "loyalty_stage", "churn_risk",
    "risk_band", "expected_value", "expected_value_low", "expected_value_high", "clv", "potential", "upgrade_potential",
    "conversion_chance",
    "reason_1", "reason_2", "reason_3", "policy", "scheme_version", "model_version",
    "score_loyalty", "score_willingness", "score_service_need", "score_credit", "score_importance", "score_potential",
    "contact_threshold", "churn_warning", "expected_value_median",
]  # fmt: skip


@pytest.fixture(scope="module")
def rows(trained: TrainedWorld) -> pd.DataFrame:
    return pd.read_parquet(str(trained.project.data.transactions.path))


@pytest.fixture(scope="module")
def bundle(trained: TrainedWorld) -> Bundle:
    return trained.trained.bundle


@pytest.fixture(scope="module")
def panel(trained: TrainedWorld) -> pd.DataFrame:
    return build_panel(trained.project, [AS_OF - EVERY, AS_OF])


@pytest.fixture(scope="module")
def snapshot(panel: pd.DataFrame) -> pd.DataFrame:
    return panel[panel["as_of"] == pd.Timestamp(AS_OF)].reset_index(drop=True)


@pytest.fixture(scope="module")
def whole(bundle: Bundle, snapshot: pd.DataFrame) -> pd.DataFrame:
    return predict(bundle, snapshot)


@pytest.fixture(scope="module")
def scored(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scored") / "scores.parquet"
    score(trained.project, trained.bundle, AS_OF, out)
    return out


def same(found: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """Compare to the bit; which words happen to be categories of a batch does not matter."""
    pd.testing.assert_frame_equal(
        found.reset_index(drop=True), wanted.reset_index(drop=True), check_exact=True, check_categorical=False
    )


# the table


def test_the_score_table_has_the_agreed_columns_and_one_row_a_known_customer(scored: Path, rows: pd.DataFrame) -> None:
    table = pq.read_table(scored)
    assert table.column_names == COLUMNS
    assert table.schema.field("customer_id").type == pa.string()
    known = sorted(set(rows.loc[rows["day"] < pd.Timestamp(AS_OF), "customer"]))
    assert table["customer_id"].to_pylist() == known
    assert set(table["as_of"].to_pylist()) == {AS_OF}


def test_what_a_row_says_hangs_together(scored: Path, bundle: Bundle) -> None:
    table = pd.read_parquet(scored)
    codes = bundle.scheme.scheme.codes
    p = table[[f"p_{c}" for c in codes]].to_numpy()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=3e-6)
    rises = bundle.upgrade * (p * (np.arange(4) > table["tier"].to_numpy()[:, None])).sum(axis=1)
    np.testing.assert_allclose(table["upgrade_potential"], np.where(table["tier"] == 3, 0, rises), atol=1e-4)
    assert table["conversion_chance"].isna().all()  # there are no prospects
    assert [codes[t] for t in table["tier"]] == table["tier_code"].tolist()
    assert set(table["risk_band"]) <= {"low", "medium", "high"}
    assert ((table["churn_risk"] >= 0.5) == (table["risk_band"] == "high")).all()
    for amount in ("expected_value", "expected_value_median"):
        assert table[amount].between(table["expected_value_low"], table["expected_value_high"]).all()
    assert (table["potential"] >= 0).all()
    assert table["reason_1"].str.contains("net amount of the last 365 days").all()
    for low, high, name in zip(
        table["tier_set"].str.split("..", regex=False).str[0],
        table["tier_set"].str.split("..", regex=False).str[-1],
        p.argmax(axis=1),
        strict=True,
    ):
        assert codes.index(low) <= name <= codes.index(high)
    assert set(table["model_version"]) == {bundle.version}
    assert set(table["scheme_version"]) == {bundle.scheme_version}


def test_parquet_and_csv_say_the_same(trained: TrainedWorld, scored: Path, tmp_path: Path) -> None:
    score(trained.project, trained.trained.bundle, str(AS_OF), tmp_path / "scores.csv")
    text = pd.read_csv(tmp_path / "scores.csv", dtype={"customer_id": str}, keep_default_na=False, na_values=[""])
    table = pd.read_parquet(scored).assign(as_of=str(AS_OF))
    pd.testing.assert_frame_equal(text, table.replace("", np.nan), check_dtype=False)


def test_movement_is_against_the_earlier_date_scored_by_the_same_bundle(
    trained: TrainedWorld, scored: Path, tmp_path: Path
) -> None:
    score(trained.project, trained.bundle, AS_OF - EVERY, tmp_path / "before.parquet")
    now = pd.read_parquet(scored).set_index("customer_id")
    before = pd.read_parquet(tmp_path / "before.parquet").set_index("customer_id")["tier"].reindex(now.index)
    np.testing.assert_array_equal(now["previous_tier"], before.astype(float))
    step = np.sign(now["tier"] - before)
    wanted = pd.Series(step).map({-1.0: "down", 0.0: "same", 1.0: "up"}).fillna("new")
    assert now["movement"].tolist() == wanted.tolist()
    assert {"new", "same", "up", "down"} >= set(wanted) > {"same"}


# frames


def test_columns_are_matched_by_name(bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame) -> None:
    order = list(np.random.default_rng(0).permutation(snapshot.columns))
    same(predict(bundle, snapshot[order].assign(extra="x", another=np.inf)), whole)


def test_the_index_is_ignored_or_stands_for_the_customer(
    bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame
) -> None:
    odd = snapshot.set_index(pd.MultiIndex.from_product([["a"], range(len(snapshot), 0, -1)]))
    same(predict(bundle, odd), whole)
    by_index = predict(bundle, snapshot.set_index("customer_id").drop(columns="as_of"))
    assert by_index["customer_id"].tolist() == whole["customer_id"].tolist()
    same(by_index.drop(columns=["customer_id", "as_of"]), whole.drop(columns=["customer_id", "as_of"]))
    assert predict(bundle, odd.drop(columns=["customer_id", "as_of"]))["customer_id"].nunique() == len(whole)


def test_missing_and_repeated_features_are_refused(bundle: Bundle, snapshot: pd.DataFrame) -> None:
    with pytest.raises(ModelError, match=r"1 of \d+ features of .* missing: \['net_amount_total'\]"):
        predict(bundle, snapshot.rename(columns={"net_amount_total": "net_amount"}))
    with pytest.raises(ModelError, match=r"\['net_amount_total'\] are there more than once"):
        predict(bundle, pd.concat([snapshot, snapshot[["net_amount_total"]]], axis=1))


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinity_is_refused_with_its_place(bundle: Bundle, snapshot: pd.DataFrame, bad: float) -> None:
    spoiled = snapshot.copy()
    spoiled.loc[7, "order_amount_mean"] = bad
    with pytest.raises(DataError, match=r"'order_amount_mean' is infinite in 1 rows, first at position 7"):
        predict(bundle, spoiled)


@pytest.mark.parametrize("bad", ["12", "abc", pd.Timestamp("2023-01-01"), [1.0]])
def test_what_is_not_a_number_is_refused(bundle: Bundle, snapshot: pd.DataFrame, bad: object) -> None:
    values = snapshot["net_amount_total"].astype(object)
    values.iloc[0] = bad
    with pytest.raises(DataError, match="'net_amount_total' is not a number in every row"):
        predict(bundle, snapshot.assign(net_amount_total=values))


def test_numbers_of_any_kind_are_taken(bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame) -> None:
    counts = snapshot["order_count_total"]
    for other in (counts.astype(int), counts.astype("Int64"), counts.astype(object), counts.astype("float64[pyarrow]")):
        same(predict(bundle, snapshot.assign(order_count_total=other)), whole)
    one = snapshot.iloc[[3]].to_dict("records")
    one[0] = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in one[0].items()}
    same(predict(bundle, pd.DataFrame(one)), whole.iloc[[3]])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_one_record_is_the_batch(bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame, size: int) -> None:
    few = snapshot.head(2 * size) if size > 1 else snapshot.iloc[::40]
    parts = [predict(bundle, few.iloc[i : i + size]) for i in range(0, len(few), size)]
    same(pd.concat(parts, ignore_index=True), whole.loc[few.index])
    assert predict(bundle, snapshot.head(0)).columns.tolist() == COLUMNS


def test_large_batches_on_two_threads_give_the_same_bits(
    bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame
) -> None:
    same(predict(bundle, pd.concat([snapshot] * 6)), pd.concat([whole] * 6))


def test_twins_score_alike(bundle: Bundle, snapshot: pd.DataFrame, whole: pd.DataFrame) -> None:
    twins = predict(bundle, snapshot.assign(customer_id="x"))
    same(twins.drop(columns="customer_id"), whole.drop(columns="customer_id"))


def test_who_never_bought_is_a_prospect_without_churn_risk(bundle: Bundle, snapshot: pd.DataFrame) -> None:
    features = snapshot.columns.drop(["customer_id", "as_of"])
    row = predict(bundle, snapshot.head(1).assign(**dict.fromkeys(features, np.nan))).iloc[0]
    assert (row["tier_code"], row["reason_1"], row["lifecycle_stage"]) == ("small", "no purchase yet", "prospect")
    assert np.isnan(row["churn_risk"])
    assert pd.isna(row["risk_band"])
    assert row["potential"] >= 0 or np.isnan(row["potential"])


def test_the_schema_is_what_predict_gives(bundle: Bundle, whole: pd.DataFrame) -> None:
    assert score_schema(bundle).names == COLUMNS == whole.columns.tolist()


# files


def project_of(path: Path | list[Path], **sections: Any) -> Project:
    made = small_project(path if isinstance(path, Path) else path[0], **sections)
    if isinstance(path, Path):
        return made
    table = made.data.transactions.model_copy(update={"path": [str(p) for p in path]})
    return made.model_copy(update={"data": made.data.model_copy(update={"transactions": table})})


def score_bytes(trained: TrainedWorld, project: Project, out: Path) -> bytes:
    score(project, trained.trained.bundle, AS_OF, out)
    return out.read_bytes()


def test_law_1_what_comes_later_changes_no_byte(
    trained: TrainedWorld, rows: pd.DataFrame, scored: Path, tmp_path: Path
) -> None:
    past = rows[rows["day"] < pd.Timestamp(AS_OF)]
    past.to_parquet(tmp_path / "past.parquet", index=False)
    assert score_bytes(trained, project_of(tmp_path / "past.parquet"), tmp_path / "a.parquet") == scored.read_bytes()
    future = past.head(500).assign(
        day=pd.Timestamp(AS_OF), order=lambda f: f["order"] + "later", amount=lambda f: f["amount"] * 1e4
    )
    strangers = future.assign(customer=lambda f: "new" + f["customer"], day=future["day"] + pd.Timedelta(days=3))
    pd.concat([future, past, strangers]).to_parquet(tmp_path / "both.parquet", index=False)
    assert score_bytes(trained, project_of(tmp_path / "both.parquet"), tmp_path / "b.parquet") == scored.read_bytes()


def test_law_2_row_order_and_files_change_no_byte(
    trained: TrainedWorld, rows: pd.DataFrame, scored: Path, tmp_path: Path
) -> None:
    mixed = rows.sample(frac=1, random_state=5)
    files = [tmp_path / f"part{k}.parquet" for k in range(3)]
    for k, file in enumerate(files):
        mixed.iloc[k::3].to_parquet(file, index=False)
    assert score_bytes(trained, project_of(files), tmp_path / "a.parquet") == scored.read_bytes()
    mixed[["amount", "product", "order", "day", "customer"]].to_csv(tmp_path / "rows.csv", index=False)
    found = pd.read_parquet(
        pa.BufferReader(score_bytes(trained, project_of(tmp_path / "rows.csv"), tmp_path / "b.parquet"))
    )
    pd.testing.assert_frame_equal(found, pd.read_parquet(scored), check_exact=True)


@pytest.mark.parametrize("size", [101, 3_000])
def test_law_2_the_engines_batches_change_no_score(
    trained: TrainedWorld, scored: Path, tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Iterator[pa.RecordBatch]] = engine.sorted_rows

    def smaller(*given: Any) -> Iterator[pa.RecordBatch]:
        for batch in original(*given):
            yield from (batch.slice(i, size) for i in range(0, batch.num_rows, size))

    monkeypatch.setattr(dispatch, "sorted_rows", smaller)
    score_bytes(trained, trained.project, tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), pd.read_parquet(scored), check_exact=True)


def test_ids_are_kept_as_they_are(trained: TrainedWorld, rows: pd.DataFrame, tmp_path: Path) -> None:
    odd = ["00123", "123", "9007199254740993", "1e5", "=1+1", "客户", "😀1", "../../x", "'; DROP TABLE t; --"]
    known = sorted(set(rows["customer"]))[: len(odd)]
    renamed = rows["customer"].map(dict(zip(known, odd, strict=True)))
    few = rows.assign(customer=renamed)[renamed.notna()]
    few.to_parquet(tmp_path / "odd.parquet", index=False)
    score(project_of(tmp_path / "odd.parquet"), trained.trained.bundle, "latest", tmp_path / "odd_scores.parquet")
    assert set(pd.read_parquet(tmp_path / "odd_scores.parquet")["customer_id"]) == set(odd)
    score(project_of(tmp_path / "odd.parquet"), trained.trained.bundle, "latest", tmp_path / "odd_scores.csv")
    text = pd.read_csv(tmp_path / "odd_scores.csv", dtype=str)["customer_id"]
    assert set(text) == {escape_formulas(customer) for customer in odd}


def test_new_customers_are_scored_by_the_old_bundle(trained: TrainedWorld, rows: pd.DataFrame, tmp_path: Path) -> None:
    rows.assign(customer="n" + rows["customer"]).to_parquet(tmp_path / "new.parquet", index=False)
    done = score(project_of(tmp_path / "new.parquet"), trained.bundle, AS_OF, tmp_path / "out.parquet")
    assert done.customers == sum(done.tiers.values()) == len(pd.read_parquet(tmp_path / "out.parquet"))
    assert (
        done.accounts["transactions"].read
        == done.accounts["transactions"].used + done.accounts["transactions"].out_of_window
        == len(rows)
    )


def test_bad_rows_go_beside_and_the_rest_goes_on(
    trained: TrainedWorld, rows: pd.DataFrame, scored: Path, tmp_path: Path
) -> None:
    bad = rows.head(3).assign(amount=["abc", "nan", "1e400"], customer="bad")
    pd.concat([rows, bad]).to_csv(tmp_path / "rows.csv", index=False)
    done = score(project_of(tmp_path / "rows.csv"), trained.bundle, AS_OF, tmp_path / "out.parquet")
    assert done.accounts["transactions"].quarantined == 3
    beside = pd.read_csv(tmp_path / "out.quarantine.csv")
    assert len(beside) == 3
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), pd.read_parquet(scored))
    strict = project_of(tmp_path / "rows.csv")
    strict = strict.model_copy(update={"data": strict.data.model_copy(update={"max_bad_share": 0.0001})})
    with pytest.raises(TooManyBadRowsError):
        score(strict, trained.bundle, AS_OF, tmp_path / "none.parquet")
    assert not list(tmp_path.glob("*none*"))


# refusals leave nothing


def test_a_run_that_breaks_leaves_what_was_there(
    trained: TrainedWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"yesterday")

    def broken(*_: Any) -> Iterator[pa.RecordBatch]:
        yield from itertools.islice(engine.sorted_rows(*_), 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(dispatch, "sorted_rows", broken)
    with pytest.raises(KeyboardInterrupt):
        score(trained.project, trained.bundle, AS_OF, out)
    assert out.read_bytes() == b"yesterday"
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]


def test_refusals_write_nothing(trained: TrainedWorld, tmp_path: Path) -> None:
    bundle = trained.trained.bundle
    out = tmp_path / "out.parquet"
    with pytest.raises(DataError, match=r"no customer has a row before 2020-01-01: the data starts on 2022"):
        score(trained.project, bundle, "2020-01-01", out)
    with pytest.raises(ProjectError, match="2023-13-01"):
        score(trained.project, bundle, "2023-13-01", out)
    with pytest.raises(ProjectError, match="one date is needed here, not 2"):
        score(trained.project, bundle, "2023-10-01,2023-11-01", out)
    with pytest.raises(ProjectError, match=r"\.parquet"):
        score(trained.project, bundle, AS_OF, tmp_path / "out.json")
    columns = trained.project.data.transactions.columns.model_copy(update={"product_id": None})
    table = trained.project.data.transactions.model_copy(update={"columns": columns})
    unmapped = trained.project.model_copy(
        update={"data": trained.project.data.model_copy(update={"transactions": table})}
    )
    with pytest.raises(ModelError, match=r"needs data.transactions.columns.product_id, which"):
        score(unmapped, bundle, AS_OF, out)
    with atomic_file(out) as other:
        other.write_bytes(b"x")
        with pytest.raises(OutputBusyError, match="being written by another run"):
            score(trained.project, bundle, AS_OF, out)
    out.unlink()
    assert not list(tmp_path.iterdir())


def test_the_bundle_decides_the_features_whatever_the_project_says_now(
    trained: TrainedWorld, scored: Path, tmp_path: Path
) -> None:
    other = small_project(
        Path(str(trained.project.data.transactions.path)), features={"windows_days": [10], "groups": ["rfm"]},
        panel={"every_days": 7}, tiers={"scheme": "rfm"},
    )  # fmt: skip
    assert score_bytes(trained, other, tmp_path / "out.parquet") == scored.read_bytes()


def test_scores_of_a_date_before_the_training_are_told(trained: TrainedWorld, tmp_path: Path) -> None:
    learned = date.fromisoformat(str(trained.trained.bundle.facts["as_of"]))
    now, before = (score(trained.project, trained.bundle, day, tmp_path / "s.parquet")
                   for day in (learned, learned - timedelta(30)))  # fmt: skip
    assert (now.trained_later, before.trained_later) == (False, True)
    assert any("TM4001" in words and f"knows what followed {learned - timedelta(30)}" in words
               for words in before.accounts["transactions"].warnings)  # fmt: skip
