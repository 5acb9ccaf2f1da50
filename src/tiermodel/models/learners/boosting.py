"""LightGBM, regularised and deterministic; models are kept as text and their inputs checked by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

import lightgbm as lgb
import numpy as np
from scipy.special import logit

from tiermodel.arrays import Flags, Floats
from tiermodel.config.learners import Trees
from tiermodel.errors import ModelError
from tiermodel.models.learners.tree_text import model_part
from tiermodel.models.learners.weights import FitWeights

__all__ = ["ROUNDS", "Boosted", "fit_binary", "fit_boosted", "map_threads", "with_default_sizes"]


ROUNDS = (50, 100, 150, 200, 300)
"""The numbers of trees from which out-of-fold predictions choose."""

_SMALL = 2_000  # rows below which a second thread costs more than it saves
_THREADS = 2
_BY_SIZE = Trees()
_LINKS: Mapping[str, Callable[[float], Any]] = {"binary": logit, "tweedie": np.log}
T = TypeVar("T")
R = TypeVar("R")


def map_threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Return the results of independent fits, in order, on two threads: LightGBM releases the GIL."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, items))


@dataclass(frozen=True)
class Boosted:
    """A LightGBM model as text, with the names of its inputs in order."""

    names: tuple[str, ...]
    text: str

    @cached_property
    def booster(self) -> lgb.Booster:
        """The parsed text, new or passed by `check_tree_text`; `ModelError` where inputs are not `names`."""
        booster = lgb.Booster(model_str=model_part(self.text))
        if tuple(booster.feature_name()) != self.names:
            raise ModelError(
                f"the trees were trained on {booster.feature_name()[:5]}…, not on {list(self.names)[:5]}…: train again"
            )
        return booster

    def predict(self, x: Floats) -> Floats:
        """Return the prediction of each row of a (customers, features) matrix, on the scale of the target."""
        return np.asarray(self.booster.predict(x, num_threads=_threads(x)))

    def scores(self, x: Floats, rounds: Sequence[int]) -> list[Floats]:
        """Return the scores of each row, before the link function, by the first trees: one for each number of trees."""
        found, total = list[Floats](), np.zeros(len(x))
        for start, stop in pairwise((0, *rounds)):  # each tree is walked once
            total = total + self.booster.predict(
                x, start_iteration=start, num_iteration=stop - start, raw_score=True, num_threads=_threads(x)
            )
            found.append(total)
        return found

    def contributions(self, x: Floats) -> tuple[float, Floats]:
        """Return the mean score over the training rows, and what each input adds to it, the shape of x.

        These are the SHAP values of trees (Lundberg, Erion and Lee 2018), on the scale before the link function.
        """
        each = np.asarray(self.booster.predict(x, pred_contrib=True, num_threads=1))
        return float(each[0, -1]), each[:, :-1]

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy to another process: without the parsed booster."""
        return {"names": self.names, "text": self.text}


def _threads(x: Floats) -> int:
    return _THREADS if len(x) > _SMALL else 1


def with_default_sizes(trees: Trees, rows: int) -> Trees:
    """Return tree settings in which those not set are chosen by the number of training rows."""
    by_size = {
        "learning_rate": 0.04 if rows < 200_000 else 0.1,
        "num_leaves": 8 if rows < 100_000 else 31,
        "min_data_in_leaf": int(np.clip(rows / 300, 10, 60)) if rows < 200_000 else 200,
    }
    return trees.model_copy(update={name: v for name, v in by_size.items() if getattr(trees, name) is None})


def fit_boosted(
    x: Floats,
    y: Floats,
    names: list[str],
    rounds: int,
    seed: int,
    trees: Trees = _BY_SIZE,
    weights: FitWeights | None = None,
    **target: Any,
) -> Boosted:
    """Return a model of `rounds` trees.

    Rows must come sorted by key, so that the same data give the same model (on one kind of processor).
    `target` is LightGBM's objective and its parameters; an offset in `weights` goes with binary and tweedie only.
    Raises `ModelError` where a target or input is infinite, or a target NaN: LightGBM would train without a warning.
    """
    _refuse_not_finite(x, y)
    settings = _settings(len(y), seed, trees) | target
    weight, offset = (None, np.zeros(1)) if weights is None else weights
    data = lgb.Dataset(x, y, weight=weight, feature_name=list(names), params={"verbosity": -1}, free_raw_data=True)
    if not offset.any():
        return Boosted(tuple(names), lgb.train(settings, data, rounds).model_to_string())
    mean = float(_LINKS[target["objective"]](np.average(y, weights=weight)))
    grown = lgb.train(settings, data.set_init_score(offset + mean), rounds)
    _add(grown, mean)  # LightGBM leaves the initial score out of its trees
    return Boosted(tuple(names), grown.model_to_string())


def fit_binary(
    x: Floats, targets: Iterable[Flags], names: list[str], rounds: int, seed: int, learning_rate: float
) -> list[Boosted]:
    """Return a model of the probability of each target, one after the other, of the same rows, which are binned once.

    Rows must come sorted by key. Raises `ModelError` where an input is infinite.
    """
    _refuse_not_finite(x, np.zeros(0))
    settings = _settings(len(x), seed, _BY_SIZE) | {"objective": "binary", "learning_rate": learning_rate}
    data = lgb.Dataset(x, np.zeros(len(x)), feature_name=list(names), params=settings, free_raw_data=True).construct()
    grown = (lgb.train(settings, data.set_label(y.astype(np.float64)), rounds) for y in targets)
    return [Boosted(tuple(names), each.model_to_string()) for each in grown]


def _refuse_not_finite(x: Floats, y: Floats) -> None:
    if not np.isfinite(y).all() or np.isinf(x).any():
        raise ModelError(
            f"{np.count_nonzero(~np.isfinite(y))} targets and {np.count_nonzero(np.isinf(x))} inputs are not finite"
        )


def _settings(rows: int, seed: int, trees: Trees) -> dict[str, Any]:
    return {
        **with_default_sizes(trees, rows).model_dump(exclude={"monotone"}),
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "bin_construct_sample_cnt": max(200_000, min(rows, 2_000_000)),
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,  # fits run side by side; on a busy machine the threads of one fit would wait for each other
        "seed": seed,
        "verbosity": -1,
    }


def _add(grown: lgb.Booster, score: float) -> None:
    """Add a score to every leaf of the first tree, as LightGBM does with a mean that it starts from by itself."""
    leaves = grown.dump_model(num_iteration=1)["tree_info"][0]["num_leaves"]
    for leaf in range(leaves):
        grown.set_leaf_output(0, leaf, grown.get_leaf_output(0, leaf) + score)
