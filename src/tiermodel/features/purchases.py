"""The features of purchases: when, how often, how much, how regular, the trend, the margin, and the season."""

# ruff: noqa: E501 one line per feature reads as the table it is

from __future__ import annotations

import numpy as np

from tiermodel.arrays import Floats
from tiermodel.features.formula import Feature, FeatureContext, change, ratio

__all__ = ["PURCHASES"]


def _quarters(k: FeatureContext) -> list[Floats]:
    return [k.sum(f"quarter_{n}_order_count") for n in (1, 2, 3, 4)]


def _in_quarter_of(k: FeatureContext) -> Floats:
    """Return the orders placed in the quarter of the year in which the date lies."""
    quarter = k.as_of.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) // 3 % 4
    return np.choose(quarter, _quarters(k))


_SPEND = "net_amount"
PURCHASES: tuple[Feature, ...] = (
    # rfm: when, how often, how much
    Feature("days_since_last", "rfm", "days", "距最近一次购买的天数", "days since the last purchase", lambda k, _: k.since_last),
    Feature("order_count_{w}d", "rfm", "count", "近{w}天订单数", "orders in the last {w} days", lambda k, w: k.sum("order_count", w)),
    Feature("order_count_total", "rfm", "count", "累计订单数", "orders so far", lambda k, _: k.sum("order_count")),
    Feature("net_amount_{w}d", "rfm", "amount", "近{w}天净消费额", "net amount of the last {w} days", lambda k, w: k.sum(_SPEND, w)),
    Feature("net_amount_total", "rfm", "amount", "累计净消费额", "net amount so far", lambda k, _: k.sum(_SPEND)),
    Feature("order_amount_mean", "rfm", "amount", "平均每单净消费额", "net amount per order", lambda k, _: ratio(k.sum(_SPEND), k.sum("order_count"))),
    Feature("last_day_amount", "rfm", "amount", "最近购买日净消费额", "net amount of the last purchase day", lambda k, _: k.rhythm("amount_last_day")),
    Feature("lines_per_order", "rfm", "ratio", "每单商品行数", "lines per order", lambda k, _: ratio(k.sum("line_count"), k.sum("order_count"))),
    Feature("return_count_total", "rfm", "count", "累计退货单数", "orders with a return so far", lambda k, _: k.sum("return_count")),
    Feature("return_amount_ratio", "rfm", "ratio", "退货额与购买额之比", "returned amount over purchased amount so far",
            lambda k, _: ratio(k.sum("purchase_amount") - k.sum(_SPEND), k.sum("purchase_amount"))),
    Feature("discount_share", "rfm", "share", "折扣占折前金额的比例", "discount over the amount before discount",
            lambda k, _: ratio(k.sum("discount_amount"), k.sum(_SPEND) + k.sum("discount_amount"))),
    # loyalty: how long, how regular, how broad
    Feature("days_since_first", "loyalty", "days", "距首次购买的天数", "days since the first purchase", lambda k, _: k.since_first),
    Feature("purchase_days_{w}d", "loyalty", "count", "近{w}天购买天数", "days with a purchase in the last {w} days", lambda k, w: k.sum("purchase_days", w)),
    Feature("purchase_days_total", "loyalty", "count", "累计购买天数", "days with a purchase so far", lambda k, _: k.sum("purchase_days")),
    Feature("gap_days_mean", "loyalty", "days", "平均购买间隔", "mean days between purchase days", lambda k, _: k.gap_mean),
    Feature("gap_days_std", "loyalty", "days", "购买间隔的波动天数", "standard deviation of the days between purchase days", lambda k, _: k.gap_std),
    Feature("gap_variation", "loyalty", "ratio", "购买节奏波动率（越小越规律）", "variation of the gaps: their deviation over their mean (low = regular)",
            lambda k, _: ratio(k.gap_std, k.gap_mean)),
    Feature("gap_days_last", "loyalty", "days", "最近一次购买间隔", "days between the last two purchase days", lambda k, _: k.rhythm("gap_last")),
    Feature("gap_days_max", "loyalty", "days", "最长购买间隔", "longest gap between purchase days", lambda k, _: k.rhythm("gap_max")),
    Feature("overdue_ratio", "loyalty", "ratio", "未购时长 ÷ 平均购买间隔（>1 为超期未购）", "days since the last purchase over the mean gap", lambda k, _: ratio(k.since_last, k.gap_mean)),
    Feature("overdue_max_ratio", "loyalty", "ratio", "未购时长 ÷ 历史最长间隔", "days since the last purchase over the longest gap",
            lambda k, _: ratio(k.since_last, k.rhythm("gap_max"))),
    Feature("active_share", "loyalty", "share", "活跃时段占比（每30天为一段）", "share of the 30-day blocks since the first purchase that saw one",
            lambda k, _: ratio(k.rhythm("active_blocks"), np.floor((k.since_first - 1) / 30) + 1)),
    Feature("orders_decayed_30d", "loyalty", "count", "近期加权订单数（每过30天权重减半）", "orders, each counting half after every 30 days", lambda k, _: k.rhythm("orders_decayed_30d")),
    Feature("orders_decayed_90d", "loyalty", "count", "近期加权订单数（每过90天权重减半）", "orders, each counting half after every 90 days", lambda k, _: k.rhythm("orders_decayed_90d")),
    Feature("weekend_share", "loyalty", "share", "周末订单占比", "share of the orders placed on weekends", lambda k, _: ratio(k.sum("weekend_order_count"), k.sum("order_count"))),
    Feature("product_count", "loyalty", "count", "买过的商品种数", "distinct products bought so far", lambda k, _: k.sum("new_product_count")),
    Feature("product_repeat_share", "loyalty", "share", "复购商品占比", "share of the lines whose product was bought before",
            lambda k, _: ratio(k.sum("product_line_count") - k.sum("new_product_count"), k.sum("product_line_count"))),
    Feature("category_count", "loyalty", "count", "买过的品类数", "distinct categories bought so far", lambda k, _: k.sum("new_category_count")),
    # potential: the trend, and the highest spend so far
    Feature("amount_decayed_90d", "potential", "amount", "近期加权净消费额（每过90天权重减半）", "net amount, counting half after every 90 days", lambda k, _: k.rhythm("amount_decayed_90d")),
    Feature("amount_change_{w}d", "potential", "ratio", "近{w}天净消费额较前期的增减（-1 停购，1 新增）", "net amount of the last {w} days against the {w} days before, from -1 to 1",
            lambda k, w: change(k.sum(_SPEND, w), k.sum(_SPEND, w, w))),
    Feature("order_change_{w}d", "potential", "ratio", "近{w}天订单数较前期的增减（-1 停购，1 新增）", "orders of the last {w} days against the {w} days before, from -1 to 1",
            lambda k, w: change(k.sum("order_count", w), k.sum("order_count", w, w))),
    Feature("recent_rate_{w}d", "potential", "ratio", "近{w}天购买频率 ÷ 首购以来平均频率", "purchase days per day in the last {w} days (of the customer's life) over those since the first purchase",
            lambda k, w: ratio(k.sum("purchase_days", w) / np.minimum(w, k.since_first), ratio(k.sum("purchase_days"), k.since_first))),
    Feature("peak_day_amount", "potential", "amount", "单日最高净消费额", "net amount of the best purchase day", lambda k, _: k.rhythm("amount_peak_day")),
    Feature("peak_month_amount", "potential", "amount", "最高30天净消费额", "net amount of the best 30-day block since the first purchase", lambda k, _: k.rhythm("amount_peak_block")),
    Feature("peak_ratio", "potential", "ratio", "近30天净消费额 ÷ 历史最高30天", "net amount of the last 30 days over that of the best 30-day block",
            lambda k, _: ratio(k.sum(_SPEND, 30), k.rhythm("amount_peak_block"))),
    Feature("new_product_count_{w}d", "potential", "count", "近{w}天首次购买的商品数", "products bought for the first time in the last {w} days",
            lambda k, w: k.sum("new_product_count", w)),
    Feature("new_category_count_{w}d", "potential", "count", "近{w}天首次购买的品类数", "categories bought for the first time in the last {w} days",
            lambda k, w: k.sum("new_category_count", w)),
    # value: margin and profit by window and so far, and the cost of acquiring the customer
    Feature("margin_{w}d", "value", "amount", "近{w}天毛利", "margin of the last {w} days", lambda k, w: k.sum("margin", w)),
    Feature("margin_total", "value", "amount", "累计毛利", "margin so far", lambda k, _: k.sum("margin")),
    Feature("margin_share_{w}d", "value", "ratio", "近{w}天毛利率", "margin over the net amount of the last {w} days", lambda k, w: ratio(k.sum("margin", w), k.sum(_SPEND, w))),
    Feature("margin_share_total", "value", "ratio", "累计毛利率", "margin over the net amount so far", lambda k, _: ratio(k.sum("margin"), k.sum(_SPEND))),
    Feature("service_cost_{w}d", "value", "amount", "近{w}天服务成本", "cost of serving in the last {w} days", lambda k, w: k.sum("service_cost", w)),
    Feature("service_cost_total", "value", "amount", "累计服务成本", "cost of serving so far", lambda k, _: k.sum("service_cost")),
    Feature("service_cost_ratio", "value", "ratio", "服务成本与净消费额之比", "cost of serving over the net amount so far", lambda k, _: ratio(k.sum("service_cost"), k.sum(_SPEND))),
    Feature("profit_{w}d", "value", "amount", "近{w}天利润（毛利减服务成本）", "margin less cost of serving of the last {w} days", lambda k, w: k.sum("profit", w)),
    Feature("profit_total", "value", "amount", "累计利润（毛利减服务成本）", "margin less cost of serving so far", lambda k, _: k.sum("profit")),
    Feature("acquisition_cost", "value", "amount", "获客成本", "cost of acquiring the customer", lambda k, _: k.latest("profile", "acquisition_cost")),
    Feature("amount_to_acquisition_ratio", "value", "ratio", "累计净消费额与获客成本之比", "net amount so far over the cost of acquiring", lambda k, _: ratio(k.sum(_SPEND), k.latest("profile", "acquisition_cost"))),
    Feature("payback_ratio", "value", "ratio", "获客成本回收率（累计毛利 ÷ 获客成本）", "margin so far over the cost of acquiring (1 = paid back)", lambda k, _: ratio(k.sum("margin"), k.latest("profile", "acquisition_cost"))),
    Feature("payback_days_left", "value", "days", "预计还需多少天回本", "days until the margin, at its pace since the first purchase, has paid the cost of acquiring back",
            lambda k, _: ratio(np.maximum(k.latest("profile", "acquisition_cost") - k.sum("margin"), 0) * k.since_first, k.sum("margin"))),
    # behaviour: how the customer buys
    Feature("amount_per_30d", "behaviour", "amount", "首购以来每30天净消费额", "net amount per 30 days since the first purchase", lambda k, _: ratio(30 * k.sum(_SPEND), k.since_first)),
    Feature("amount_share_{w}d", "behaviour", "ratio", "近{w}天净消费额占累计的比例", "net amount of the last {w} days over that so far", lambda k, w: ratio(k.sum(_SPEND, w), k.sum(_SPEND))),
    Feature("order_amount_mean_{w}d", "behaviour", "amount", "近{w}天平均每单净消费额", "net amount per order of the last {w} days", lambda k, w: ratio(k.sum(_SPEND, w), k.sum("order_count", w))),
    Feature("lines_per_order_{w}d", "behaviour", "ratio", "近{w}天每单商品行数", "lines per order of the last {w} days", lambda k, w: ratio(k.sum("line_count", w), k.sum("order_count", w))),
    Feature("orders_per_purchase_day", "behaviour", "ratio", "每个购买日的订单数", "orders per day with a purchase", lambda k, _: ratio(k.sum("order_count"), k.sum("purchase_days"))),
    Feature("last_to_mean_ratio", "behaviour", "ratio", "最近购买日净消费额 ÷ 平均每购买日", "net amount of the last purchase day over that of the mean one",
            lambda k, _: ratio(k.rhythm("amount_last_day") * k.sum("purchase_days"), k.sum(_SPEND))),
    Feature("weekend_share_{w}d", "behaviour", "share", "近{w}天周末订单占比", "share of the orders of the last {w} days placed on weekends",
            lambda k, w: ratio(k.sum("weekend_order_count", w), k.sum("order_count", w))),
    Feature("return_ratio_{w}d", "behaviour", "ratio", "近{w}天退货单数与订单数之比", "orders with a return over orders, in the last {w} days", lambda k, w: ratio(k.sum("return_count", w), k.sum("order_count", w))),
    Feature("return_ratio_total", "behaviour", "ratio", "退货单数与订单数之比", "orders with a return over orders so far", lambda k, _: ratio(k.sum("return_count"), k.sum("order_count"))),
    Feature("quantity_{w}d", "behaviour", "count", "近{w}天购买件数", "units bought in the last {w} days", lambda k, w: k.sum("quantity", w)),
    Feature("quantity_per_order", "behaviour", "ratio", "每单平均件数（批量）", "units per order (bulk)", lambda k, _: ratio(k.sum("quantity"), k.sum("order_count"))),
    Feature("quantity_per_line", "behaviour", "ratio", "每行平均件数", "units per line", lambda k, _: ratio(k.sum("quantity"), k.sum("line_count"))),
    Feature("discount_share_{w}d", "behaviour", "share", "近{w}天折扣占折前金额的比例", "discount over the amount before discount, in the last {w} days",
            lambda k, w: ratio(k.sum("discount_amount", w), k.sum(_SPEND, w) + k.sum("discount_amount", w))),
    Feature("discount_line_share", "behaviour", "share", "享受折扣的商品行占比", "share of the lines bought at a discount", lambda k, _: ratio(k.sum("discount_line_count"), k.sum("line_count"))),
    Feature("rebuy_share_{w}d", "behaviour", "share", "近{w}天直接重购占比", "share of the lines of the last {w} days whose product was bought before (straight rebuy)",
            lambda k, w: ratio(k.sum("product_line_count", w) - k.sum("new_product_count", w), k.sum("product_line_count", w))),
    Feature("product_concentration", "behaviour", "share", "商品集中度（HHI）", "concentration of the lines on products: sum of squared shares",
            lambda k, _: ratio(k.sum("product_lines_squared"), k.sum("product_line_count") ** 2)),
    Feature("category_concentration", "behaviour", "share", "品类集中度（HHI）", "concentration of the lines on categories: sum of squared shares",
            lambda k, _: ratio(k.sum("category_lines_squared"), k.sum("category_line_count") ** 2)),
    Feature("channel_concentration", "behaviour", "share", "渠道集中度（HHI）", "concentration of the lines on channels: sum of squared shares",
            lambda k, _: ratio(k.sum("channel_lines_squared"), k.sum("channel_line_count") ** 2)),
    Feature("channel_count", "behaviour", "count", "用过的渠道数", "channels bought through so far", lambda k, _: k.sum("new_channel_count")),
    # season: the same days a year ago, and the quarters in which the customer buys
    Feature("order_count_year_ago_{w}d", "season", "count", "去年同日起{w}天的订单数", "orders in the {w} days that began 365 days before the date", lambda k, w: k.sum("order_count", w, 365 - w), longest=364),
    Feature("net_amount_year_ago_{w}d", "season", "amount", "去年同日起{w}天的净消费额", "net amount of the {w} days that began 365 days before the date", lambda k, w: k.sum(_SPEND, w, 365 - w), longest=364),
    Feature("amount_year_change_{w}d", "season", "ratio", "近{w}天净消费额较去年同期的增减（-1 停购，1 新增）", "net amount of the last {w} days against the same days a year ago, from -1 to 1",
            lambda k, w: change(k.sum(_SPEND, w), k.sum(_SPEND, w, 365)), longest=365),
    Feature("same_quarter_share", "season", "share", "历年同一季度的订单占比", "share of the orders placed in the date's quarter of any year", lambda k, _: ratio(_in_quarter_of(k), k.sum("order_count"))),
    Feature("quarter_concentration", "season", "share", "四个季度的订单集中度（HHI）", "concentration of the orders on the quarters of the year: sum of squared shares",
            lambda k, _: ratio(sum((orders**2 for orders in _quarters(k)), start=np.zeros(len(k.as_of))), k.sum("order_count") ** 2)),
    # lifecycle: the time since the first row and since the last purchase, against the own rhythm
    Feature("days_known", "lifecycle", "days", "距首次出现(任何记录)的天数", "days since the first row of any kind", lambda k, _: k.as_of - k.rhythm("first_seen")),
    Feature("days_since_signup", "lifecycle", "days", "距注册的天数", "days since signing up", lambda k, _: k.since("signup")),
    Feature("days_signup_to_purchase", "lifecycle", "days", "从注册到首次购买的天数", "days from signing up to the first purchase", lambda k, _: k.rhythm("first_day") - k.latest("signup", "day")),
    Feature("contract_days_left", "lifecycle", "days", "距合同到期的天数", "days until the contract ends (negative: since)", lambda k, _: k.latest("profile", "contract_end") - k.as_of),
    Feature("active_span_share", "lifecycle", "share", "首末次购买间隔占首购以来天数的比例", "share of the days since the first purchase that lie before the last",
            lambda k, _: ratio(k.rhythm("last_day") - k.rhythm("first_day"), k.since_first)),
    Feature("days_until_due", "lifecycle", "days", "按平均间隔距下次购买的天数(负为已逾期)", "days until the next purchase is due by the mean gap (negative: overdue)", lambda k, _: k.gap_mean - k.since_last),
    Feature("silence_score", "lifecycle", "ratio", "沉默程度:超出平均间隔的标准差倍数", "silence against the own rhythm: days beyond the mean gap in standard deviations of the gaps", lambda k, _: ratio(k.since_last - k.gap_mean, k.gap_std)),
    # btyd: the sufficient statistics of buy-till-you-die models (Fader, Hardie and Lee 2005), in days
    Feature("btyd_frequency", "btyd", "count", "重复购买天数", "days with a repeat purchase", lambda k, _: np.where(k.sum("purchase_days") > 0, k.sum("purchase_days") - 1, np.nan)),
    Feature("btyd_recency_days", "btyd", "days", "首购到末购的天数", "days from the first to the last purchase", lambda k, _: k.rhythm("last_day") - k.rhythm("first_day")),
    Feature("btyd_age_days", "btyd", "days", "首购到当前的天数", "days from the first purchase to the date", lambda k, _: k.since_first),
    Feature("btyd_spend_mean", "btyd", "amount", "重复购买日平均净额", "net amount per day with a repeat purchase: all but the first purchase day's, over those days",
            lambda k, _: ratio(k.sum(_SPEND) - k.rhythm("amount_first_day"), k.sum("purchase_days") - 1)),
)  # fmt: skip
