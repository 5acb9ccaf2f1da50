"""A small shop in which every verb that writes has something to do, and the judgement of a run that was stopped.

Commands run in processes of their own, so that nothing of one run lives on in the next; `Started` says how.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import NamedTuple

import click
import pandas as pd
import yaml

from commands import FORKS, Ran, Started
from run_folders import files_of
from tiermodel.cli.main import main, run
from worlds import ID_MARK, small_project, small_world

__all__ = ["COMMANDS", "READS", "Clean", "Command", "Shop", "every_verb", "make_shop"]

FIRST, SECOND = date(2023, 6, 1), date(2023, 7, 31)
CHANGING = ("seconds", "registered", "champion", "said")  # of a manifest: times, numbers of versions, words with them
CODES = {2, 3, 4, 5, 6, 7, 8, 9}
MAPPING = {
    "version": 1,
    "name": "desk",
    "to": "csv",
    "audience": "service desk",
    "key": "customer",
    "fields": {
        "customer": {"type": "text", "column": "customer_id"},
        "tier": {"type": "text", "column": "tier_code"},
        "graded_on": {"type": "date", "column": "as_of", "compare": False},
    },
}


class Command(NamedTuple):
    """A verb with its words: the outputs in its folder, whether they are one transaction, whether it can run again."""

    words: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    together: bool = True
    again: bool = True
    code: int = 0
    folder: str = "shop"


_SCORED = ("--model", "bundle", "--as-of", str(SECOND))
_BOOK = ("--ledger", "book")
COMMANDS = {
    "init": Command(("init", "raw.csv", "--out", "new.yaml"), (), again=False),
    "features": Command(
        ("features", "shop.yaml", "--as-of", str(SECOND), "--out", "f.csv"), ("f.csv", "f.quarantine.csv")
    ),
    "train": Command(("train", "shop.yaml", "--as-of", str(SECOND), "--out", "model", "--register"), together=False),
    "backtest": Command(
        ("backtest", "shop.yaml", "--out", "b.json", "--predictions", "p.parquet"), ("b.json", "p.parquet")
    ),
    "tune": Command(("tune", "shop.yaml", "--trials", "1", "--out", "models.yaml"), ("models.yaml",), together=False),
    "score": Command(
        ("score", "shop.yaml", *_SCORED, "--out", "s.parquet", *_BOOK, "--shadow", "bundle"),
        ("s.quarantine.csv", "s.shadow.json"),
    ),
    "upgrades": Command(("upgrades", "shop.yaml", *_SCORED, "--out", "u.xlsx"), ("u.xlsx",)),
    "allocate": Command(
        ("allocate", "s.parquet", "--policy", "retail", "--budget", "500", "--out", "a.csv", "--figure", "a.png"),
        ("a.csv", "a.png"), together=False,
    ),
    "lists": Command(
        ("lists", "s.parquet", "--model", "bundle", "--features", "of_scores.parquet", "--out", "lists", *_BOOK),
        ("lists/keep.csv", "lists/review.xlsx"),
    ),
    "outcomes": Command(("outcomes", "shop.yaml", *_BOOK, "--out", "o.csv"), ("o.csv", "o.base.csv", "o.channels.csv")),
    "monitor": Command(("monitor", "shop.yaml", *_SCORED, *_BOOK, "--out", "m.json"), ("m.json",)),
    "export": Command(("export", "s.parquet", "--to", "csv", "--mapping", "desk.yaml", "--out", "export")),
    "promote": Command(("promote", "shop"), again=False),
    "rollback": Command(("rollback", "shop"), again=False, folder="two"),
    "refresh": Command(("refresh", "shop.yaml", "--as-of", str(SECOND)), together=False, folder="two"),
    "report": Command(("report", "s.parquet", "bundle", "--out", "r.html"), ("r.html",)),
    "ledger show": Command(("ledger", "show", "book", "--out", "l.parquet"), ("l.parquet",)),
    "ledger override": Command(
        ("ledger", "override", "book", "--customer", f"{ID_MARK}000000", "--tier", "major", "--from", str(SECOND),
         "--operator", "li", "--reason", "why"), again=False,
    ),
    "forget": Command(("forget", "shop.yaml", f"{ID_MARK}000001", *_BOOK, "--in", "kept"), together=False, again=False),
}  # fmt: skip
"""Every verb that writes."""

READS = {
    "check", "completion", "rules", "serve", "ledger movement", "ledger forecast", "ledger overrides", "ledger check",
    "show config", "show schema", "show features", "show schemes", "show model", "show codes", "show keys",
    "show policy",
    "demo",  # train, backtest, promote, score, features and report on the data of another package
}  # fmt: skip
"""Every verb that writes nothing, or only by others."""


def every_verb(group: click.Group = run, before: str = "") -> set[str]:
    """Return the verbs of the command line, those of groups as two words."""
    found: set[str] = set()
    for name, verb in group.commands.items():
        found |= every_verb(verb, f"{name} ") if isinstance(verb, click.Group) else {f"{before}{name}"}
    return found


class Clean(NamedTuple):
    """A run without a fault: the files before and after, the steps on the disk, and the seconds that it took."""

    old: dict[str, bytes]
    new: dict[str, bytes]
    steps: list[str]
    seconds: float


@dataclass
class Shop:
    """Folders to start from, and what each verb leaves in a copy of its own where nothing fails."""

    templates: Path
    number: int = 0

    def copy(self, verb: str) -> Path:
        """Return a fresh copy of the folder that a verb starts from; names are of one length."""
        self.number += 1
        folder = self.templates / f"{os.getpid()}-{self.number:05d}" / "work"
        shutil.copytree(self.templates / COMMANDS[verb].folder, folder, symlinks=True)
        (folder / "scratch").mkdir()
        return folder

    def start(self, folder: Path, verb: str, fault: tuple[int, int] | None = None) -> Started:
        """Start a verb in a folder, with a step that fails and how."""
        return Started(folder, *COMMANDS[verb].words, fault=fault, bare=True)

    def together(self, folder: Path, *commands: Sequence[str]) -> list[Ran]:
        """Run commands at once in one folder."""
        return [one.wait() for one in [Started(folder, *words, bare=True) for words in commands]]

    def at_once(
        self, number: int, verbs: Sequence[str] = ("score", "features", "train", "export", "lists", "promote")
    ) -> list[str]:
        """Let runs meet that write the same, and say what is wrong with what they leave: one wins, no grading twice."""
        faults = []
        for verb in verbs:
            if verb == "promote":
                faults += self._promoters(number)
                continue
            clean, folder = self.clean(verb), self.copy(verb)
            ran = self.together(folder, *[COMMANDS[verb].words] * number)
            codes = sorted(one.code for one in ran)
            faults += [f"{number} × {verb}: {codes}"] * (codes[0] != 0 or not set(codes) <= {0, 6})
            faults += [f"{number} × {verb}: {one.err[-300:]}" for one in ran if one.code not in {0, 6}]
            faults += [f"{number} × {verb} leave {odd}" for odd in [_odd(state(folder), clean.new)] if odd]
            faults += self._proof(folder)
        return faults + self._gradings(number) + self._forgetting()

    def _promoters(self, number: int) -> list[str]:
        folder = self.copy("promote")
        codes = sorted(one.code for one in self.together(folder, *[COMMANDS["promote"].words] * number))
        return [f"{number} × promote: {codes}"] * (codes[0] != 0 or set(codes[1:]) - {6, 9} != set())

    def _gradings(self, number: int) -> list[str]:
        """Grade one date several times at once, and two dates at once."""
        faults = []
        words = ("score", "shop.yaml", "--model", "bundle", *_BOOK)
        for what, days in (("same date", [SECOND] * number), ("two dates", [SECOND, SECOND + timedelta(30)])):
            folder = self.copy("score")
            each = [(*words, "--as-of", str(day), "--out", f"{n}.parquet") for n, day in enumerate(days)]
            codes = [one.code for one in self.together(folder, *each)]
            graded = sorted(path.name for path in (folder / "book").glob("*.parquet"))
            won = {str(day) for day, code in zip(days, codes, strict=True) if code == 0}
            right = 0 in codes and set(codes) <= {0, 2, 6} and (what == "two dates" or 2 not in codes)
            right &= graded == sorted(f"{day}.parquet" for day in {str(FIRST), *won})
            faults += [f"{what}: {codes}, {graded}"] * (not right) + self._proof(folder)
        return faults

    def _forgetting(self) -> list[str]:
        """Forget a person while a date is graded: who comes later goes on, or is told to wait."""
        folder = self.copy("score")
        score, forget = self.together(folder, COMMANDS["score"].words, COMMANDS["forget"].words)
        faults = [f"forget beside score: {score.code}, {forget.code}"] * (
            {score.code, forget.code} not in ({0}, {0, 6}) or "Traceback" in score.err + forget.err
        )
        again = self.together(folder, COMMANDS["forget"].words)[0]
        gone = COMMANDS["forget"].words[2].encode()
        left = [path.name for path in (folder / "book").glob("*.parquet") if gone in path.read_bytes()]
        return faults + [f"forget again: {again.code}, {left}"] * (again.code != 0 or bool(left)) + self._proof(folder)

    def _proof(self, folder: Path) -> list[str]:
        proof = self.together(folder, ("ledger", "check", "book"))[0]
        shutil.rmtree(folder.parent)
        return [f"ledger check: {proof.code} {proof.out[-300:]}"] * (proof.code != 0)

    def clean(self, verb: str) -> Clean:
        """Run a verb where nothing fails."""
        folder, began = self.copy(verb), time.perf_counter()
        before = state(folder)
        started = self.start(folder, verb, (10**9, 1))
        ran = started.wait()
        assert ran.code == COMMANDS[verb].code, (verb, ran)
        after, steps = state(folder), started.steps
        assert before != after or verb in {"promote", "rollback"}, verb
        assert not leftovers(folder, after), (verb, leftovers(folder, after))
        shutil.rmtree(folder.parent)
        return Clean(before, after, steps, time.perf_counter() - began)

    def stopped(self, verb: str, clean: Clean, step: int, error: int) -> list[str]:
        """Let a step of a verb fail, run it again, and say what is wrong."""
        folder = self.copy(verb)
        return self.judged(folder, verb, clean, self.start(folder, verb, (step, error)).wait())

    def judged(self, folder: Path, verb: str, clean: Clean, ended: Ran) -> list[str]:
        """Say what is wrong after a run that ended early, and with the run after it; the folder goes."""
        faults = self._faults(folder, verb, clean, ended)
        shutil.rmtree(folder.parent)
        return faults

    def _faults(self, folder: Path, verb: str, clean: Clean, ended: Ran) -> list[str]:
        old, new = clean.old, clean.new
        command, faults = COMMANDS[verb], list[str]()
        if ended.code not in {*CODES, 0, -9, command.code}:
            faults.append(f"exit {ended.code}: {ended.err[-300:]}")
        if "Traceback" in ended.err:
            faults.append(f"traceback: {ended.err[-600:]}")
        told = ended.err.rpartition("tiermodel:")[2].replace(os.strerror(errno.EIO), "")
        if ended.code in CODES - {command.code} and not re.search(r"[./]\w", told):
            faults.append(f"no path: {ended.err[-200:]}")
        found = state(folder)
        mixed = [
            name for name in {*old, *new, *found} if found.get(name) not in {old.get(name), new.get(name)}
            and not _is_scratch(name)
        ]  # fmt: skip
        seen = {name: content for name, content in found.items() if not _is_scratch(name)}
        if mixed and verb not in {"refresh", "forget"}:
            faults.append(f"neither old nor new: {sorted(mixed)}")
        elif command.together and ended.code != -9 and seen not in (old, new):
            faults.append(f"some old, some new: {sorted(n for n in new if seen.get(n) != new[n])}")
        if not command.again and (seen == new or verb in {"promote", "rollback"}):
            return faults + self._tidy(folder, verb, new)
        ran = self.start(folder, verb).wait()
        if ran.code != command.code:
            faults.append(f"the next run: exit {ran.code}: {ran.err[-300:]}")
        after = state(folder)
        if after != new:
            faults.append(f"after the next run: {_odd(after, new)}")
        return faults

    def _tidy(self, folder: Path, verb: str, new: dict[str, bytes]) -> list[str]:
        """Run a verb once more that says no to it, or does something else, and say what it leaves in scratch."""
        ran = self.start(folder, verb).wait()
        left = leftovers(folder, new) if verb != "ledger override" else []
        wrong = [] if ran.code in {0, *CODES} and "Traceback" not in ran.err else [f"the next run: {ran.err[-300:]}"]
        return wrong + ([f"left: {left}"] if left else [])


def state(folder: Path) -> dict[str, bytes]:
    """Give the files of a folder, but those that differ from run to run."""
    found = files_of(folder, CHANGING)
    known = {
        name: content.replace(str(folder).encode(), b"HERE") for name, content in found.items()
        if not re.match(r"\.?(mlflow\.db|mlartifacts|tune\.db)", name)
    }  # fmt: skip
    return {name: b"salted" if name.endswith("erased.json") else content for name, content in known.items()}


def _odd(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    return sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name))


def leftovers(folder: Path, wanted: dict[str, bytes]) -> list[str]:
    """Name files that no run without a fault leaves."""
    return sorted(name for name in state(folder) if _is_scratch(name) and name not in wanted)


def _is_scratch(name: str) -> bool:
    return name.startswith("scratch/") or bool(re.search(r"(^|/)\.", name))


def make_shop(folder: Path) -> Shop:
    """Make the folders to start from, in a process of their own: MLflow keeps what it opened."""
    process = FORKS.Process(target=_make, args=(str(folder),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return Shop(folder)


def _make(folder: str) -> None:
    from tiermodel.tracking.connection import opened_store  # noqa: PLC0415
    from worlds import bare_runs, quick_fits  # noqa: PLC0415

    shop = Path(folder) / "shop"
    shop.mkdir(parents=True)
    rows = pd.read_parquet(small_world(shop.parent / "rows.parquet", customers=300))
    pd.concat([rows, rows.head(1).assign(amount=float("nan"))]).to_csv(shop / "rows.csv", index=False)
    rows.drop(columns="product").to_csv(shop / "raw.csv", index=False)
    made = small_project(Path("rows.csv"), name="shop", policy="retail", refresh={"exports": ["desk.yaml"]})
    settings = made.model_dump(mode="json", exclude={"folder"}, exclude_unset=True)
    settings["tracking"] = {"uri": "sqlite:///mlflow.db"}
    (shop / "shop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (shop / "desk.yaml").write_text(yaml.safe_dump(MAPPING), encoding="utf-8")
    os.chdir(shop)
    with quick_fits(), bare_runs():
        _told("train", "shop.yaml", "--as-of", str(FIRST), "--out", "bundle", "--register")
        _told("score", "shop.yaml", "--model", "bundle", "--as-of", str(FIRST), "--out", "s.parquet", *_BOOK)
        _told("features", "shop.yaml", "--as-of", str(FIRST), "--out", "of_scores.parquet")
        (shop / "of_scores.quarantine.csv").unlink()
        pd.read_parquet("s.parquet").head(250).to_parquet("few.parquet")
        _told("export", "few.parquet", "--to", "csv", "--mapping", "desk.yaml", "--out", "export")
        shutil.copytree("bundle", "model")
        (shop / "kept").mkdir()
        shutil.copy("s.parquet", "kept/s.parquet")
        shutil.copy("s.parquet", "kept/t.parquet")
        shutil.copytree("export", "kept/export")
        (shop / "lists").mkdir()
        for command in COMMANDS.values():
            for name in command.outputs:
                (shop / name).write_text("old")
        two = shop.with_name("two")
        shutil.copytree(shop, two)
        os.chdir(two)
        _told("train", "shop.yaml", "--as-of", str(SECOND), "--out", "model", "--register")
        with opened_store(f"sqlite:///{two}/mlflow.db") as client:
            client.set_registered_model_alias("shop", "champion", "2")
            client.set_registered_model_alias("shop", "previous", "1")
            client.set_registered_model_tag("shop", "champions", "1,2")


def _told(*words: str) -> None:
    sys.argv = ["tiermodel", *words]
    main()
