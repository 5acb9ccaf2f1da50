"""Project files from exports: in every layout the right columns and rows, the right money, and settings that work."""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
import yaml

from commands import Run
from exports_made import EXPORTS, orders_of
from tiermodel import build_panel, load_project, make_world
from tiermodel.errors import DataError, ProjectError, TooManyBadRowsError
from tiermodel.project_init.init import Initialised, init
from tiermodel.tables.history import read_history


@pytest.fixture(autouse=True)
def _in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def codes(made: Initialised) -> set[str]:
    return {note.key for note in made.notes}


def money(project: Path) -> tuple[int, float]:
    """Return the customers and the net amount of what a written file reads: no row twice, and none quarantined."""
    history = read_history(load_project(project))
    assert history.account.quarantined == 0
    rows = f"SELECT DISTINCT * FROM ({history.transactions_sql})"
    row = history.connection.execute(
        f"SELECT count(DISTINCT customer_id), sum(amount) / 10000.0 FROM ({rows})"
    ).fetchall()[0]
    return int(row[0]), float(row[1])


def truth(layout: str) -> float:
    """Return the net amount of the orders that count in a layout, from the shop behind it."""
    o = orders_of()
    sales = o[o["amount"] > 0]
    kept = {
        "taobao": sales[sales["fate"] > 0.06],
        "shopify": sales[sales["fate"] >= 0.03],
        "woocommerce": o[(o["amount"] < 0) | (o["fate"] >= 0.04)],
        "square": o[o["fate"] > 0.2],
        "kingdee": o,
        "european": o,
    }.get(layout, sales[sales["fate"] >= 0.05])
    net = float(kept["amount"].sum()) * {"kingdee": 100, "european": 50}.get(layout, 1)
    if layout == "taobao":
        net -= float((kept.loc[kept["fate"] > 0.96, "amount"] / 2).round(2).sum())
    if layout == "shopify":
        net -= float((kept["fate"] > 0.97).sum())
    if layout == "stripe":
        net -= float(kept.loc[kept["fate"] > 0.97, "amount"].sum())
    return net


@pytest.mark.parametrize("layout", sorted(EXPORTS))
def test_every_layout_gives_the_money_of_the_shop(layout: str, tmp_path: Path) -> None:
    file = EXPORTS[layout](tmp_path)
    made = init([file.name], "shop.yaml")
    assert made.fault is None
    assert made.report is not None
    assert not made.report.refused
    chinese = layout in {"taobao", "youzan", "jd", "kingdee"}
    assert made.project.language == ("zh" if chinese else "en")
    assert made.project.outcome.horizon_days == 60  # the rhythm of the shop
    customers, net = money(Path("shop.yaml"))
    assert customers in range(135, 141)
    assert net == pytest.approx(truth(layout), abs=2)
    told = codes(made)
    assert ("personal" in told) == (layout in {"youzan", "shopify", "magento", "woocommerce"})
    assert ("split" in told) == (layout in {"youzan", "jd"})
    assert ("first_rows" in told) == (layout == "shopify")
    text = Path("shop.yaml").read_text(encoding="utf-8")
    assert bool(re.search(r"# .*[\u4e00-\u9fff]", text)) == chinese
    assert f"path: {file.name}" in text or f"orders: {file.name}" in text


@pytest.mark.parametrize("files", [1, 2])
def test_rows_exported_twice_leave_the_total_of_their_order_whole(files: int, tmp_path: Path) -> None:
    file = EXPORTS["jd"](tmp_path)
    rows = pd.read_csv(file, encoding="gb18030", dtype=str)
    names = [file.name, "later.csv"][:files]
    cut = len(rows) // 2
    parts = [pd.concat([rows, rows[::9]])] if files == 1 else [rows[: cut + 200], rows[cut - 200 :]]
    for name, part in zip(names, parts, strict=True):
        part.to_csv(name, index=False, encoding="gb18030")
    assert "split" in codes(init(names, "shop.yaml"))
    assert money(Path("shop.yaml"))[1] == pytest.approx(truth("jd"), abs=2)


def test_the_project_of_a_csv_reads_the_frame_that_pandas_makes_of_it(tmp_path: Path) -> None:
    file = EXPORTS["shopify"](tmp_path)
    init([file.name], "shop.yaml")
    frame = pd.read_csv(file)
    assert frame["Total"].dtype == "float64"  # where the file has text
    project, dates = load_project("shop.yaml"), ["2024-03-01"]
    pd.testing.assert_frame_equal(build_panel(project, dates, history=frame), build_panel(project, dates))


