"""A neural learner of levels: the mean of three networks of one hidden layer, trained by scikit-learn.

Networks are kept as numbers and evaluated here, summed unit by unit: no batch size changes a bit.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from tiermodel.arrays import Floats, Ints
from tiermodel.models.elementary import expm1
from tiermodel.models.learners.preprocessing import bounds, mean_and_scale, medians, signed_log

__all__ = ["attributions", "fit", "score"]


_NETWORKS, _HIDDEN, EPOCHS, _BATCH = 3, 16, 40, 256
_PENALTY, _PACE = 10.0, 3e-3


def fit(x: Floats, level: Ints, levels: int, _names: list[str], seed: int) -> dict[str, Any]:
    """Return the fitted networks, by squared error, as plain data: one network with the hidden units of all three."""
    z = signed_log(x)
    middle = medians(z)
    z = np.where(np.isnan(z), middle, z)
    low, high = bounds(z)
    z = np.clip(z, low, high)
    mean, scale = mean_and_scale(z)
    z = (z - mean) / scale
    networks = []
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is fixed on purpose
        for k in range(_NETWORKS):
            network = MLPRegressor(
                hidden_layer_sizes=(_HIDDEN,), alpha=_PENALTY, batch_size=min(_BATCH, len(z)), max_iter=EPOCHS,
                learning_rate_init=_PACE, random_state=seed + k,
            )  # fmt: skip
            networks.append(network.fit(z, level / max(levels - 1, 1)))
    return {
        "middle": middle.tolist(),
        "low": low.tolist(),
        "high": high.tolist(),
        "mean": mean.tolist(),
        "scale": scale.tolist(),
        "into": np.hstack([n.coefs_[0] for n in networks]).tolist(),
        "bias": np.hstack([n.intercepts_[0] for n in networks]).tolist(),
        "out": (np.hstack([n.coefs_[1][:, 0] for n in networks]) / _NETWORKS).tolist(),
        "start": float(np.mean([n.intercepts_[1][0] for n in networks])),
    }


def _standard(model: dict[str, Any], j: int, x: Floats) -> Floats:
    z = signed_log(x)
    z = np.clip(np.where(np.isnan(z), model["middle"][j], z), model["low"][j], model["high"][j])
    return (z - model["mean"][j]) / model["scale"][j]


def _units(model: dict[str, Any], x: Floats) -> Floats:
    """Return the pre-activation of every hidden unit, shape (units, rows)."""
    into = np.array(model["into"])
    units = np.repeat(np.array(model["bias"])[:, None], len(x), axis=1)
    for j in range(x.shape[1]):
        units += into[j][:, None] * _standard(model, j, x[:, j])
    return units


def score(model: dict[str, Any], _names: list[str], x: Floats) -> Floats:
    """Return the expected level of each row, from 0 to about 1."""
    total = np.full(len(x), model["start"])
    for out, unit in zip(model["out"], np.maximum(_units(model, x), 0.0), strict=True):
        total += out * unit
    return total


def attributions(model: dict[str, Any], _names: list[str], x: Floats) -> Floats:
    """Return the attribution of each feature, shape (rows, features), relative to a customer with median features.

    Integrated gradients (Sundararajan, Taly and Yan 2017), exact here: on the straight path between the two customers a
    unit's pre-activation is linear, so its mean slope is the gain of its output over the gain of its input.
    """
    middle = np.array([model["middle"]])
    middle = np.sign(middle) * expm1(np.abs(middle))
    before, after = _units(model, middle), _units(model, x)
    gained = after - before
    slope = np.divide(
        np.maximum(after, 0.0) - np.maximum(before, 0.0),
        gained,
        out=np.where(after > 0, 1.0, 0.0),
        where=np.abs(gained) > 1e-12,
    )
    into = np.array(model["into"])
    found = np.zeros(x.shape)
    for j in range(x.shape[1]):
        step = _standard(model, j, x[:, j]) - _standard(model, j, middle[:, j])
        for weight, out, unit in zip(into[j], model["out"], slope, strict=True):
            found[:, j] += step * (weight * out) * unit
    return found
