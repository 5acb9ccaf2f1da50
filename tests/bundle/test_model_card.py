"""The model card: both languages, the items that the law asks for, and not one number that the run does not hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss, mean_absolute_error, roc_auc_score

from tiermodel.bundle.bundle import Bundle
from tiermodel.bundle.model_card import model_card, number
from tiermodel.evaluation.metrics import ece
from tiermodel.features.panel import build_panel
from tiermodel.segments.profiles import segment_lines
from worlds import TrainedWorld

NUMBER = re.compile(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w-])")


@pytest.fixture(scope="module")
def card(trained: TrainedWorld) -> str:
    return (trained.bundle / "card.md").read_text(encoding="utf-8")


def test_the_card_comes_in_both_languages_the_projects_first(card: str, trained: TrainedWorld) -> None:
    english, chinese = card.split("\n---\n")
    assert english.startswith("# small-world: model card")
    assert chinese.strip().startswith("# small-world：模型说明卡")
    assert len(re.findall("^## ", english, re.MULTILINE)) == len(re.findall("^## ", chinese, re.MULTILINE)) == 10
    for ours, theirs in (("## How good it was", "## 效果"), ("## Limits", "## 局限")):
        told = [text.split(head)[1].split("\n## ")[0] for text, head in ((english, ours), (chinese, theirs))]
        assert sorted(NUMBER.findall(told[0])) == sorted(NUMBER.findall(told[1]))
    zh = {**trained.trained.bundle.settings, "language": "zh"}
    assert written(trained.trained.bundle, settings=zh).startswith("# small-world：模型说明卡")


def written(bundle: Bundle, **other: Any) -> str:
    parts = ("name", "settings", "facts", "features", "scheme", "segments")
    return model_card(*(other.get(name, getattr(bundle, name)) for name in parts))


def test_the_card_says_how_levels_with_a_capacity_fill(card: str, trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    level = {"tier": "major", "places": 8, "asked": 20, "fixed": 0, "no_place": 12, "cut": 900.0}
    told = written(bundle, facts={**bundle.facts, "capacity": [level]})
    assert "- major: 8 places, 20 customers for them, of whom 12 find none and go to the next lower level\n" in told
    assert "- 重要客户：8 个名额，20 位客户应在此级，其中 12 位没有名额，按优先次序进入下一级\n" in told
    assert "places" not in card


def leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        for value in data.values():
            yield from leaves(value)
    elif isinstance(data, list | tuple):
        for value in data:
            yield from leaves(value)
    else:
        yield data


def known(world: TrainedWorld) -> Iterator[str]:
    """List every number that the card may show, as it would show it."""
    bundle = world.trained.bundle
    yield from ("24", "95", "3", "1", "30")  # the article of the law, the level of the intervals, reason_1 to reason_3
    yield str(len(bundle.scheme.scheme.levels))
    for value in leaves([bundle.facts, bundle.settings]):
        if isinstance(value, int | float):
            yield from (str(value), number(value))
        else:
            yield from NUMBER.findall(str(value))
    for language in ("zh", "en"):
        for line in bundle.scheme.rules(bundle.features, language):
            yield from NUMBER.findall(line)
    for language in ("zh", "en"):
        for line in segment_lines(bundle.segments, bundle.features, language):
            yield from NUMBER.findall(line)
        for feature in bundle.features.values():
            yield from NUMBER.findall(feature.zh + " " + feature.en)
    for row in [*bundle.facts["importance"]["churn"], *bundle.facts["importance"]["value"]]:
        yield from (
            number(row["size"]),
            *NUMBER.findall("" if row["direction"] is None else f"{row['direction']:+.2f}"),
        )
    yield number(100 * bundle.settings["value"]["clv"]["annual_rate"])
    groups = [bundle.features[name].group for name in bundle.inputs.names]
    yield from {str(groups.count(group)) for group in groups}
    yield str(len(bundle.facts["later_dates"]))
    level = bundle.facts["level"]
    yield from (f"{level['churn_points']:.1f}", *(f"{100 * level[f'value_{end}']:.0f}" for end in ("low", "high")))
    yield "90"  # the coverage of how far levels may be off


def test_a_level_that_nobody_reaches_is_named(trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    facts = {**bundle.facts, "empty_levels": ["major"]}
    told = model_card(bundle.name, bundle.settings, facts, bundle.features, bundle.scheme, bundle.segments)
    assert "no customer reaches: major" in told
    assert "没有客户达到等级：重要客户" in told
    assert "empty_levels" not in bundle.facts


def test_a_level_of_an_unseen_season_is_said_to_be_uncertain(trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    level = {"year_seen": False, "churn_points": 4.2, "value_low": -0.3, "value_high": 0.43}
    told = written(bundle, facts={**bundle.facts, "level": level})
    assert "churn risk may be off by ±4.2 points, total expected value by -30 % to +43 % (90 %)" in told
    assert "平均流失风险可能偏差 ±4.2 个百分点，预期价值合计可能偏差 -30 % 至 +43 %" in told
    assert "may be off" not in written(bundle, facts={**bundle.facts, "level": {**level, "year_seen": True}})
    own = bundle.facts["level"]
    assert 0 < own["churn_points"] < 25
    assert -1 < own["value_low"] < 0 < own["value_high"]


def test_every_number_of_the_card_is_one_of_the_run(card: str, trained: TrainedWorld, audited: TrainedWorld) -> None:
    for world, text in ((trained, card), (audited, (audited.bundle / "card.md").read_text(encoding="utf-8"))):
        shown = NUMBER.findall(text)
        assert len(shown) > 60
        assert sorted(set(shown) - set(known(world))) == []


def test_the_card_says_what_the_inputs_tell_of_audited_attributes(card: str, audited: TrainedWorld) -> None:
    assert "stand in for" not in card  # nothing to audit by
    bundle = audited.trained.bundle
    found = {row["attribute"]: row for row in bundle.facts["proxies"]}
    assert list(found) == ["coin", "income"]  # of a third attribute too few are known
    assert found["income"]["told"] > 0.9
    assert found["income"]["inputs"][0]["feature"] == "order_amount_mean"
    assert found["coin"]["low"] <= 0.5 <= found["coin"]["high"]
    assert found["coin"]["inputs"] == []
    english, chinese = (audited.bundle / "card.md").read_text(encoding="utf-8").split("\n---\n")
    assert "Can the inputs stand in for an attribute that they leave out?" in english
    assert "输入会不会替代没有作为输入的属性？" in chinese
    for attribute, row in found.items():
        cells = (number(row[key]) for key in ("customers", "told", "low", "high", "chance"))
        line = "| {} | {} | AUC | {} [{}, {}] | {} | ".format(attribute, *cells)
        for text, language, nothing in (
            (english, "en", "none: no better than chance"),
            (chinese, "zh", "无：不高于随机水平"),
        ):
            (told,) = (rest for rest in text.splitlines() if rest.startswith(line))
            assert (told == f"{line}{nothing} |") == (attribute == "coin")
            for one in row["inputs"][:1]:
                assert f"{getattr(bundle.features[one['feature']], language)} {number(one['told'])}" in told
    nobody = written(bundle, facts={**bundle.facts, "proxies": []})
    assert "Attributes and groups of fewer than 30 customers are not shown." in nobody


def test_the_card_has_the_tiers_of_each_audited_group_and_hides_few(card: str, audited: TrainedWorld) -> None:
    assert "Who of each group" not in card
    bundle = audited.trained.bundle
    rows = {(row["attribute"], row["group"]): row for row in bundle.facts["shares"]}
    assert {("income", "1"), ("income", "2"), ("coin", "0"), ("coin", "1")} <= set(rows)
    assert all(row["customers"] >= 30 for row in rows.values())
    top = bundle.scheme.scheme.codes[-1]
    poor, rich = (rows["income", group]["tiers"][top] for group in ("1", "2"))
    assert rich is not None
    assert rich[0] > (poor or [0.0])[0]
    for row in rows.values():
        shares = list(row["tiers"].values())
        assert shares.count(None) != 1
        known = [share for share in shares if share is not None]
        assert all(low <= share <= high for share, low, high in known)
        assert all(share == 0 or share * row["customers"] > 4.9 for share, _, _ in known)
        assert None in shares or abs(sum(share for share, _, _ in known) - 1) < 1e-3
    english = (audited.bundle / "card.md").read_text(encoding="utf-8").split("\n---\n")[0]
    n, name = number(rows["income", "2"]["customers"]), bundle.scheme.scheme.names("en")[-1]
    assert "| income | 2 | {} | {} | {} [{}, {}] |".format(n, name, *map(number, rich)) in english


def test_the_figures_are_those_of_the_out_of_time_predictions(card: str, trained: TrainedWorld) -> None:
    later, facts = trained.trained.out_of_fold, trained.trained.bundle.facts
    churn, value = later["churn"], later["value"]
    y, p = churn["actual"].to_numpy(), churn["predicted"].to_numpy()
    shown = {
        "log_loss": log_loss(y, p), "auc": roc_auc_score(y, p), "rate": y.mean(), "ece": ece(y, p),
        "mae": mean_absolute_error(value["actual"], value["predicted"]),
    }  # fmt: skip
    for name, figure in shown.items():
        assert re.search(rf"\b{name} {re.escape(number(float(figure)))}\b", card), name
    for target, name in (("churn", "log_loss"), ("churn", "auc"), ("value", "mae"), ("value", "gini")):
        low, high = facts["intervals"][target][name]
        assert low < facts["later"][target][name] < high
        assert f"[{number(low)}, {number(high)}]" in card
    assert facts["later_dates"] == sorted({str(day.date()) for day in churn["as_of"]})


def test_the_groups_are_counted_by_hand(trained: TrainedWorld) -> None:
    churn = trained.trained.out_of_fold["churn"]
    panel = build_panel(trained.project, sorted({day.date() for day in churn["as_of"]}), with_outcome=True)
    rows = churn.astype({"as_of": panel["as_of"].dtype}).merge(panel, on=["customer_id", "as_of"])
    edges = {"1": (1, 1), "2-3": (2, 3), "4-9": (4, 9), "10+": (10, np.inf)}
    found = {row["group"]: row for row in trained.trained.bundle.facts["slices"] if row["by"] == "purchase_days"}
    assert found
    for group, row in found.items():
        low, high = edges[group]
        mine = rows[rows["purchase_days_total"].between(low, high)]
        assert row["n"] == len(mine)
        assert row["rate"] == pytest.approx((mine["outcome_purchase_days"] == 0).mean())
        assert row["mean_risk"] == pytest.approx(mine["predicted"].mean())
        assert row["value_mean"] == pytest.approx(mine["outcome_value"].mean())
    tiers = [row for row in trained.trained.bundle.facts["slices"] if row["by"] == "tier"]
    assert {row["group"] for row in tiers} <= set(trained.trained.bundle.scheme.scheme.codes)
    codes = dict(enumerate(trained.trained.bundle.scheme.scheme.codes))
    level = pd.Series(trained.trained.bundle.scheme.assign(rows)[0]).map(codes)
    assert {row["group"]: row["n"] for row in tiers} == {k: n for k, n in level.value_counts().items() if n >= 30}


def test_weak_groups_and_short_histories_are_named(trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    weak = {
        "by": "tier", "group": "small", "n": 500, "rate": 0.5, "mean_risk": 0.2, "log_loss": 0.9, "auc": 0.5,
        "ece": 0.3, "ece_by_chance": 0.05, "value_mean": None, "expected_mean": None, "value_mae": None,
    }  # fmt: skip
    facts = {**bundle.facts, "slices": [weak], "history_days": 200}
    text = written(bundle, facts=facts)
    assert "tier small: the calibration error 0.3 is beyond chance (0.05)" in text
    assert "The data span 200 days, less than a year" in text
    assert "等级 small：校准误差 0.3 超出随机波动范围 0.05" in text
    short = written(bundle, facts={**facts, "slices": [], "later": {}, "later_dates": []})
    assert "The history is too short for a later date: no figure can be given" in short


HOSTILE = "<script>x</script>|`a`b`\n# head [x](javascript:1) [y]: z <img src=x>"


def test_names_are_text_in_the_card(trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    scheme = bundle.scheme.scheme
    levels = [level.model_copy(update={"name_en": HOSTILE, "name_zh": HOSTILE}) for level in scheme.levels]
    hostile = replace(bundle.scheme, scheme=scheme.model_copy(update={"levels": levels, "name_en": HOSTILE}))
    slices = [{**row, "by": HOSTILE, "group": HOSTILE} for row in bundle.facts["slices"]]
    facts = {**bundle.facts, "slices": slices}
    text = written(bundle, facts=facts, scheme=hostile)
    plain = (trained.bundle / "card.md").read_text(encoding="utf-8")
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"\]\(|\]:", text)
    assert len(re.findall("^#", text, re.MULTILINE)) == len(re.findall("^#", plain, re.MULTILINE))
    bars = [line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")]
    assert bars == [line.count("|") for line in plain.splitlines() if line.startswith("|")]
