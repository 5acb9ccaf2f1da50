"""What inputs tell of attributes that they leave out: planted stand-ins are found, chance is chance, few are hidden."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tiermodel.arrays import Floats
from tiermodel.evaluation.proxy_audit import proxy_scan
from tiermodel.evaluation.slices import FEWEST

NAMES = [f"input_{k}" for k in range(12)]


def inputs(n: int, seed: int = 1) -> Floats:
    """Draw inputs, skew as amounts are, one value in ten unknown."""
    rng = np.random.default_rng(seed)
    x = rng.lognormal(size=(n, len(NAMES)))
    x[rng.random(x.shape) < 0.1] = np.nan
    return x


def audited(**attributes: Floats) -> pd.DataFrame:
    return pd.DataFrame({f"audited_{name}": values for name, values in attributes.items()})


def test_a_planted_proxy_is_found_and_named() -> None:
    x = inputs(600)
    rng = np.random.default_rng(2)
    known = np.nan_to_num(x)
    frame = audited(
        two=np.where(known[:, 4] > 1, 7.0, 0.0),
        middle=np.digitize(known[:, 9], [0.6, 1.4]).astype(float),  # the middle one of three: no straight line tells it
        age=np.round(40 + 10 * np.log(np.nan_to_num(x[:, 2], nan=1.0)) + rng.normal(size=600)),
        unknown=np.isnan(x[:, 6]).astype(float),  # being known may tell as well
    )
    found = {row["attribute"]: row for row in proxy_scan(frame, x, NAMES, seed=7)}
    planted = {
        "two": (4, "auc", 2),
        "middle": (9, "auc", 3),
        "age": (2, "rank_correlation", None),
        "unknown": (6, "auc", 2),
    }
    assert list(found) == list(planted)
    for attribute, (column, metric, groups) in planted.items():
        row = found[attribute]
        assert (row["metric"], row["groups"], row["customers"]) == (metric, groups, 600)
        assert row["chance"] + 0.4 < row["low"] <= row["told"] <= row["high"] <= 1
        assert row["told"] > 0.85
        assert row["inputs"][0]["feature"] == NAMES[column]
        assert row["inputs"][0]["told"] > 0.85
        for other in row["inputs"][1:]:
            assert other["told"] < row["inputs"][0]["told"] - 0.2


def test_an_attribute_that_has_nothing_to_do_with_the_inputs_is_told_by_chance_and_by_none_of_them() -> None:
    held: list[bool] = []
    told: dict[str, list[float]] = {"coin": [], "three": [], "age": []}
    for seed in range(12):
        rng = np.random.default_rng(seed)
        frame = audited(
            coin=rng.integers(0, 2, 300).astype(float),
            three=rng.integers(0, 3, 300).astype(float),
            age=rng.normal(40, 10, 300),
        )
        for row in proxy_scan(frame, inputs(300, seed), NAMES, seed=7):
            told[row["attribute"]].append(row["told"] - row["chance"])
            held.append(row["low"] <= row["chance"] <= row["high"])
            assert len(row["inputs"]) == (3 if row["low"] > row["chance"] else 0)
    for name, figures in told.items():
        assert abs(np.mean(figures)) < 0.06, name
    assert np.mean(held) > 0.8


def test_inputs_named_beside_a_planted_one_tell_by_chance_although_they_were_chosen() -> None:
    figures: list[float] = []
    for seed in range(12):
        x = inputs(300, seed)
        (row,) = proxy_scan(audited(kind=(np.nan_to_num(x[:, 4]) > 1).astype(float)), x, NAMES, seed=7)
        assert row["low"] > row["chance"]
        best, *others = row["inputs"]
        assert best["feature"] == NAMES[4]
        figures += [other["told"] - row["chance"] for other in others]
    assert len(figures) == 24
    assert abs(np.mean(figures)) < 0.04


def test_small_groups_and_attributes_known_of_few_are_hidden() -> None:
    n = 200
    x = inputs(n)
    values = np.repeat([1.0, 2.0, 3.0], [100, n - 100 - (FEWEST - 1), FEWEST - 1])
    few = np.where(np.arange(n) < FEWEST - 1, np.arange(n) * 1.0, np.nan)
    (row,) = proxy_scan(
        audited(
            some=values, one=np.where(values == 2, 3, values) * 0, two_small=np.where(values == 3, 5.0, 4.0), few=few
        ),
        x,
        NAMES,
        seed=7,
    )
    assert (row["attribute"], row["groups"], row["customers"]) == ("some", 2, n - FEWEST + 1)
    without = values != 3
    same = proxy_scan(audited(some=values[without]), x[without], NAMES, seed=7)
    assert list(same) == [row]  # the hidden group leaves no trace in what is shown
    enough = np.where(np.arange(n) < FEWEST, np.arange(n) * 1.0, np.nan)
    assert [row["customers"] for row in proxy_scan(audited(few=enough), x, NAMES, seed=7)] == [FEWEST]


def test_a_text_attribute_is_told_as_its_values_numbered_would_be() -> None:
    x = inputs(600)
    kind = np.digitize(np.nan_to_num(x[:, 4]), [0.6, 1.4])
    texts = pd.DataFrame({"audited_kind": pd.Series(np.array(["a", "b", "c"])[kind]).mask(x[:, 1] > 5)})
    numbers = audited(kind=np.where(x[:, 1] > 5, np.nan, kind.astype(float)))
    assert list(proxy_scan(texts, x, NAMES, seed=7)) == list(proxy_scan(numbers, x, NAMES, seed=7))
    many = pd.DataFrame({"audited_kind": [f"v{n % 12}" if n < 480 else f"w{n}" for n in range(600)]})
    (row,) = proxy_scan(many, x, NAMES, seed=7)  # the most frequent values only, never their order
    assert (row["metric"], row["groups"]) == ("auc", 8)


def test_the_attribute_itself_is_no_proxy_and_the_same_data_give_the_same_figures() -> None:
    x = inputs(300)
    kind = (np.nan_to_num(x[:, 0]) > 1).astype(float)
    x[:, 3] = kind + np.random.default_rng(2).normal(0, 0.5, 300)  # tells much of it; the attribute would tell all
    frame = audited(kind=kind)
    names = ["attribute_kind", *NAMES[1:]]
    (row,) = proxy_scan(frame, x, names, seed=7)
    assert 0.5 < row["low"] < row["told"] < 0.95
    assert row["inputs"][0]["feature"] == NAMES[3]
    assert row["inputs"][0]["told"] < 0.95
    assert "attribute_kind" not in {one["feature"] for one in row["inputs"]}
    assert list(proxy_scan(frame, x, names, seed=7)) == [row]


def test_of_many_customers_ten_thousand_are_looked_at() -> None:
    x = inputs(10_500)[:, :3]
    frame = audited(kind=(np.nan_to_num(x[:, 1]) > 1).astype(float))
    (row,) = proxy_scan(frame, x, NAMES[:3], seed=7)
    assert row["customers"] == 10_000
    assert row["inputs"][0]["feature"] == NAMES[1]