def test_columns_without_a_name_are_told_by_their_values(tmp_path: Path) -> None:
    o = orders_of()
    plain = pd.DataFrame({
        "c1": [f"P{p:04d}" for p in o["person"]],
        "c2": o["moment"].dt.strftime("%d/%m/%Y"),
        "c3": o["amount"].map("{:.2f}".format),
        "c4": o["good"],
    })  # fmt: skip
    plain.to_csv(tmp_path / "plain.csv", index=False)
    made = init(["plain.csv"], "shop.yaml")
    columns = made.project.data.transactions.columns
    assert (columns.customer_id, columns.amount) == ("c1", "c3")
    assert columns.time == "coalesce(try_strptime(c2, '%d/%m/%Y'), TRY_CAST(c2 AS TIMESTAMPTZ))"
    assert {"guessed", "no_order"} <= codes(made)


def test_what_is_missing_is_told_with_the_columns_seen_and_an_option_that_mends_it(cli: Run, tmp_path: Path) -> None:
    pd.DataFrame({"wer": ["a", "b"] * 30, "wann": ["gestern"] * 60, "was": ["x"] * 60}).to_csv("odd.csv", index=False)
    done = cli("init", "odd.csv")
    assert done.code == 2
    assert "odd: no column is plainly customer or time or amount; columns: wer, wann, was" in done.err
    assert "--customer COLUMN --time COLUMN --amount COLUMN" in done.err
    assert not (tmp_path / "shop.yaml").exists()
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    pd.DataFrame({"wer": ["a", "b"] * 30, "wann": days, "was": range(60)}).to_csv("odd.csv", index=False)
    done = cli("init", "odd.csv", "--customer", "wer", "--time", "wann", "--amount", "was * 2")
    assert done.code == 0, done.err
    columns = load_project(tmp_path / "shop.yaml").data.transactions.columns
    assert (columns.customer_id, columns.time, columns.amount) == ("wer", "wann", "was * 2")
    assert "refused" in done.out


def test_nothing_is_overwritten(cli: Run, tmp_path: Path) -> None:
    EXPORTS["stripe"](tmp_path)
    (tmp_path / "shop.yaml").write_text("mine", encoding="utf-8")
    done = cli("init", "payments.csv.gz")
    assert done.code == 2
    assert "shop.yaml exists, and init never overwrites" in done.err
    assert (tmp_path / "shop.yaml").read_text(encoding="utf-8") == "mine"


def test_a_day_that_may_be_a_month_is_told_and_its_other_reading_stands_beside(tmp_path: Path) -> None:
    o = orders_of()
    o = o[o["moment"].dt.day <= 12]
    table = pd.DataFrame(
        {"customer id": o["person"], "date": o["moment"].dt.strftime("%m/%d/%Y"), "amount": o["amount"]}
    )
    table.to_csv(tmp_path / "us.csv", index=False)
    made = init(["us.csv"], "shop.yaml")
    assert "day_first" in codes(made)
    text = Path("shop.yaml").read_text(encoding="utf-8")
    assert re.search(r"# time: .*%m/%d/%Y", text)


def test_more_files_are_years_lines_customers_events_and_a_database_holds_them_too() -> None:
    o = orders_of()
    orders = pd.DataFrame({
        "order_id": o["number"], "customer_id": [f"P{p}" for p in o["person"]],
        "order_date": o["moment"].dt.strftime("%Y-%m-%d"), "total": o["amount"],
    })  # fmt: skip
    half = len(orders) // 2
    orders[:half].to_csv("a.csv", index=False)
    orders[half:].to_csv("b.csv", index=False)
    people = sorted(set(orders["customer_id"]))
    pd.DataFrame({"client": people, "registered at": "2020-01-01", "opt out": "no"}).to_csv("people.csv", index=False)
    events = pd.DataFrame({"user_id": people, "event": ["complaint", "page view"] * 70, "time": "2024-01-02 10:00"})
    events.to_csv("events.csv", index=False)
    made = init(["a.csv", "b.csv", "people.csv", "events.csv"], "shop.yaml")
    data = made.project.data
    assert data.transactions.path == ["a.csv", "b.csv"]
    assert data.customers is not None
    assert data.customers.columns.model_dump(exclude_none=True) == {
        "customer_id": "client", "signup": "registered at", "opt_out": "opt out",
    }  # fmt: skip
    assert data.events is not None
    assert data.events.kinds == {"complaint": ["complaint"], "visit": ["page view"]}
    assert made.fault is None

    with closing(sqlite3.connect("shop.db")) as database:
        orders.to_sql("orders", database, index=False)
        pd.DataFrame({"customer_id": people, "signup": "2020-01-01"}).to_sql("people", database, index=False)
    made = init(["shop.db"], "db.yaml")
    assert made.project.data.transactions.query == 'SELECT * FROM "orders"'
    assert made.project.data.customers is not None
    assert money(Path("db.yaml")) == pytest.approx(money(Path("shop.yaml")))

    lines = o.loc[o.index.repeat(o["pieces"])]
    pd.DataFrame({"order_id": lines["number"], "sku": lines["good"], "qty": 1}).to_csv("lines.csv", index=False)
    orders.to_csv("orders.csv", index=False)
    made = init(["orders.csv", "lines.csv"], "joined.yaml")
    assert made.project.data.transactions.columns.product_id == "line_product_id"
    assert money(Path("joined.yaml")) == pytest.approx(money(Path("shop.yaml")), abs=0.5)


