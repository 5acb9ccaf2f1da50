"""Neighbours of the bad inputs of `test_bad_inputs.py`, and where each row of the list of bad inputs is held."""

from __future__ import annotations

import ast
import bz2
import gzip
import lzma
import multiprocessing
import re
import sqlite3
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from commands import Run
from test_bad_inputs import BODY, HEADER, Case, fine, one, refused
from test_bad_inputs import test_a_bad_input_becomes_what_is_stated as becomes
from tiermodel.bundle.bundle import load_bundle
from tiermodel.config.project import Project
from tiermodel.features.panel import build_panel
from tiermodel.predict import predict
from tiermodel.tables.history import read_history
from worlds import TrainedWorld

TOTALS = (
    "Grand Total",
    "total:",
    "Subtotal",
    "Sub-Total",
    "SUM",
    "总计：",
    "合 计",
    "小计",
    "(60 rows)",
    "1 row affected",
)
LONG = ("9007199254740993900719925474", "9007199254740993900719925475")
NO_DAYS = ("2023-02-29", "2024-04-31", "2024-01-31 23:59:60", "２０２４-01-31", "2024-W05-3", "2024-01-31 17:30 CET",
           "today", "令和6年1月31日", "'2024-01-31")  # fmt: skip
BOM = b"\xef\xbb\xbf"
TESTS = Path(__file__).resolve().parent


def database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (id)")
    connection.close()


FILES = [
    *(refused(f"content is {what}", content, f"TM1006 .*{what}") for what, content in (
        ("a gzip file", gzip.compress(BODY)), ("a bzip2 file", bz2.compress(BODY)), ("an xz file", lzma.compress(BODY)),
        ("a Zstandard file", b"\x28\xb5\x2f\xfd" + bytes(99)), ("an SQLite database", database),
        ("a picture", b"\x89PNG\r\n\x1a\n" + bytes(99)), ("JSON", b'[{"id": "A", "when": "2024-01-01"}]'),
        ("JSON", BOM + b'{"id":"A"}\n{"id":"B"}\n'), ("a text with formats", b"{\\rtf1 id,when}"),
        ("HTML", BOM + b"<!DOCTYPE html><html></html>"), ("HTML", b"<!-- saved -->\n<HTML><body>Login</body></HTML>"),
        ("HTML", b"<?xml version='1.0'?><a/>"))),
    Case("a name in brackets is no JSON", b"[id],{when},amount\nA,2024-01-01,1\n", used=1, table={"columns": {
        "customer_id": "[id]", "time": "{when}", "amount": "amount"}}),
    refused("gzip with a rest", gzip.compress(BODY) + b"rest", "TM1007", file="a.csv.gz"),
    refused("gzip with a wrong sum", gzip.compress(BODY)[:-8] + bytes(8), "TM1007", file="a.csv.gz"),
    refused("gzip of nothing", gzip.compress(b""), "TM1001", file="a.csv.gz"),
    Case("gzip of two parts", gzip.compress(BODY) + gzip.compress(b"Z,2024-01-01,1,x\n"), used=61, file="a.csv.gz"),
    Case("two byte order marks", BOM * 2 + BODY, used=60),
    refused("byte order marks only", BOM * 3, "TM1001"),
    refused("blank lines only", b"\n\n \n", "TM1001"),
    refused("carets between columns", BODY.replace(b",", b"^"), "TM1307 .*one only: the first line must name", code=2),
    refused("control characters between columns", BODY.replace(b",", b"\x01"), r"TM1307 .*id\\u0001when", code=2),
    refused("a title above the names", b"Report\n" + BODY, "TM1307 .*the first line must name all columns", code=2),
]  # fmt: skip

ROWS = [
    Case("files with marks and headers, one after the other", BOM + BODY + BOM + HEADER + b"Z,2024-01-01,1,x\n",
         bad={62: "repeated_header"}, used=61),
    Case("the header again, in other letters and with blanks", BODY + b"ID,When,Amount,Note\n id , when , amount,x\n",
         bad={62: "repeated_header", 63: "repeated_header"}, used=60),
    *(one(f"a line of totals: {word}", f"{word},,5,", "footer_total") for word in TOTALS),
    fine("a customer whose name is a word of totals", "TOTAL,2024-01-01,5,x\n", {"TOTAL"}),
    *(one(f"an id of which nothing is seen: {mark!a}", f"{mark},2024-01-01,1,x", "customer_id_missing")
      for mark in ("\u200b", "\u00ad", "\u200b\u200d", "\u2060", "\ufeff", "\u3000")),
    *(one(f"id {word}", f'"{word}",2024-01-01,1,x', "customer_id_missing")
      for word in ("\\N", "(null)", "<NA>", "#N/A")),
    *(refused(f"damaged id {word}", BODY + f'"{word}",2024-01-01,1,x\n'.encode(), "TM2003") for word in (
        "1,23E+11", "9.00719925474099E+15", "#REF!", "#####")),
    fine("ids of many digits", "".join(f"{each},2024-01-01,1,x\n" for each in LONG), set(LONG)),
    *(one(f"date {word!r}", f'Z,"{word}",1,x', "time_unparsable") for word in NO_DAYS),
    *(one(f"date {word!r}", f"Z,{word},1,x", "time_implausible")
      for word in ("1899-12-31", "2200-01-01", "0001-01-01")),
    *(one(f"amount {word!r}", f'Z,2024-01-01,"{word}",x', "amount_unparsable") for word in (
        "١٢", "（5）", "–5", "1/2", "0b1", "5-", "1'000.00", "HK$5", "null")),
    Case("rows at the end, seven years on", BODY + b"Y,2031-01-01,1,x\nZ,2031-01-01,2,x\n",
         "TM2067 after 2529 days without a row come 2 more, up to 2031-01-01", used=62),
    Case("rows at the start, decades before", BODY + b"Y,1980-01-01,1,x\nZ,1980-01-01,2,x\n",
         "TM2067 2 rows are dated years before all others", used=62),
]  # fmt: skip


