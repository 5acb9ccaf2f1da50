"""The command line: each verb calls the function of its name. Results go to stdout, progress goes to stderr."""

from __future__ import annotations

import os
import sys

import click

from tiermodel.cli.customers import check, features, score, upgrades
from tiermodel.cli.ledger import ledger
from tiermodel.cli.models import backtest, demo, promote, train, tune
from tiermodel.cli.show import report, rules, show
from tiermodel.errors import OutputError, TierModelError

__all__ = ["main", "run"]


def main() -> None:
    """Run the command line; an error of the user ends in one message and an exit code, never in a traceback."""
    try:
        run(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except TierModelError as error:
        click.echo(f"tiermodel: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os._exit(0)  # stdout is closed: flushing it at exit would fail again
    except OSError as error:
        click.echo(f"tiermodel: {error}", err=True)
        sys.exit(OutputError.exit_code)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tiermodel")
def run() -> None:
    """Turn a transaction log into customer tiers, churn risk and value: learned, readable, validated out of time."""


for verb in (demo, check, features, train, backtest, tune, score, upgrades, promote, report, rules, ledger, show):
    run.add_command(verb)
