"""The loader that every logged model names, and the check that a model names no other loader and brings no code.

MLflow imports whatever `loader_module` a model names and runs the code that the model brings, so the description of a
model is read as data first. The path of this module is written into every logged model: it cannot move.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.errors import ModelError
from tiermodel.predict import predict

__all__ = ["FLAVOR", "BundleModel", "trusted_bundle"]

FLAVOR = "tiermodel.mlflow_flavor"
_KNOWN = {"code", "data", "env", "loader_module", "python_version", "streamable"}
_LARGEST = 2**20


class BundleModel:
    """A bundle as MLflow serves it: `predict` turns snapshot rows into rows of the score table."""

    def __init__(self, bundle: Bundle) -> None:
        """Wrap a bundle."""
        self.bundle = bundle

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:  # noqa: ARG002  # MLflow passes it
        """Return one score row for each snapshot row; columns are found by name, as in `tiermodel.predict.predict`.

        Inputs may be of any numeric type. Raises `ModelError` for one that holds anything but numbers.
        """
        numbers = {}
        for name in self.bundle.inputs.names:
            if name in model_input:
                try:
                    numbers[name] = model_input[name].to_numpy(dtype=np.float64, na_value=np.nan)
                except (TypeError, ValueError) as error:
                    raise ModelError(f"input {name!r} holds other values than numbers: {error}") from None
        return predict(self.bundle, model_input.assign(**numbers))


def _load_pyfunc(data_path: str) -> BundleModel:
    """Load the bundle in a folder after checking its hashes; MLflow calls this function by its name."""
    return BundleModel(load_bundle(data_path))


def trusted_bundle(folder: Path, name: str) -> Path:
    """Return the folder of a logged model's bundle, once its description is checked; error messages begin with `name`.

    Raises `ModelError` where the description is missing or damaged, names another loader than this module, brings code,
    or points outside `folder`.
    """
    path = folder / "MLmodel"
    if path.is_symlink() or not path.is_file() or path.stat().st_size > _LARGEST:
        raise ModelError(
            f"{name}: MLmodel is missing, or not a plain file of at most {_LARGEST >> 20} MB; nothing was loaded"
        )
    try:
        flavors = dict(yaml.safe_load(path.read_bytes())["flavors"])
        flavor = dict(flavors["python_function"])
        data = Path(folder, flavor["data"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{name}: MLmodel does not describe a bundle ({type(error).__name__}: {error}); nothing was loaded"
        ) from None
    asked = {f"flavor {other}" for other in set(flavors) - {"python_function"}}
    asked |= {f"{key}: {flavor[key]}" for key in set(flavor) - _KNOWN}
    if flavor.get("loader_module") != FLAVOR:
        asked.add(f"loader_module: {flavor.get('loader_module')}")
    if flavor.get("code") is not None:
        asked.add(f"code: {flavor['code']}")
    if not data.resolve().is_relative_to(folder.resolve()):
        asked.add(f"data: {flavor['data']}")
    if asked:
        words = f"MLmodel asks for {', '.join(sorted(asked))}; only {FLAVOR} without code is trusted"
        raise ModelError(f"{name}: {words}, nothing was loaded")
    return data
