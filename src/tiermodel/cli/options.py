"""Options that mean the same in every verb, and the look-up of a project and a model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from tiermodel.config.project import Project

__all__ = ["AS_OF", "EMPTY", "JSON", "LANGUAGE", "MODEL", "PATH", "PROJECT", "STORE", "load", "model_folder"]

PATH = click.Path(path_type=Path)
PROJECT = click.argument("project", type=PATH)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
STORE = click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", default="sqlite:///mlflow.db", show_default=True)
EMPTY = click.option(
    "--allow-empty", is_flag=True, help="Of transactions without a row make a table without a row, not an error."
)
LANGUAGE = click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the model's]")
MODEL = click.option(
    "--model", required=True, help="A bundle's folder, or NAME@champion or NAME/VERSION from the registry."
)
AS_OF = (
    "The first instant we pretend not to know, such as 2017-11-30; `latest` is the day after the last plausible one."
)


def load(path: Path) -> Project:
    """Return the project of a project file."""
    from tiermodel.config.project import load_project

    return load_project(path)


def model_folder(reference: str, tracking_uri: str) -> Path:
    """Return a bundle's folder.

    MLflow takes seconds to import, so only NAME@alias and NAME/number that are no path are looked up in the registry.
    """
    if Path(reference).exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)", reference):
        return Path(reference)
    from tiermodel.tracking.registry import resolve_model

    return resolve_model(reference, tracking_uri)
