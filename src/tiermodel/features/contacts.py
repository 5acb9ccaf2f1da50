"""The features of everything but purchases: contacts and responses, service and satisfaction, payment."""

# ruff: noqa: E501, RUF100 one line per feature reads as the table it is

from __future__ import annotations

from tiermodel.arrays import Floats
from tiermodel.config.project import FeatureGroup
from tiermodel.features.formula import Feature, FeatureContext, change, ratio

__all__ = ["CONTACTS"]


_ENGAGEMENT = {
    "visit": ("访问", "visits"),
    "click": ("点击", "clicks"),
    "campaign": ("营销触达", "campaigns sent"),
    "response": ("营销响应", "campaigns answered"),
    "meeting": ("会面", "meetings"),
    "referral": ("转介绍", "referrals"),
}
_SERVICE = {
    "complaint": ("投诉", "complaints"),
    "ticket": ("服务工单", "tickets"),
    "survey": ("调查反馈", "surveys answered"),
}


def _counts(group: FeatureGroup, kind: str, zh: str, en: str) -> tuple[Feature, ...]:
    """Return the features of one kind of event: count by window, count so far, days since the latest."""
    measure = f"{kind}_count"
    return (
        Feature(f"{measure}_{{w}}d", group, "count", f"近{{w}}天{zh}次数", f"{en} in the last {{w}} days", lambda k, w: k.sum(measure, w)),
        Feature(f"{measure}_total", group, "count", f"累计{zh}次数", f"{en} so far", lambda k, _: k.sum(measure)),
        Feature(f"days_since_{kind}", group, "days", f"距最近一次{zh}的天数", f"days since the latest of {en}", lambda k, _: k.since(kind)),
    )  # fmt: skip


def _score(k: FeatureContext, days: int | None = None) -> Floats:
    return ratio(k.sum("survey_score", days), k.sum("survey_score_count", days))


CONTACTS: tuple[Feature, ...] = (
    # engagement: visits, and responses to campaigns
    *(feature for kind, words in _ENGAGEMENT.items() for feature in _counts("engagement", kind, *words)),
    Feature("response_ratio_{w}d", "engagement", "ratio", "近{w}天响应次数与触达次数之比", "campaigns answered over campaigns sent, in the last {w} days", lambda k, w: ratio(k.sum("response_count", w), k.sum("campaign_count", w))),
    Feature("response_ratio_total", "engagement", "ratio", "响应次数与触达次数之比", "campaigns answered over campaigns sent so far", lambda k, _: ratio(k.sum("response_count"), k.sum("campaign_count"))),
    Feature("visit_change_{w}d", "engagement", "ratio", "近{w}天与此前{w}天访问次数的变化(-1到1)", "visits of the last {w} days against the {w} days before, from -1 to 1", lambda k, w: change(k.sum("visit_count", w), k.sum("visit_count", w, w))),
    Feature("orders_per_visit", "engagement", "ratio", "订单数与访问次数之比", "orders over visits so far", lambda k, _: ratio(k.sum("order_count"), k.sum("visit_count"))),
    # service: complaints, tickets and satisfaction
    *(feature for kind, words in _SERVICE.items() for feature in _counts("service", kind, *words)),
    Feature("complaints_per_order", "service", "ratio", "投诉次数与订单数之比", "complaints over orders so far", lambda k, _: ratio(k.sum("complaint_count"), k.sum("order_count"))),
    Feature("tickets_per_order", "service", "ratio", "工单数与订单数之比", "tickets over orders so far", lambda k, _: ratio(k.sum("ticket_count"), k.sum("order_count"))),
    Feature("survey_score_last", "service", "number", "最近一次调查评分", "score of the latest survey", lambda k, _: k.latest("survey")),
    Feature("survey_score_mean", "service", "number", "平均调查评分", "mean score of the surveys so far", lambda k, _: _score(k)),
    Feature("survey_score_mean_{w}d", "service", "number", "近{w}天平均调查评分", "mean score of the surveys of the last {w} days", _score),
    # credit: whether invoices are paid, and when
    Feature("invoice_count_{w}d", "credit", "count", "近{w}天账单数", "invoices issued in the last {w} days", lambda k, w: k.sum("invoice_count", w)),
    Feature("invoice_amount_{w}d", "credit", "amount", "近{w}天账单金额", "amount invoiced in the last {w} days", lambda k, w: k.sum("invoice_amount", w)),
    Feature("open_amount", "credit", "amount", "未付账单金额", "amount invoiced and not paid", lambda k, _: k.sum("open_amount")),
    Feature("overdue_amount", "credit", "amount", "逾期未付金额", "amount past its due day and not paid", lambda k, _: k.sum("overdue_amount")),
    Feature("overdue_count", "credit", "count", "逾期未付账单数", "invoices past their due day and not paid", lambda k, _: k.sum("overdue_count")),
    Feature("overdue_days_mean", "credit", "days", "逾期账单平均逾期天数", "mean days past the due day of the invoices not paid", lambda k, _: k.as_of - ratio(k.sum("overdue_due_days"), k.sum("overdue_count"))),
    Feature("overdue_amount_ratio", "credit", "ratio", "逾期金额占未付金额之比", "amount past its due day over the amount not paid", lambda k, _: ratio(k.sum("overdue_amount"), k.sum("open_amount"))),
    Feature("late_share_{w}d", "credit", "share", "近{w}天逾期付款占比", "share of the payments of the last {w} days made after the due day", lambda k, w: ratio(k.sum("paid_late_count", w), k.sum("paid_count", w))),
    Feature("late_share_total", "credit", "share", "逾期付款占比", "share of the payments so far made after the due day", lambda k, _: ratio(k.sum("paid_late_count"), k.sum("paid_count"))),
    Feature("days_late_mean_{w}d", "credit", "days", "近{w}天付款的平均逾期天数（按期计 0）", "mean days late of the payments of the last {w} days (in time: 0)", lambda k, w: ratio(k.sum("days_late", w), k.sum("paid_count", w))),
    Feature("days_late_mean", "credit", "days", "平均逾期天数（按期计 0）", "mean days late of the payments so far (in time: 0)", lambda k, _: ratio(k.sum("days_late"), k.sum("paid_count"))),
    Feature("days_to_pay_mean_{w}d", "credit", "days", "近{w}天付款的平均实际付款天数", "mean days from issue to payment of the payments of the last {w} days", lambda k, w: ratio(k.sum("days_to_pay", w), k.sum("paid_count", w))),
    Feature("days_to_pay_mean", "credit", "days", "平均实际付款天数（DSO）", "mean days from issue to payment so far", lambda k, _: ratio(k.sum("days_to_pay"), k.sum("paid_count"))),
    Feature("days_since_payment", "credit", "days", "距最近一次付款的天数", "days since the latest payment", lambda k, _: k.since("paid", "part_paid")),
    Feature("dispute_count_{w}d", "credit", "count", "近{w}天争议账单数", "invoices disputed in the last {w} days", lambda k, w: k.sum("dispute_count", w)),
    Feature("dispute_ratio", "credit", "ratio", "争议账单与账单数之比", "invoices disputed over invoices so far", lambda k, _: ratio(k.sum("dispute_count"), k.sum("invoice_count"))),
)  # fmt: skip
