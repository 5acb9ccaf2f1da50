"""The command line: each verb calls the function of its name. Results go to stdout, progress goes to stderr."""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

from tiermodel.cli.crm import export
from tiermodel.cli.customers import check, features, score, upgrades
from tiermodel.cli.erasure import forget
from tiermodel.cli.init import init
from tiermodel.cli.jobs import refresh
from tiermodel.cli.ledger import ledger
from tiermodel.cli.models import backtest, demo, train, tune
from tiermodel.cli.monitoring import monitor, outcomes
from tiermodel.cli.policy import allocate
from tiermodel.cli.promotion import promote, rollback
from tiermodel.cli.serving import serve
from tiermodel.cli.show import report, rules, show
from tiermodel.cli.worklists import lists
from tiermodel.errors import OutputError, TierModelError
from tiermodel.tables.scratch import refuse_little_memory, remove_orphans
from tiermodel.words import visible

__all__ = ["main", "run"]


def main() -> None:
    """Run the command line; an error of the user ends in one message and an exit code, never in a traceback.

    SIGTERM and SIGHUP end a run as Ctrl-C does: nothing half-written, no scratch folder, and 128 more as exit code.
    """
    stopped: list[int] = []
    with _signals(stopped):
        try:
            _run()
        except (KeyboardInterrupt, SystemExit):
            if not stopped:
                raise
    if stopped:
        sys.exit(128 + stopped[0])


@contextmanager
def _signals(stopped: list[int]) -> Iterator[None]:
    """Raise KeyboardInterrupt at a signal that would kill the process, and note its number; not where it is ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt

    wanted = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    for one in wanted:
        signal.signal(one, stop)
    try:
        yield
    finally:
        for one in wanted:
            signal.signal(one, signal.SIG_DFL)


@contextmanager
def _output_mode() -> Iterator[None]:
    """Let nobody read what is still being written who may not read it in the end; nothing where no mode is asked."""
    if not os.environ.get("TIERMODEL_OUTPUT_MODE"):
        yield
        return
    from tiermodel.output import asked_mode

    mode = asked_mode() or 0o666
    before = os.umask(0o077)
    os.umask(before | 0o777 & ~(mode | (mode & 0o444) >> 2))
    try:
        yield
    finally:
        os.umask(before)


def _run() -> None:
    with suppress(OSError):  # who needs scratch says that there is none
        remove_orphans()
    try:
        refuse_little_memory()
        with _output_mode():
            run(standalone_mode=False, prog_name="tiermodel")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except TierModelError as error:
        click.echo(visible(f"tiermodel: {error}"), err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os._exit(0)  # stdout is closed: flushing it at exit would fail again
    except MemoryError:
        click.echo("tiermodel: memory ran out; lower data.memory, or run on a machine with more", err=True)
        sys.exit(OutputError.exit_code)
    except OSError as error:
        click.echo(visible(f"tiermodel: {_with_place(error)}"), err=True)
        sys.exit(OutputError.exit_code)


def _with_place(error: OSError) -> str:
    """Return what the system says, and of which file; where it names none, where to look."""
    if error.filename is not None or error.errno is None:
        return str(error)
    return (
        f"{error.strerror} ({errno.errorcode.get(error.errno, error.errno)}), and the system does not say where: look "
        f"at the disks of {Path.cwd()}, of {tempfile.gettempdir()} (TMPDIR), and of standard output"
    )


_EPILOG = """\b
Exit codes: 0 done; 1 a bug of ours; 2 usage or project file; 3 input refused;
4 more bad rows than max_bad_share; 5 model refused; 6 output in use;
7 disk or permission; 8 tracking server unreachable; 9 a gate said no.

\b
Completion of verbs and options by the tab key:
  bash  eval "$(tiermodel completion bash)"    in ~/.bashrc
  zsh   eval "$(tiermodel completion zsh)"     in ~/.zshrc
  fish  tiermodel completion fish | source     in ~/.config/fish/config.fish
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80}, epilog=_EPILOG)
@click.version_option(package_name="tiermodel")
def run() -> None:
    """Turn a transaction log into customer tiers, churn risk and value: learned, readable, validated out of time."""


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes verbs and options in a shell.

    Let the shell read it at its start: tiermodel --help says how.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is not None:
        click.echo(found(run, {}, "tiermodel", "_TIERMODEL_COMPLETE").source())


for verb in (
    completion,
    demo,
    init,
    check,
    features,
    train,
    backtest,
    tune,
    score,
    upgrades,
    allocate,
    lists,
    outcomes,
    monitor,
    export,
    promote,
    refresh,
    rollback,
    serve,
    report,
    rules,
    ledger,
    forget,
    show,
):
    run.add_command(verb)