@pytest.mark.parametrize("case", [*FILES, *ROWS], ids=lambda case: case.name)
def test_a_neighbour_becomes_what_is_stated(case: Case, tmp_path: Path, cli: Run) -> None:
    becomes(case, tmp_path, cli)


def sold(folder: Path, rows: str) -> Project:
    """Make a project over a small CSV."""
    (folder / "s.csv").write_text("id,when,amount\n" + rows, encoding="utf-8")
    columns = {"customer_id": "id", "time": "when", "amount": "amount"}
    data = {"transactions": {"path": str(folder / "s.csv"), "columns": columns}}
    return Project.model_validate({"version": 1, "name": "x", "data": data, "features": {"windows_days": [30, 365]}})


def test_ids_with_one_hash_stay_two_customers(tmp_path: Path) -> None:
    ids = ["plumless", "buckeroo", "codding", "gnu"]
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    assert zlib.crc32(b"codding") == zlib.crc32(b"gnu")
    found = build_panel(sold(tmp_path, "".join(f"{one},2024-01-0{n},{n}\n" for n, one in enumerate(ids, 1))), "latest")
    assert found.set_index("customer_id")["net_amount_365d"].to_dict() == {one: n for n, one in enumerate(ids, 1)}


def test_a_return_after_the_date_changes_no_feature(tmp_path: Path) -> None:
    before = "A,2024-01-01,5\nB,2024-01-02,7\n"
    day = date(2024, 2, 1)
    plain = build_panel(sold(tmp_path, before), day)
    pd.testing.assert_frame_equal(build_panel(sold(tmp_path, before + "A,2024-02-01,-5\n"), day), plain)


def test_threads_and_forks_of_one_model_give_the_bits_of_one_after_the_other(trained: TrainedWorld) -> None:
    bundle, frame = trained.trained.bundle, build_panel(trained.project, date(2023, 11, 1))
    parts = [frame.iloc[start::8] for start in range(8)]
    wanted = [predict(bundle, part) for part in parts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda part: predict(bundle, part), parts))
    for here, there in zip(found, wanted, strict=True):
        pd.testing.assert_frame_equal(here, there, check_exact=True)
    for way in ("fork", "spawn"):
        with multiprocessing.get_context(way).Pool(1) as processes:
            again = processes.apply_async(predict_from, (trained.bundle, parts[0])).get(timeout=120)
        pd.testing.assert_frame_equal(again, wanted[0], check_exact=True)


def predict_from(bundle: Path, part: pd.DataFrame) -> pd.DataFrame:
    """Score in another process."""
    return predict(load_bundle(bundle), part)