def test_the_five_tables_of_a_company_are_told_apart(tmp_path: Path) -> None:
    make_world(seed=3, customers=150, days=500).write(tmp_path)
    names = ("costs", "invoices", "events", "customers", "transactions")
    data = init([f"{name}.parquet" for name in names], "shop.yaml").project.data
    given = load_project(tmp_path / "project.yaml").data
    for name in names:
        found, known = (getattr(one, name).columns.model_dump(exclude_none=True) for one in (data, given))
        left = {"disputed", "acquisition_cost"}  # known to the world only: days and costs that few exports have
        assert found == {key: value for key, value in known.items() if key not in left}, name


def test_totals_on_one_row_of_an_order_are_found_in_places_of_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tiermodel.project_init.sample._ROWS", 400)
    made = init([EXPORTS["shopify"](tmp_path).name], "shop.yaml")
    assert {"read_some", "first_rows"} <= codes(made)
    assert money(Path("shop.yaml"))[1] == pytest.approx(truth("shopify"), abs=2)


def test_of_a_large_file_only_some_places_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = EXPORTS["taobao"](tmp_path)
    monkeypatch.setattr("tiermodel.project_init.sample._BLOCK", 40_000)
    monkeypatch.setattr("tiermodel.project_init.sample._WHOLE", 160_000)
    made = init([file.name], "shop.yaml")
    assert made.notes[0].key == "read_places"
    looked_at = int(re.findall(r"of which ([0-9,]+) rows", made.notes[0].text("en"))[0].replace(",", ""))
    assert 0 < looked_at < len(orders_of()) // 2
    assert money(Path("shop.yaml"))[1] == pytest.approx(truth("taobao"), abs=2)


def shop_with_signs(refund: str) -> None:
    """Write orders in GB18030 with "¥" (four bytes there) at every amount, the last with a refund."""
    rows = [f"{p % 40:03d},2024-{1 + k:02d}-{1 + p % 28:02d},¥1,交易成功,¥{10 + p}.00,¥0.50"
            for k in range(6) for p in range(200)]  # fmt: skip
    rows.append(f'007,2024-06-30,¥1,交易成功,"¥3,000.00","{refund}"')
    head = "买家会员名,订单创建时间,总金额,订单状态,买家实际支付金额,退款金额"
    Path("orders.csv").write_bytes("\n".join([head, *rows, ""]).encode("gb18030"))


def test_a_refund_of_thousands_is_taken_off_though_no_other_is_as_large() -> None:
    shop_with_signs("")
    made = init(["orders.csv"], "shop.yaml")
    assert made.project.data.transactions.encoding == "gb18030"
    without = money(Path("shop.yaml"))[1]
    assert without == pytest.approx(6 * sum(9.5 + p for p in range(200)) + 3000)
    shop_with_signs("¥1,234.50")
    assert money(Path("shop.yaml"))[1] == pytest.approx(without - 1234.5)


def test_a_discount_that_stands_on_every_row_of_an_order_is_split_as_its_total_is() -> None:
    rows = [
        f"{p % 50},2024-{1 + k:02d}-{1 + p % 28:02d},{k}-{p},{20 + p},{p % 7},{line_discount},{item}"
        for k in range(6)
        for p in range(60)
        for item, line_discount in (("a", 1), ("b", 2))
    ]
    for name, split in (("order", True), ("line", False)):
        shown = ("customer_id,order date,order id,order total,discount,other,product" if split else
                 "customer_id,order date,order id,order total,other,discount,product")  # fmt: skip
        Path("orders.csv").write_text("\n".join([shown, *rows, ""]), encoding="utf-8")
        columns = init(["orders.csv"], f"{name}.yaml").project.data.transactions.columns
        assert columns.amount.endswith("/ order_lines")
        assert columns.discount is not None
        assert columns.discount.endswith("/ order_lines") == split


