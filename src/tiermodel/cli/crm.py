"""The verb of the CRM: export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tiermodel.cli.options import JSON, PATH
from tiermodel.cli.printing import print_json, progress
from tiermodel.cli.tables import print_table
from tiermodel.words import words

if TYPE_CHECKING:
    from tiermodel.crm.manifest import Manifest

__all__ = ["export"]


@click.command()
@click.argument("scores", type=PATH)
@click.option("--to", type=click.Choice(["zoho", "fxiaoke", "csv"]), required=True, help="The CRM, or plain CSV.")
@click.option("--mapping", required=True, help="A mapping file, or the name of an example that ships.")
@click.option("--out", type=PATH, required=True, help="The folder to write; an export of the same is replaced.")
@click.option("--since", type=PATH, help="The folder of the export before: only what changed since is written.")
@click.option("--language", type=click.Choice(["zh", "en"]), help="[default: the mapping's, or en]")
@JSON
def export(
    scores: Path, to: str, mapping: str, out: Path, since: Path | None, language: str | None, as_json: bool
) -> None:
    """Write scores as files for the import of a CRM.

    Writes the columns that --mapping names, in files of as many rows as the CRM takes, and a manifest, to the folder of
    --out. Nothing is sent anywhere.
    """
    from tiermodel.crm.export import export as run_export
    from tiermodel.crm.mapping import load_mapping
    from tiermodel.tables.targets import targets

    with progress() as step, targets(folders=[out]):
        step(words(language or load_mapping(mapping).language or "en")["step_exporting"])
        done = run_export(scores, mapping, out, to=to, since=since)
    if as_json:
        print_json({"out": str(out), **done.model_dump(mode="json")})
    else:
        _print(done, out, language or load_mapping(mapping).language or "en")


def _print(done: Manifest, out: Path, language: str) -> None:
    say = words(language)
    heads = {"name": "export_file", "rows": "export_rows", "bytes": "export_bytes"}
    rows = [{say[head]: getattr(file, key) for key, head in heads.items()} for file in done.files]
    counts = done.model_dump(include={"customers", "new", "changed", "unchanged", "gone", "written", "audience"})
    if rows:
        print_table(say["export_title"].format(**counts), rows)
    else:
        click.echo(say["export_nothing"])
    click.echo(say["export_counts"].format(out=out, **counts))
    if done.since is not None and done.everything:
        click.echo(say["export_mapping_changed"])
    if done.gone_file is not None:
        click.echo(say["export_gone"].format(n=done.gone, file=out / done.gone_file.name))
