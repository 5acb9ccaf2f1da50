"""Help of every verb: whole sentences on what it does, 80 columns wide; completion as the shells ask for it."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from commands import Run
from tiermodel.cli.main import run


def verbs(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from verbs(command, (*above, name))
        yield (*above, name), command


ALL = dict(verbs(run))


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_help_is_whole_sentences_of_80_columns(words: tuple[str, ...], cli: Run) -> None:
    done = cli(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert max(map(len, done.out.splitlines())) <= 80, done.out
    said = (ALL[words].help or "").strip()
    assert said[0].isupper(), said
    assert said.endswith((".", "?")), said
    for option in ALL[words].params:
        if isinstance(option, click.Option) and option.help and not option.help.startswith("["):
            assert option.help[0].isupper() or not option.help[0].isalpha(), (words, option.help)


def test_exit_codes_and_completion_are_told(cli: Run) -> None:
    told = cli("--help").out
    assert "..." not in told.partition("Commands:")[2]  # no sentence is cut off
    assert "9 a gate said no" in told
    assert 'eval "$(tiermodel completion bash)"' in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_verbs_and_options(shell: str, cli: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    script = cli("completion", shell)
    assert script.code == 0
    assert "_TIERMODEL_COMPLETE" in script.out
    monkeypatch.setenv("_TIERMODEL_COMPLETE", f"{shell}_complete")
    for typed, incomplete, wanted in (("tiermodel ", "sc", "score"), ("tiermodel score ", "--led", "--ledger")):
        monkeypatch.setenv("COMP_WORDS", typed + incomplete)
        monkeypatch.setenv("COMP_CWORD", incomplete if shell == "fish" else str(len(typed.split())))
        assert wanted in cli().out