def test_taxes_and_shipping_in_a_total_and_returns_below_zero_are_told() -> None:
    rows = [
        f"{p % 50:05d},{1 + p % 28:02d}.0{1 + k}.2024,{k}-{p},{sign * (10.5 + p)},{sign * (8.5 + p)},2.00,0.00,{kind}"
        for k in range(6)
        for p in range(100)
        for sign, kind in (((-1, "Storno"),) if p % 20 == 0 else ((1, "Rechnung"),))
    ]
    head = "Kundennummer,Belegdatum,Belegnr.,Bruttobetrag,{net},MwSt,Versandkosten,Belegart"
    for net, told in (("Rabatt", True), ("Nettobetrag", False)):
        Path("orders.csv").write_text("\n".join([head.format(net=net), *rows, ""]), encoding="utf-8")
        made = init(["orders.csv"], f"{net}.yaml")
        text = "\n".join(note.text("en") for note in made.notes)
        wanted = "'Bruttobetrag' may hold MwSt: where these are no income of yours, take them off in columns.amount"
        assert (wanted in text) == told, text  # no shipping was ever charged: a column of zeros is not named
        assert "rows whose 'Belegart' is Storno are below zero already, and count as returns" in text


def test_a_refund_that_cannot_be_read_is_told_and_not_taken_for_none() -> None:
    shop_with_signs("")
    init(["orders.csv"], "shop.yaml")
    shop_with_signs("见备注 12元3角")
    assert read_history(load_project("shop.yaml")).account.quarantined == 1
    shop_with_signs("无退款")
    assert read_history(load_project("shop.yaml")).account.quarantined == 0


def test_titles_above_a_sheet_are_left_out_and_told_in_the_language_of_its_names() -> None:
    rows = [[f"{p % 50:05d}", f"2024年{1 + k}月{1 + p % 28}日 09:30", 10.5 + p, f"XS{k}-{p}"]
            for k in range(6) for p in range(100)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["会员卡号", "消费时间", "实收金额", "小票号"])
    with pd.ExcelWriter("receipts.xlsx", engine="openpyxl") as book:
        table.to_excel(book, sheet_name="明细", index=False, startrow=2)
        book.sheets["明细"]["A1"] = "会员消费明细表"
        book.sheets["明细"]["A2"] = "导出时间：2024年7月1日"
        pd.DataFrame({"门店": ["甲"]}).to_excel(book, sheet_name="门店", index=False)
    made = init(["receipts.xlsx"], "shop.yaml")
    customers, net = money(Path("shop.yaml"))
    assert customers == 50
    assert net == pytest.approx(table["实收金额"].sum())
    told = " ".join(note.text("zh") for note in made.notes)
    assert "列名之上的标题行未读：'会员消费明细表'、'导出时间：2024年7月1日'" in told
    assert "读取工作表 '明细'，未读 门店" in told


def test_rows_that_break_the_contract_leave_a_file_to_correct(cli: Run, tmp_path: Path) -> None:
    o = orders_of()
    amount = o["amount"].map("{:.2f}".format).where(o["fate"] > 0.08, "see note")
    pd.DataFrame({"customer id": o["person"], "date": o["moment"].dt.date, "amount": amount}).to_csv(
        "s.csv", index=False
    )
    done = cli("init", "s.csv")
    assert done.code == TooManyBadRowsError.exit_code
    assert "amount_unparsable" in done.err
    assert load_project(tmp_path / "shop.yaml").data.transactions.columns.amount == "amount"


def test_the_same_files_give_the_same_bytes_and_words_fit_80_columns(
    cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((80, 24)))
    file = EXPORTS["taobao"](tmp_path)
    texts = []
    for language in ("zh", "zh", "en"):
        done = cli("init", file.name, "--language", language)
        assert done.code == 0
        texts.append((tmp_path / "shop.yaml").read_text(encoding="utf-8"))
        (tmp_path / "shop.yaml").unlink()
        for line in done.out.splitlines():
            assert sum(2 if ord(letter) > 0x2E00 else 1 for letter in line) <= 80 or line.startswith("  tiermodel ")
    assert texts[0] == texts[1]
    assert "language: en" in texts[2]


def test_an_empty_or_absent_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    for name in ("empty.csv", "absent.csv", "absent.db"):
        with pytest.raises(DataError):
            init([name], "shop.yaml")
    with pytest.raises(ProjectError, match="no file"):
        init([], "shop.yaml")
    assert not Path("shop.yaml").exists()


def test_headers_yaml_names_every_name_once_in_a_role() -> None:
    from tiermodel.project_init.headers import directory, plain  # noqa: PLC0415

    for role, groups in directory()["roles"].items():
        names = [plain(str(n)) for g in groups for n in (g["names"] if isinstance(g, dict) else g)]
        assert len(names) == len(set(names)), (role, sorted({n for n in names if names.count(n) > 1}))
    assert yaml.safe_dump(dict(directory()))
