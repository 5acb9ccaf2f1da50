"""Options that mean the same in every verb, and the look-up of a project and a model."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tiermodel.config.project import Project

__all__ = [
    "AS_OF", "EMPTY", "EXCEL", "JSON", "LANGUAGE", "MODEL", "PATH", "PROJECT", "SHOW_VALUES", "STORE", "is_folder",
    "load", "model_folder", "promotion_of", "store_option",
]  # fmt: skip

PATH = click.Path(path_type=Path)
PROJECT = click.argument("project", type=PATH)
JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_DEFAULT_STORE = "sqlite:///mlflow.db"
STORE = click.option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", default=_DEFAULT_STORE, show_default=True)
EMPTY = click.option(
    "--allow-empty", is_flag=True, help="Of transactions without a row make a table without a row, not an error."
)
EXCEL = click.option(
    "--excel", is_flag=True, help="Begin CSV files with a byte order mark, so that Excel reads Chinese as it is."
)


def _show_values(context: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from tiermodel.tables.privacy import values_shown

        context.with_resource(values_shown())


SHOW_VALUES = click.option(
    "--show-values", is_flag=True, expose_value=False, callback=_show_values,
    help="Show ids and personal data of bad rows as they stand, not as shapes such as AA-9999.",
)  # fmt: skip
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


def is_folder(reference: str) -> bool:
    """Return whether a model is given by its folder, not by a name in the registry."""
    return Path(reference).exists() or not re.fullmatch(r"(models:/)?[\w.-]+(@[\w-]+|/\d+)", reference)


def promotion_of(reference: str, tracking_uri: str) -> dict[str, Any] | None:
    """Return the gate's verdict with which a registered model became champion; None where it never did."""
    from tiermodel.tracking.promotion import promotion_record

    return promotion_record(reference, tracking_uri)


def model_folder(reference: str, tracking_uri: str) -> Path:
    """Return a bundle's folder.

    MLflow takes seconds to import, so only NAME@alias and NAME/number that are no path are looked up in the registry.
    """
    if is_folder(reference):
        return Path(reference)
    from tiermodel.tracking.registry import resolve_model

    return resolve_model(reference, tracking_uri)


def store_option(project: Project) -> str:
    """Return the option that names the project's tracking store; empty for the default and where it has a password."""
    uri = project.tracking.uri
    return "" if uri == _DEFAULT_STORE or "@" in uri else f" --tracking-uri {shlex.quote(uri)}"
