"""Made-up exports in the layouts of shop systems: the headers are the vendors', the rows a seeded shop's."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from worlds import small_world

__all__ = ["EXPORTS", "orders_of"]

_GOODS = ("mug", "bowl", "plate", "cup", "jar")


@cache
def orders_of(customers: int = 140, seed: int = 5) -> pd.DataFrame:
    """Return orders of a seeded shop: number, customer, moment, amount (returns below zero), pieces and status."""
    with TemporaryDirectory() as folder:
        rows = pd.read_parquet(small_world(Path(folder) / "rows.parquet", customers, seed))
    rows = rows.sort_values(["day", "customer"], ignore_index=True)
    draw = np.random.default_rng(seed)
    people = {name: n for n, name in enumerate(sorted(rows["customer"].unique()))}
    return pd.DataFrame({
        "number": np.arange(len(rows)) + 10_001,
        "person": rows["customer"].map(people),
        "moment": rows["day"] + pd.to_timedelta(draw.integers(8 * 3600, 20 * 3600, len(rows)), unit="s"),
        "amount": rows["amount"].round(2),
        "pieces": draw.integers(1, 4, len(rows)),
        "good": draw.integers(0, len(_GOODS), len(rows)),
        "fate": draw.random(len(rows)),
    })  # fmt: skip


def _sales() -> pd.DataFrame:
    orders = orders_of()
    return orders[orders["amount"] > 0].reset_index(drop=True)


def _text(moment: pd.Series, form: str) -> pd.Series:
    return moment.dt.strftime(form)


def _word(number: int) -> str:
    return "".join("abcdefghij"[int(digit)] for digit in str(number))


def _lines(orders: pd.DataFrame) -> pd.DataFrame:
    """Return one row a piece, as exports of order lines have; `line` counts them from 0."""
    rows = orders.loc[orders.index.repeat(orders["pieces"])].reset_index(drop=True)
    return rows.assign(line=rows.groupby("number").cumcount())


def taobao(folder: Path) -> Path:
    """Write an order export of Taobao and Tmall: GBK, ids as spreadsheets keep them, closed orders and refunds."""
    o = _sales()
    closed, unpaid = o["fate"] < 0.04, o["fate"].between(0.04, 0.06)
    refund = np.where(o["fate"] > 0.96, (o["amount"] / 2).round(2), 0.0)
    table = pd.DataFrame({
        "订单编号": [f'="{n}88"' for n in o["number"]],
        "买家会员名": [f"tb{p:05d}" for p in o["person"]],
        "买家应付货款": o["amount"].map("{:.2f}".format),
        "总金额": o["amount"].map("{:.2f}".format),
        "买家实际支付金额": np.where(closed | unpaid, "0.00", o["amount"].map("{:.2f}".format)),
        "订单状态": np.select([closed, unpaid], ["交易关闭", "等待买家付款"], "交易成功"),
        "收货人姓名": [f"王{p}" for p in o["person"]],
        "收货地址 ": "浙江省 杭州市",
        "联系手机": [f"'138{p:08d}" for p in o["person"]],
        "订单创建时间": _text(o["moment"], "%Y-%m-%d %H:%M:%S"),
        "订单付款时间 ": np.where(unpaid, "", _text(o["moment"] + pd.Timedelta(90, "s"), "%Y-%m-%d %H:%M:%S")),
        "宝贝标题 ": "杯子",
        "宝贝总数量": o["pieces"],
        "退款金额": [f"{x:.2f}" for x in refund],
    })  # fmt: skip
    path = folder / "ExportOrderList.csv"
    table.to_csv(path, index=False, encoding="gb18030", lineterminator="\r\n")
    return path


def youzan(folder: Path) -> Path:
    """Write an order export of Youzan: a workbook, one row a piece, each with the whole amount of the order."""
    o = _lines(_sales())
    table = pd.DataFrame({
        "订单号": [f"E{n}" for n in o["number"]],
        "订单状态": np.where(o["fate"] < 0.05, "交易关闭", "交易完成"),
        "下单时间": _text(o["moment"], "%Y-%m-%d %H:%M:%S"),
        "买家昵称": "粉丝",
        "买家手机号": [f"139{p:08d}" for p in o["person"]],
        "商品名称": [f"{_GOODS[(g + n) % 5]} {n}" for g, n in zip(o["good"], o["line"], strict=True)],
        "商品数量": 1,
        "订单实付金额": o["amount"],
    })  # fmt: skip
    path = folder / "有赞订单.xlsx"
    table.to_excel(path, index=False)
    return path


def jd(folder: Path) -> Path:
    """Write an order export of JD, one row a piece, each with the amount due for the order."""
    o = _lines(_sales())
    table = pd.DataFrame({
        "订单号": o["number"] + 2_000_000_000,
        "商品ID": [100_000 + (g + n) % 5 for g, n in zip(o["good"], o["line"], strict=True)],
        "商品名称": [f"{_GOODS[(g + n) % 5]}" for g, n in zip(o["good"], o["line"], strict=True)],
        "订购数量": 1,
        "支付方式": "在线支付",
        "下单时间": _text(o["moment"], "%Y/%m/%d %H:%M"),
        "京东价": "19.90",
        "订单金额": o["amount"] + 5,
        "结算金额": o["amount"],
        "余额支付": 0,
        "应付金额": o["amount"],
        "订单状态": np.where(o["fate"] < 0.05, "(删除)已取消", "完成"),
        "下单帐号": [f"jd_{p:04d}" for p in o["person"]],
        "客户姓名": [f"李{p}" for p in o["person"]],
        "联系电话": [f"137{p:08d}" for p in o["person"]],
    })  # fmt: skip
    path = folder / "jd.csv"
    table.to_csv(path, index=False, encoding="gb18030")
    return path


def shopify(folder: Path) -> Path:
    """Write Shopify's orders export: one row a piece, totals, address and times on the first row of an order only."""
    o = _lines(_sales())
    first = o["line"] == 0
    moment = (
        o["moment"]
        .dt.tz_localize("America/New_York", ambiguous="NaT", nonexistent="shift_forward")
        .dt.strftime("%Y-%m-%d %H:%M:%S %z")
    )

    def once(values: object) -> pd.Series:
        return pd.Series(values, index=o.index).astype(object).where(first, "")

    status = np.select([o["fate"] < 0.03, o["fate"] > 0.97], ["voided", "partially_refunded"], "paid")
    table = pd.DataFrame({
        "Name": [f"#{n}" for n in o["number"]],
        "Email": once([f"c{p}@example.com" for p in o["person"]]),
        "Financial Status": once(status),
        "Paid at": once(moment),
        "Fulfillment Status": once("fulfilled"),
        "Accepts Marketing": once("no"),
        "Currency": once("USD"),
        "Subtotal": once(o["amount"].map("{:.2f}".format)),
        "Shipping": once("0.00"),
        "Taxes": once("0.00"),
        "Total": once(o["amount"].map("{:.2f}".format)),
        "Discount Amount": once("0.00"),
        "Created at": once(moment),
        "Lineitem quantity": 1,
        "Lineitem name": [_GOODS[(g + n) % 5] for g, n in zip(o["good"], o["line"], strict=True)],
        "Lineitem price": "9.90",
        "Lineitem sku": [f"S{(g + n) % 5}" for g, n in zip(o["good"], o["line"], strict=True)],
        "Billing Name": once([f"Person {p}" for p in o["person"]]),
        "Refunded Amount": once(np.where(status == "partially_refunded", "1.00", "0.00")),
        "Id": once(o["number"] + 900_000),
    })  # fmt: skip
    path = folder / "orders_export_1.csv"
    table.to_csv(path, index=False)
    return path


