"""The verb that answers over HTTP: serve."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from tiermodel.cli.options import MODEL, PROJECT, is_folder, load, model_folder
from tiermodel.errors import ProjectError

__all__ = ["serve"]


@click.command()
@PROJECT
@MODEL
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with a token.")
@click.option("--port", type=click.IntRange(0, 65_535), default=8321, show_default=True, help="0: any free one.")
def serve(project: Path, model: str, host: str, port: int) -> None:
    """Score customers over HTTP, from feature rows or from raw rows.

    Serves until it is stopped, and writes nothing. With $TIERMODEL_TOKEN set, only who brings the token is answered.
    """
    settings = load(project)
    try:
        from tiermodel.serving.server import serve as run_serve
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in {"prometheus_client", "starlette", "uvicorn"}:
            raise
        raise ProjectError("serving needs: pip install 'tiermodel[serve]'") from None
    newest: Callable[[], tuple[str, Callable[[], Path]]] | None = None
    if "@" in model and not is_folder(model):
        from tiermodel.tracking.registry import version_of

        def found() -> tuple[str, Callable[[], Path]]:
            version = version_of(model, settings.tracking.uri)
            return version, lambda: model_folder(version, settings.tracking.uri)

        newest = found
    run_serve(settings, model_folder(model, settings.tracking.uri), model, host, port, newest)
