"""Readable trees: splits that separate nothing are left out, and no row changes its level."""

from __future__ import annotations

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeRegressor

from tiermodel.models.learners.readable_tree import freeze, leaf_of, node_conditions, without_idle_splits

NAMES = ["a", "b", "c"]


@given(st.integers(0, 200), st.integers(2, 16), st.integers(1, 4), st.booleans())
def test_without_idle_splits_no_row_changes_its_level(seed: int, leaves: int, levels: int, missing: bool) -> None:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(200, 3)).round(2)
    if missing:
        x[draw.random(x.shape) < 0.2] = np.nan
    frame = pd.DataFrame(x, columns=NAMES)
    grown = DecisionTreeRegressor(max_leaf_nodes=leaves, random_state=seed).fit(x, draw.normal(size=200))
    tree, leaf = freeze(grown.tree_, NAMES, frame)
    level = draw.integers(0, levels, leaf.max() + 1)
    short, became = without_idle_splits(tree, level)
    now = leaf_of(short, frame)
    assert (became[leaf] == now).all()
    of_leaf = level[np.unique(became, return_index=True)[1]]
    assert (of_leaf[now] == level[leaf]).all()
    inner = [n for n, name in enumerate(short["feature"]) if name is not None]
    number = np.cumsum([name is None for name in short["feature"]]) - 1
    for n in inner:  # no two leaves side by side have one level
        pair = short["left"][n], short["right"][n]
        assert min(pair) > n
        if all(short["feature"][child] is None for child in pair):
            assert of_leaf[number[pair[0]]] != of_leaf[number[pair[1]]]
    assert len(node_conditions(short, NAMES)) == len(short["feature"]) == 2 * len(of_leaf) - 1


def test_a_tree_of_one_level_has_one_leaf() -> None:
    frame = pd.DataFrame({"a": np.arange(8.0)})
    grown = DecisionTreeRegressor(max_leaf_nodes=4, random_state=0).fit(frame.to_numpy(), np.arange(8.0))
    tree, leaf = freeze(grown.tree_, ["a"], frame)
    short, became = without_idle_splits(tree, np.full(leaf.max() + 1, 2))
    assert (short["feature"], became.tolist()) == ([None], [0, 0, 0, 0])
    assert leaf_of(short, frame).tolist() == [0] * 8