@pytest.mark.usefixtures("quick")
def test_a_tier_that_nobody_reaches_is_told_as_empty(trained: TrainedWorld, tmp_path: Path, cli: Run) -> None:
    levels = [{"code": code, "name_zh": code, "name_en": code} for code in ("low", "high", "nobody")]
    rules = [{"level": level, "when": [{"feature": "net_amount_365d", "at_least": least}]}
             for level, least in (("nobody", 1e11), ("high", 100))]  # fmt: skip
    scheme = {"code": "x", "name_zh": "x", "name_en": "x", "kind": "thresholds", "levels": levels,
              "rules": [*rules, {"level": "low"}]}  # fmt: skip
    settings = trained.project.model_dump(mode="json", exclude_unset=True) | {"tiers": {"scheme": scheme}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for line in (
        "train shop.yaml --out model",
        "score shop.yaml --model model --as-of latest --out scores.parquet",
        "report scores.parquet model --out report.html",
    ):
        done = cli(*line.split())
        assert done.code == 0, done.err
        if line.startswith("score"):
            assert re.search(r"nobody\W+0\W+0\.0%", done.out)
    assert set(pd.read_parquet(tmp_path / "scores.parquet")["tier_code"]) == {"low", "high"}
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_a_column_of_dates_by_two_clocks_is_refused_and_the_remedy_reads_it(tmp_path: Path) -> None:
    project = sold(tmp_path, "A,2024-01-01T00:00:00+08:00,1\nB,2024-01-02 00:00:00,1\n")
    with pytest.raises(Exception, match="TM2066") as refusal:
        read_history(project)
    told = re.search(r"map time to (.*)", str(refusal.value))
    assert told
    columns = project.data.transactions.columns.model_copy(update={"time": told[1]})
    table = project.data.transactions.model_copy(update={"columns": columns})
    read_history(project.model_copy(update={"data": project.data.model_copy(update={"transactions": table})}))


HELD = {
    "B010": "test_bad_inputs.py::test_a_file_that_may_not_be_read_is_a_fault_of_permission",
    "B013": "tables/test_sources.py::test_standard_input_gives_the_bytes_that_a_file_gives",
    "B026": "benchmarks/bench_bad_inputs.py::beyond_four_gigabytes",
    "B053": "test_bad_inputs.py::AMOUNTS",
    "B077": "test_bad_inputs.py::test_order_of_rows_and_columns_changes_no_byte",
    "B103": "test_bad_input_kinds.py::test_ids_with_one_hash_stay_two_customers",
    **dict.fromkeys(
        ("B104", "B106", "B107", "B109", "B110", "B112", "B113", "B115", "B127"), "test_bad_inputs.py::AMOUNTS"
    ),
    **dict.fromkeys(("B131", "B143"), "test_bad_inputs.py::DATES"),
    "B121": "tables/test_tables.py::test_missing_quantity_counts_as_zero_and_missing_cost_does_not",
    "B122": "tables/test_tables.py::test_missing_quantity_counts_as_zero_and_missing_cost_does_not",
    "B125": "test_bad_input_kinds.py::test_a_return_after_the_date_changes_no_feature",
    "B148": "test_bad_inputs.py::test_order_of_rows_and_columns_changes_no_byte",
    "B152": "benchmarks/bench_bad_inputs.py::customers_of_one_row",
    "B154": "predict/test_predict.py::test_new_customers_are_scored_by_the_old_bundle",
    "B155": "test_bad_input_kinds.py::test_a_tier_that_nobody_reaches_is_told_as_empty",
    "B157": "quality/test_suitability.py::test_each_lack_is_named",
    "B158": "quality/test_suitability.py::test_each_lack_is_named",
    "B160": "tiers/test_learned.py::test_labels_that_are_no_tier_and_labels_without_a_day_are_refused",
    "B161": "features/test_panel.py::test_a_window_not_fully_observed_is_no_outcome",
    "B163": "tracking/test_gate.py::test_a_first_model_that_knows_nothing_or_is_uncalibrated_is_refused",
    **dict.fromkeys(
        ("B164", "B166", "B167", "B172"), "config/test_config.py::test_a_problem_is_refused_with_place_value_and_remedy"
    ),
    "B169": "tiers/test_learned.py::test_a_scheme_that_does_not_fit_together_is_refused",
    "B170": "config/test_config.py::test_a_bomb_is_refused_at_once",
    "B173": "test_privacy.py::test_a_missing_or_short_key_is_refused_before_anything_is_read",
    "B175": "tracking/test_registry.py::test_a_forged_model_is_refused_before_anything_runs",
    "B176": "tracking/test_registry.py::test_another_flavor_beside_ours_is_refused",
    "B178": "bundle/test_bundle.py::test_damage_is_refused_in_words",
    **dict.fromkeys(
        ("B179", "B181", "B182", "B184"),
        "serving/test_server.py::test_whatever_is_sent_the_answer_names_the_fault_and_no_value",
    ),
    "B185": "serving/test_server.py::test_a_slow_client_is_let_go_and_others_do_not_wait",
    "B187": "predict/test_predict.py::test_the_index_is_ignored_or_stands_for_the_customer",
    "B188": "test_odd_frames.py::test_an_odd_frame_is_right_or_refused_in_a_sentence",
    "B190": "test_bad_input_kinds.py::test_threads_and_forks_of_one_model_give_the_bits_of_one_after_the_other",
    "B191": "test_bad_input_kinds.py::test_threads_and_forks_of_one_model_give_the_bits_of_one_after_the_other",
}
"""Rows of the list of bad inputs that no case of `test_bad_inputs.py` names, and what holds them."""


def test_every_row_of_the_list_of_bad_inputs_is_held(shared_data: Path) -> None:
    listed = re.findall(
        r"^\| (B\d{3}) ", (shared_data.parent / "BAD_INPUTS.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(listed) > 100
    named = set(re.findall(r"B\d{3}", (TESTS / "test_bad_inputs.py").read_text(encoding="utf-8")))
    assert [row for row in listed if row not in named and row not in HELD] == []
    for place in set(HELD.values()):
        file, _, name = place.partition("::")
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {found for node in tree.body for found in _names(node)}, place


def _names(node: ast.stmt) -> list[str]:
    targets: list[Any] = node.targets if isinstance(node, ast.Assign) else []
    return [getattr(node, "name", ""), *(getattr(each, "id", "") for each in targets)]
