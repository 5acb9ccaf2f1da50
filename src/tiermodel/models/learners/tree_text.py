"""The text of boosted trees, checked before LightGBM parses it: its parser trusts what the text says of itself.

A length, a position or a number that is wrong makes LightGBM read beyond its arrays, or walk a circle for good. What is
let through is the form that our own fits have: one target, numeric splits, constant leaves.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tiermodel.arrays import Floats, Ints
from tiermodel.errors import ModelError

__all__ = ["MOST_LEAVES", "check_tree_text", "model_part"]

MOST_LEAVES = 1024
"""The most leaves of a tree, as in `models.churn.trees.num_leaves`."""
_MOST_TREES = 10_000
_FIRST = ("tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0")
_OBJECTIVES = {
    "binary": re.compile(r"binary sigmoid:1"),
    "tweedie": re.compile(r"tweedie( tweedie_variance_power:1\.\d+)?"),
}
_END = "\nend of trees\n"
_TREE, _AFTER = "Tree", 2  # each tree begins with its number, and ends with two empty lines
_OF_TREE = ("num_leaves", "num_cat", "is_linear", "shrinkage")
_OF_SPLIT = (
    "split_feature", "split_gain", "threshold", "decision_type", "left_child", "right_child", "internal_value",
    "internal_weight", "internal_count",
)  # fmt: skip
_OF_LEAF = ("leaf_value", "leaf_weight", "leaf_count")
_KEYS = (
    _TREE, "num_leaves", "num_cat", *_OF_SPLIT[:6], *_OF_LEAF, *_OF_SPLIT[6:], "is_linear", "shrinkage",
)  # fmt: skip
_DECISIONS = (0, 2, 4, 6, 8, 10)  # of numeric splits: where missing values go, and what counts as one
_WHOLE = {
    "num_leaves", "num_cat", "split_feature", "decision_type", "left_child", "right_child", "leaf_count",
    "internal_count", "is_linear",
}  # fmt: skip
_NUMBERS, _WHOLE_NUMBERS = re.compile(r"[-+.e0-9 ]*"), re.compile(r"[-0-9 ]*")
_THRESHOLDS = re.compile(r"(([-+.e0-9]+|inf)( |$))*")  # infinite where a split tells missing values from known ones
_RANGE = re.compile(r"none|\[([-+.e0-9]+):([-+.e0-9]+)\]")
_SHOWN = 40


def model_part(text: str) -> str:
    """Return the part of a text that predictions depend on: without importances and the parameters of the fit."""
    return text.partition(_END)[0] + _END


def check_tree_text(text: str, names: Sequence[str], objective: Literal["binary", "tweedie"], where: object) -> None:
    """Raise `ModelError` where a text is not that of trees on inputs of these names; it names `where`, key and value.

    >>> check_tree_text("tree", ["days_since_last"], "binary", "churn.txt")
    Traceback (most recent call last):
    tiermodel.errors.ModelError: churn.txt: 'end of trees' is missing: the file is cut off; copy the bundle again, ...
    """
    try:
        if _END not in text:
            _refuse("'end of trees' is missing: the file is cut off")
        head, _, trees = text.partition(_END)[0].partition("\n\n")
        sizes = _check_head(head.split("\n"), names, objective)
        _Trees(trees + "\n", sizes).check(len(names))
    except _Wrong as wrong:
        raise ModelError(f"{where}: {wrong}; copy the bundle again, or train it again") from None


class _Wrong(Exception):  # noqa: N818  it never leaves this module
    pass


def _refuse(told: str) -> None:
    raise _Wrong(told)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _check_head(lines: list[str], names: Sequence[str], objective: str) -> list[int]:
    """Check the lines before the first tree; return the sizes of the trees in bytes."""
    for found, wanted in zip(lines, _FIRST, strict=False):
        if found != wanted:
            _refuse(f"the line {wanted!r} is {_shown(found)}")
    pairs = [line.partition("=")[::2] for line in lines[len(_FIRST) :]]
    keys = [key for key, _ in pairs]
    wanted_keys = ["max_feature_idx", "objective", "feature_names", "feature_infos", "tree_sizes"]
    if [key for key in keys if key != "monotone_constraints"] != wanted_keys or len(keys) > len(wanted_keys) + 1:
        _refuse(f"the keys before the first tree are {_shown(keys)}, not {wanted_keys}")
    given = dict(pairs)
    if given["max_feature_idx"] != str(len(names) - 1):
        _refuse(f"max_feature_idx is {_shown(given['max_feature_idx'])}, but there are {len(names)} inputs")
    if not _OBJECTIVES[objective].fullmatch(given["objective"]):
        _refuse(f"objective is {_shown(given['objective'])}, not {objective}")
    if tuple(given["feature_names"].split(" ")) != tuple(names):
        _refuse(f"feature_names: the trees were trained on {_shown(given['feature_names'])}, not on {list(names)[:3]}…")
    _check_ranges(given, len(names))
    sizes = given["tree_sizes"]
    if not re.fullmatch(r"[0-9]{1,9}( [0-9]{1,9})*", sizes):
        _refuse(f"tree_sizes are {_shown(sizes)}: not a whole number for each tree")
    if sizes.count(" ") >= _MOST_TREES:
        _refuse(f"tree_sizes: {sizes.count(' ') + 1} trees are more than {_MOST_TREES}")
    return [int(size) for size in sizes.split(" ")]


def _check_ranges(given: dict[str, str], width: int) -> None:
    ranges = [_RANGE.fullmatch(one) for one in given["feature_infos"].split(" ")]
    if len(ranges) != width or any(found is None for found in ranges):
        _refuse(f"feature_infos: not one range, or none, for each of {width} inputs")
    if (ways := given.get("monotone_constraints")) is not None and (
        len(ways.split(" ")) != width or not set(ways.split(" ")) <= {"-1", "0", "1"}
    ):
        _refuse(f"monotone_constraints are {_shown(ways)}: not -1, 0 or 1 for each of {width} inputs")


class _Trees:
    """The lines of all trees, by key; numbers of all trees are read at once, since there are hundreds of them."""

    def __init__(self, text: str, sizes: list[int]) -> None:
        lines, step = text.split("\n"), len(_KEYS) + _AFTER
        self.count = len(sizes)
        if len(lines) != step * self.count + 1:
            _refuse(f"tree_sizes has {self.count} trees, but {len(lines) - 1} lines hold {(len(lines) - 1) / step:.4g}")
        self.lines = {key: lines[k::step][: self.count] for k, key in enumerate(_KEYS)}
        if any("".join(lines[len(_KEYS) + k :: step]) for k in range(_AFTER)):
            _refuse("two empty lines do not follow every tree")
        found = np.add.reduceat([len(line.encode()) + 1 for line in lines[:-1]], np.arange(self.count) * step)
        for n, (size, wanted) in enumerate(zip(found.tolist(), sizes, strict=True)):
            if size != wanted:
                _refuse(f"tree_sizes of tree {n} is {wanted}, but it has {size} bytes")

    def numbers(self, key: str) -> tuple[Floats, Ints]:
        """Return the numbers of a key of all trees, one after the other, and how many each tree has."""
        start, allowed = f"{key}=", _WHOLE_NUMBERS if key in _WHOLE else _NUMBERS
        allowed = _THRESHOLDS if key == "threshold" else allowed
        texts = [line.removeprefix(start) for line in self.lines[key]]
        for n, (line, text) in enumerate(zip(self.lines[key], texts, strict=True)):
            if not line.startswith(start) or not allowed.fullmatch(text):
                _refuse(f"{key} of tree {n} is {_shown(line)}")
        counts = np.array([len(text.split(" ")) if text else 0 for text in texts])
        try:
            values = np.array(" ".join(text for text in texts if text).split(" "), dtype=np.float64)
        except ValueError as error:
            raise _Wrong(f"{key} has something that is no number: {_shown(str(error))}") from None
        wrong = np.isinf(values) if key != "threshold" else values == -np.inf
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            _refuse(f"{key} of tree {self._tree(counts, at)} is {values[at]}, not a finite number")
        return values, counts

    @staticmethod
    def _tree(counts: Ints, at: int) -> int:
        return int(np.searchsorted(np.cumsum(counts), at, side="right"))

    def one_each(self, key: str) -> Floats:
        """Return the number that every tree has under a key."""
        values, counts = self.numbers(key)
        self._refuse_at(key, counts, counts != 1, " numbers, not one")
        return values

    def _refuse_at(self, key: str, values: NDArray[Any], wrong: NDArray[np.bool_], told: str) -> None:
        if wrong.any():
            n = int(np.flatnonzero(wrong)[0])
            _refuse(f"{key} of tree {n} is {values[n]:g}{told}")

    def check(self, width: int) -> None:
        """Refuse numbers out of their range, lengths that do not fit the leaves, and splits that are no tree."""
        numbered = [f"{_TREE}={n}" for n in range(self.count)]
        if self.lines[_TREE] != numbered:
            n = [a == b for a, b in zip(self.lines[_TREE], numbered, strict=True)].index(False)
            _refuse(f"tree {n} begins with {_shown(self.lines[_TREE][n])}")
        leaves = self.one_each("num_leaves")
        self._refuse_at("num_leaves", leaves, (leaves < 1) | (leaves > MOST_LEAVES), f", not 1 to {MOST_LEAVES}")
        for key in ("num_cat", "is_linear"):
            values = self.one_each(key)
            self._refuse_at(key, values, values != 0, ", and our trees have none")
        self.one_each("shrinkage")
        splits, each = leaves.astype(np.int64) - 1, dict[str, Floats]()
        for key in (*_OF_SPLIT, *_OF_LEAF):
            each[key], counts = self.numbers(key)
            wanted = splits + (key in _OF_LEAF)
            fits = (counts == wanted) | ((splits == 0) & (key in {"leaf_weight", "leaf_count"}) & (counts == 0))
            self._refuse_at(key, counts, ~fits, " numbers long, which does not fit num_leaves")
        self._refuse_outside("split_feature", each, splits, 0, width - 1)
        self._refuse_outside("internal_count", each, splits, 1, np.inf)
        self._refuse_outside("leaf_count", each, splits, 0, np.inf)
        self._refuse_outside("decision_type", each, splits, 0, max(_DECISIONS))
        if (odd := ~np.isin(each["decision_type"], _DECISIONS)).any():
            _refuse(f"decision_type {each['decision_type'][odd][0]:g} is not that of a numeric split")
        _check_children(each["left_child"], each["right_child"], splits)

    def _refuse_outside(self, key: str, each: dict[str, Floats], splits: Ints, low: float, high: float) -> None:
        wrong = (each[key] < low) | (each[key] > high)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            told = f"{key} of tree {self._tree(splits, at)} is " if key in _OF_SPLIT else f"{key} is "
            _refuse(f"{told}{each[key][at]:g}, not {low:g} to {high:g}")


def _check_children(left: Floats, right: Floats, splits: Ints) -> None:
    """Refuse trees in which a split or leaf is not reached, or on two ways; children come after their parent.

    Splits and leaves of all trees are counted together; a negative child -n is leaf n - 1.
    """
    if not splits.sum():
        return
    tree = np.repeat(np.arange(len(splits)), splits)
    first_split, first_leaf = (np.cumsum(own) - own for own in (splits, splits + 1))
    own = np.arange(len(tree)) - first_split[tree]
    for key, child in (("left_child", left), ("right_child", right)):
        inner = child >= 0
        wrong = np.where(inner, (child <= own) | (child >= splits[tree]), -child > splits[tree] + 1)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            _refuse(f"{key} of split {own[at]} of tree {tree[at]} is {child[at]:g}: no later split, and no leaf of it")
    child = np.concatenate([left, right]).astype(np.int64)
    of = np.concatenate([tree, tree])
    reached = np.bincount((first_split[of] + child)[child >= 0], minlength=len(tree))
    reached[first_split[splits > 0]] += 1  # the root
    ends = np.bincount((first_leaf[of] - child - 1)[child < 0], minlength=int((splits + 1).sum()))
    ends[first_leaf[splits == 0]] += 1  # a tree of one leaf
    for what, counts, first in (("split", reached, first_split), ("leaf", ends, first_leaf)):
        if (counts != 1).any():
            at = int(np.flatnonzero(counts != 1)[0])
            n = int(np.searchsorted(first, at, side="right")) - 1
            while what == "split" and splits[n] == 0:
                n -= 1
            _refuse(
                f"left_child, right_child: {what} {at - first[n]} of tree {n} is reached {counts[at]} times, not once"
            )