def woocommerce(folder: Path) -> Path:
    """Write the orders of WooCommerce's analytics: refunds are rows of their own, below zero."""
    o = orders_of()
    table = pd.DataFrame({
        "Date": _text(o["moment"], "%Y-%m-%d %H:%M:%S"),
        "Order #": o["number"],
        "Status": np.select([o["amount"] < 0, o["fate"] < 0.04], ["refunded", "cancelled"], "completed"),
        "Customer": [f"Person {_word(p)}" for p in o["person"]],
        "Customer type": "returning",
        "Product(s)": [f"1× {_GOODS[g]}" for g in o["good"]],
        "Items sold": 1,
        "Coupon(s)": "",
        "Net Sales": o["amount"],
        "Attribution": "Direct",
    })  # fmt: skip
    path = folder / "woo.csv"
    table.to_csv(path, index=False)
    return path


def stripe(folder: Path) -> Path:
    """Write Stripe's payments export, packed: failed charges, and refunds as a column."""
    o = _sales()
    refund = np.where(o["fate"] > 0.97, o["amount"], 0.0)
    table = pd.DataFrame({
        "id": [f"ch_{n}" for n in o["number"]],
        "Description": "order",
        "Seller Message": "Payment complete.",
        "Created (UTC)": _text(o["moment"], "%Y-%m-%d %H:%M"),
        "Amount": o["amount"].map("{:.2f}".format),
        "Amount Refunded": [f"{x:.2f}" for x in refund],
        "Currency": "usd",
        "Fee": "0.50",
        "Status": np.select([o["fate"] < 0.05, refund > 0], ["Failed", "Refunded"], "Paid"),
        "Customer ID": [f"cus_{p:05d}" for p in o["person"]],
        "Customer Email": [f"c{p}@example.com" for p in o["person"]],
        "Captured": "true",
    })  # fmt: skip
    path = folder / "payments.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", newline="") as out:
        table.to_csv(out, index=False)
    return path


