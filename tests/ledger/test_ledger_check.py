"""What can go wrong with the files of a ledger is named; ledgers of version 0.1.0 open; verbs speak its language."""

from __future__ import annotations

import json
import shutil
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from commands import Run
from tiermodel.config.tiers import Downgrade, Stability, Upgrade
from tiermodel.errors import LedgerError
from tiermodel.ledger.check import CHECKS, check_ledger
from tiermodel.ledger.files import LedgerFile, Levels, noted
from tiermodel.ledger.ledger import Ledger
from tiermodel.ledger.rows import Before, graded_rows, position_in
from tiermodel.output import write_table
from tiermodel.tiers.stability.grading import Grading
from tiermodel.tiers.stability.rule import NOBODY, regrade

OLD = Path(__file__).parent / "version_0_1_0"
CODES, NAMES = ["low", "mid", "top"], (("low", "普通", "plain"), ("mid", "银卡", "silver"), ("top", "金卡", "gold"))
DAYS = [date(2024, month, 1) for month in range(1, 7)]
RULE = Stability(up=Upgrade(confirmations=2), down=Downgrade(confirmations=2, min_stay_days=40))


def grade(book: Ledger, day: date, level: dict[str, int], **given: Any) -> Any:
    """Grade customers by levels that the rules of a scheme would give, and add them to the ledger."""
    rows = graded(book.before(day, regrade="regrade_reason" in given), day, level)
    return book.append(day, pa.Table.from_batches([rows]), levels=Levels("zh", NAMES), **given)