def square(folder: Path) -> Path:
    """Write Square's items export: amounts with the dollar's sign, refunds below zero, many without a customer."""
    o = orders_of()
    table = pd.DataFrame({
        "Date": _text(o["moment"], "%Y-%m-%d"),
        "Time": _text(o["moment"], "%H:%M:%S"),
        "Time Zone": "Eastern Time (US & Canada)",
        "Category": "Ceramics",
        "Item": [_GOODS[g] for g in o["good"]],
        "Qty": 1,
        "SKU": [f"S{g}" for g in o["good"]],
        "Gross Sales": [f"{'-' * (x < 0)}${abs(x):,.2f}" for x in o["amount"]],
        "Discounts": "$0.00",
        "Net Sales": [f"{'-' * (x < 0)}${abs(x):,.2f}" for x in o["amount"]],
        "Tax": "$0.00",
        "Transaction ID": [f"SQ{n}" for n in o["number"]],
        "Event Type": np.where(o["amount"] < 0, "Refund", "Payment"),
        "Customer ID": [f"CUST{p}" if f > 0.2 else "" for p, f in zip(o["person"], o["fate"], strict=True)],
        "Customer Name": [f"Person {p}" if f > 0.2 else "" for p, f in zip(o["person"], o["fate"], strict=True)],
    })  # fmt: skip
    path = folder / "items.csv"
    table.to_csv(path, index=False)
    return path


def magento(folder: Path) -> Path:
    """Write the grid of Magento's orders: months in words, a customer only by e-mail."""
    o = _sales()
    table = pd.DataFrame({
        "ID": [f"{n:09d}" for n in o["number"]],
        "Purchase Point": "Main Website",
        "Purchase Date": _text(o["moment"], "%b %d, %Y %I:%M:%S %p"),
        "Bill-to Name": [f"Person {p}" for p in o["person"]],
        "Ship-to Name": [f"Person {p}" for p in o["person"]],
        "Grand Total (Base)": [f"${x:,.2f}" for x in o["amount"]],
        "Grand Total (Purchased)": [f"${x:,.2f}" for x in o["amount"]],
        "Status": np.where(o["fate"] < 0.05, "Canceled", "Complete"),
        "Customer Email": [f"c{p}@example.com" for p in o["person"]],
        "Total Refunded": "",
    })  # fmt: skip
    path = folder / "magento.csv"
    table.to_csv(path, index=False)
    return path


def kingdee(folder: Path) -> Path:
    """Write sales of a Chinese ERP: lines, the kind of paper tells returns, amounts in yuan with commas."""
    o = orders_of()
    table = pd.DataFrame({
        "单据编号": [f"XSCK{n}" for n in o["number"]],
        "单据日期": _text(o["moment"], "%Y年%m月%d日"),
        "单据类型": np.where(o["amount"] < 0, "销售退货单", "销售出库单"),
        "客户编码": [f"K{p:04d}" for p in o["person"]],
        "客户名称": [f"第{p}贸易公司" for p in o["person"]],
        "物料编码": [f"M{g}" for g in o["good"]],
        "物料名称": [_GOODS[g] for g in o["good"]],
        "实发数量": o["pieces"],
        "含税单价": "10.00",
        "价税合计": [f"¥{abs(x) * 100:,.2f}" for x in o["amount"]],
    })  # fmt: skip
    path = folder / "销售出库.csv"
    table.to_csv(path, index=False, encoding="utf-8-sig")
    return path


def european(folder: Path) -> Path:
    """Write a German ERP's table: semicolons, decimal commas, days first, cp1252."""
    o = orders_of()
    table = pd.DataFrame({
        "Belegnummer": [f"RE-{n}" for n in o["number"]],
        "Belegdatum": _text(o["moment"], "%d.%m.%Y"),
        "Kundennummer": 10_000 + o["person"],
        "Kundenname": [f"Müller {p} GmbH" for p in o["person"]],
        "Artikelnummer": [f"A{g}" for g in o["good"]],
        "Menge": o["pieces"],
        "Nettobetrag": [f"{x * 50:,.2f}".translate(str.maketrans(",.", ".,")) for x in o["amount"]],
    })  # fmt: skip
    path = folder / "umsatz.csv"
    table.to_csv(path, index=False, sep=";", encoding="cp1252")
    return path


EXPORTS: dict[str, Callable[[Path], Path]] = {
    made.__name__: made
    for made in (taobao, youzan, jd, shopify, woocommerce, stripe, square, magento, kingdee, european)
}
"""The makers of exports by the name of their layout."""