def graded(before: Before, day: date, level: dict[str, int]) -> pa.RecordBatch:
    who, at = pd.Series(list(level)), np.array(list(level.values()), dtype=np.int64)
    position = position_in(before, who, CODES)
    held = position.override != NOBODY
    state = regrade(RULE, position.state, at, (at, at), (day - date(1970, 1, 1)).days)
    earlier = np.where(position.in_force == NOBODY, np.nan, position.in_force)
    grading = Grading(at, at, np.where(held, position.override, state.tier), earlier, state, held, held & False)
    texts = dict.fromkeys(("reason_1", "reason_2", "reason_3", "scheme_version", "model_version"), "why")
    return graded_rows(pa.RecordBatch.from_pandas(pd.DataFrame({"customer_id": who, **texts})), grading, CODES, before)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep a ledger with everything in it: moves, pending moves, customers who leave and return, overrides."""
    folder, draw = tmp_path_factory.mktemp("kept") / "book", np.random.default_rng(3)
    people = [f"c{n:02d}" for n in range(40)]
    book = Ledger(folder)
    for n, day in enumerate(DAYS):
        there = [who for k, who in enumerate(people) if not (k < 5 and n in (2, 3)) and (k > 9 or n > 0)]
        grade(book, day, {who: int(draw.integers(0, 3)) for who in there})
        if n < 4:
            until = day + timedelta(45) if n % 2 else None
            book.override(people[20 + n], "top", day + timedelta(5), until=until, operator="li", reason="a promise")
    book.override(people[20], None, DAYS[-1] + timedelta(3), until=None, operator="wu", reason="it is over")
    return folder


def test_a_ledger_that_holds_together_is_told_so(kept: Path, cli: Run) -> None:
    found = check_ledger(kept)
    assert found.faults == {}
    assert found.counts["gradings"] == 6
    assert found.counts["overrides"] == 5
    assert found.counts["rows"] == sum(pq.read_metadata(file).num_rows for file in kept.iterdir())
    ran = cli("ledger", "check", kept)
    assert ran.code == 0
    assert ran.out.count("✓") == len(CHECKS)
    assert "人工调级 5 次" in ran.out
    assert "overrides: 5" in cli("ledger", "check", kept, "--language", "en").out
    assert json.loads(cli("ledger", "check", kept, "--json").out)["faults"] == {}


def changed(folder: Path, name: str, change: Any) -> None:
    path = folder / f"{name}.parquet"
    table = pq.read_table(path)
    frame = table.to_pandas()
    change(frame)
    fields = [pa.array(frame[f.name].astype(object).where(frame[f.name].notna(), None), f.type) for f in table.schema]
    pq.write_table(pa.table(fields, schema=table.schema), path)


def first(frame: pd.DataFrame, event: str) -> Any:
    return frame.index[frame["event"] == event][0]


def other_before(frame: pd.DataFrame) -> None:
    at = first(frame, "up")
    frame.loc[at, "previous_code"] = {"low": "mid", "mid": "low"}[frame.loc[at, "previous_code"]]


def other_state(frame: pd.DataFrame) -> None:
    frame.loc[frame.index[frame["asked"].abs() == 1][0], "asked"] = 2


def other_day(frame: pd.DataFrame) -> None:
    frame.loc[0, "valid_from"] = date(2024, 3, 2)


def goes_on(frame: pd.DataFrame) -> None:
    frame.loc[first(frame, "enter"), "event"] = "up"


def nobody(frame: pd.DataFrame) -> None:
    frame.loc[0, "operator"] = " "


def unknown(frame: pd.DataFrame) -> None:
    frame.loc[0, "customer_id"] = "nobody"


@pytest.mark.parametrize(
    ("name", "change", "kind", "told"),
    [
        ("2024-03-01", other_before, "chain", "the tier before was"),
        ("2024-02-01", other_state, "state", "the state of the stability rule does not go on"),
        ("2024-03-01", other_day, "files", "a row has another valid_from than 2024-03-01"),
        ("2024-05-01", goes_on, "exits", "goes on after the customer left"),
        ("2024-02-06.0001", nobody, "overrides", "an override without operator"),
        ("2024-02-06.0001", unknown, "overrides", "'nobody' on 2024-02-06"),
    ],
)
def test_what_does_not_hold_together_is_named(
    kept: Path, tmp_path: Path, cli: Run, name: str, change: Any, kind: str, told: str
) -> None:
    shutil.copytree(kept, tmp_path / "book")
    changed(tmp_path / "book", name, lambda _: None)
    assert check_ledger(tmp_path / "book").faults == {}  # written anew, it holds together still
    changed(tmp_path / "book", name, change)
    faults = check_ledger(tmp_path / "book").faults
    assert any(told in fault for fault in faults[kind]), faults
    ran = cli("ledger", "check", tmp_path / "book")
    assert ran.code == 5
    assert ran.out == ""
    assert "does not hold together" in ran.err
    as_json = cli("ledger", "check", tmp_path / "book", "--json")
    assert (as_json.code, kind in json.loads(as_json.out)["faults"]) == (5, True)


def test_a_grading_that_is_gone_is_missed(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept, tmp_path / "book")
    (tmp_path / "book" / "2024-03-01.parquet").unlink()
    faults = check_ledger(tmp_path / "book").faults
    assert "2024-03-01.parquet is not there, and 2024-04-01.parquet goes on from it" in faults["files"][0]
    assert faults["chain"]


@pytest.mark.parametrize("name", ["2024-03-01", "2024-02-06.0001"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "type"])
def test_a_damaged_file_is_named_by_every_verb(kept: Path, tmp_path: Path, cli: Run, name: str, damage: str) -> None:
    shutil.copytree(kept, tmp_path / "book")
    path = tmp_path / "book" / f"{name}.parquet"
    content = bytearray(path.read_bytes())
    if damage == "type":
        table = pq.read_table(path)
        pq.write_table(table.set_column(4, "tier", table["tier"].cast(pa.int64())), path)
    else:
        content[len(content) // 8] ^= 8
        path.write_bytes({"cut": bytes(content[:-50]), "empty": b"", "flipped": bytes(content)}[damage])
    told = ("--customer", "c30", "--tier", "top", "--from", "2024-07-01", "--operator", "li", "--reason", "x")
    for words in (
        ("show",), ("show", "--as-of", "2024-06-30"), ("show", "--superseded"), ("forecast",), ("overrides",),
        ("check",), ("movement", "--from", "2024-01-01", "--to", "2024-06-02"), ("override", *told),
    ):  # fmt: skip
        ran = cli("ledger", words[0], "book", *words[1:])
        assert (ran.code, f"book/{name}.parquet is damaged" in ran.err) == (5, True), (words, ran.err)
        assert "from a backup" in ran.err
    with pytest.raises(LedgerError, match="is damaged"):
        grade(Ledger(tmp_path / "book"), date(2024, 7, 1), {"c30": 1})
    assert len(list((tmp_path / "book").iterdir())) == len(list(kept.iterdir()))


def test_a_ledger_of_version_0_1_0_opens_and_goes_on(tmp_path: Path, cli: Run) -> None:
    assert check_ledger(OLD).faults == {}
    shutil.copytree(OLD, tmp_path / "book")
    book = Ledger(tmp_path / "book")
    assert book.level_names is None
    assert [str(day) for day in book.graded] == ["2023-06-01", "2023-07-31"]
    who = book.history()[lambda rows: rows["operator"] == "li"]["customer_id"].iloc[0]
    spans = book.history(who)
    assert spans["tier_code"].tolist() == ["small", "major", "small"]
    assert spans["valid_to"].tolist()[:-1] == spans["valid_from"].tolist()[1:]
    assert "major" in cli("ledger", "show", "book", "--customer", who).out
    assert "signed a contract" in cli("ledger", "show", "book", "--customer", who, "--language", "zh").out
    table = cli("ledger", "movement", "book", "--from", "2023-06-01", "--to", "2023-07-31", "--language", "zh").out
    assert "secondary" in table
    code, start = book.codes[-1], date(2023, 8, 5)
    book.override(who, code, start, until=None, operator="wu", reason="again")
    assert check_ledger(tmp_path / "book").faults == {}
    assert book.as_of(start).set_index("customer_id").loc[who, "tier_code"] == code


def test_verbs_speak_the_language_of_the_project_that_wrote_the_ledger(kept: Path, tmp_path: Path, cli: Run) -> None:
    shutil.copytree(kept, tmp_path / "book")
    days = ("--from", DAYS[0], "--to", DAYS[5])
    for verb, zh, en in (
        (("show", "--customer", "c22"), ["银卡", "客户", "人工调级（li"], ["silver", "customer", "by hand (li"]),
        (("movement", *days), ["金卡", "原等级"], ["gold", "from"]),
        (("forecast",), ["金卡", "预测客户", "2024-06-01 之后"], ["gold", "forecast", "After 2024-06-01"]),
        (("overrides", "--as-of", "2024-03-07"), ["→ 金卡", "剩余天数"], ["→ gold", "days left"]),
    ):
        spoken = cli("ledger", verb[0], "book", *verb[1:])
        other = cli("ledger", verb[0], "book", *verb[1:], "--language", "en")
        assert (spoken.code, other.code) == (0, 0)
        assert all(text in spoken.out for text in zh), spoken.out
        assert all(text in other.out for text in en), other.out
        assert not any(text in other.out for text in zh)
    assert json.loads(cli("ledger", "movement", "book", *days, "--json").out)["tiers"] == CODES
    told = ("--customer", "c30", "--tier", "mid", "--operator", "li", "--reason", "x", "--from", "2024-07-01")
    assert cli("ledger", "override", "book", *told).out == "c30：自 2024-07-01 起为银卡\n"
    assert Ledger("book").all_files[-1].levels == Levels("zh", NAMES)  # an override keeps them too


def test_overrides_are_listed_in_the_order_in_which_they_expire(kept: Path, cli: Run) -> None:
    day = date(2024, 4, 10)
    rows = json.loads(cli("ledger", "overrides", kept, "--as-of", day, "--json").out)["overrides"]
    assert [(row["customer_id"], row["expires"], row["days_left"]) for row in rows] == [
        ("c23", "2024-05-16", 36), ("c20", None, None), ("c22", None, None)
    ]  # fmt: skip
    assert {row["tier_code"] for row in rows} == {"top"}
    nobody = cli("ledger", "overrides", kept, "--as-of", "2023-01-01", "--language", "en")
    assert (nobody.code, nobody.out) == (0, "No override is in force on 2023-01-01\n")
    assert rows[0]["valid_from"] == "2024-04-06"
    for days, wanted in ((35, 0), (36, 1)):
        near = json.loads(cli("ledger", "overrides", kept, "--as-of", day, "--expiring-within", days, "--json").out)
        assert len(near["overrides"]) == wanted
    last = json.loads(cli("ledger", "overrides", kept, "--json").out)  # by default on the last day of the ledger
    assert last["as_of"] == "2024-06-04"
    assert [row["customer_id"] for row in last["overrides"]] == ["c22"]


def test_an_override_that_is_extended_has_two_spans_without_a_gap(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "book")
    grade(book, DAYS[0], {"a": 0, "b": 1})
    for start, end in ((5, 20), (10, 60)):
        day = DAYS[0] + timedelta(start)
        book.override("a", "top", day, until=DAYS[0] + timedelta(end), operator="li", reason="x")
    spans = book.history("a")
    assert spans["tier_code"].tolist() == ["low", "top", "top", "low"]
    assert spans["valid_to"].tolist()[:-1] == spans["valid_from"].tolist()[1:]
    assert check_ledger(tmp_path / "book").faults == {}


def test_the_notes_of_a_file_are_in_its_metadata(tmp_path: Path) -> None:
    schema = noted(Levels("zh", NAMES), reason="why", supersedes=["x"], known_on=None)
    write_table(schema.empty_table(), tmp_path / "t.parquet")
    notes = json.loads(pq.read_schema(tmp_path / "t.parquet").metadata[b"tiermodel"])
    assert notes == {"language": "zh", "levels": [list(n) for n in NAMES], "reason": "why", "supersedes": ["x"]}
    file = LedgerFile("2024-01-01", tmp_path, DAYS[0], 0, notes)
    assert (file.known_on, file.supersedes, file.levels) == (DAYS[0], ("x",), Levels("zh", NAMES))
    assert not noted(None).metadata
