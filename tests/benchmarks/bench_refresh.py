"""Break `tiermodel refresh` everywhere: every step on the disk fails once, and the process is killed at random moments.

    python tests/benchmarks/bench_refresh.py [--kills 40] [--every 1]

A small world (400 customers), first with a champion, then without one, so that the run trains, registers and promotes.
After each fault the refresh runs again and must complete; every file of its folder, its ledger and its champion must be
those of a run without a fault, nothing half written may lie about, and `CURRENT` must name the run.
"""

from __future__ import annotations

import argparse
import errno
import itertools
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from failpoints import failing
from run_folders import files_of
from tiermodel.config.project import load_project
from tiermodel.errors import TierModelError
from tiermodel.jobs.refresh import refresh
from tiermodel.tracking import comparison
from tiermodel.tracking.registry import champion_of
from worlds import bare_runs, small_project, small_world

NUMBERS = itertools.count()
CHANGING = ("seconds", "registered", "champion", "said")  # of a manifest: times, numbers of versions, words with them


def world(folder: Path) -> Path:
    """Make a folder with the project file of a small world, and an empty one for its store."""
    folder.mkdir()
    project = small_project(small_world(folder / "t.parquet"))
    settings = project.model_dump(mode="json", exclude_unset=True)
    settings["data"]["transactions"]["path"] = "t.parquet"
    settings.pop("folder", None)
    settings["tracking"] = {"uri": "sqlite:///mlflow.db"}
    (folder / "project.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return folder


def run(shop: Path) -> None:
    """Run the refresh in this process."""
    os.chdir(shop)
    refresh(load_project(shop / "project.yaml"))


def state(shop: Path) -> tuple[dict[str, bytes], str, str | None]:
    """Return what a complete run leaves: its files, what `CURRENT` names, and the version of the champion."""
    os.chdir(shop)  # to which the tracking store of the project is relative
    champion = champion_of(load_project(shop / "project.yaml"))
    version = None if champion is None else champion.version
    found = files_of(shop / "runs", CHANGING).items()
    files = {name: content.replace(str(shop).encode(), b"SHOP") for name, content in found}
    return files, (shop / "runs" / "CURRENT").readlink().name, version


def judged(shop: Path, wanted: tuple[Any, ...], what: str) -> int:
    """Finish the run, and print what is not as it is without a fault; return 1 for a fault."""
    try:
        run(shop)
    except TierModelError as error:
        print(f"{what}: the next run ends: {error}", flush=True)
        return 1
    found = state(shop)
    if found == wanted:
        return 0
    odd = sorted(n for n in {*found[0], *wanted[0]} if found[0].get(n) != wanted[0].get(n))
    print(f"{what}: differs in {odd}, {found[1:]} for {wanted[1:]}", flush=True)
    return 1


def every_step(template: Path, wanted: tuple[Any, ...], every: int) -> str:
    """Let each step (or one in `every`) fail by a full disk, and finish."""
    shop = fresh(template)
    with failing(10**9, errno.ENOSPC) as taken:
        run(shop)
    bad, silent, steps = 0, 0, range(1, len(taken) + 1, every)
    for step in steps:
        shop = fresh(template)
        try:
            with failing(step, errno.ENOSPC):
                run(shop)
            silent += 1
        except TierModelError:
            pass
        except Exception as error:  # noqa: BLE001  what a user would see as a traceback
            print(f"step {step} ({taken[step - 1]}): {type(error).__name__}: {error}", flush=True)
            bad += 1
        bad += judged(shop, wanted, f"step {step} ({taken[step - 1]})")
    return f"{len(steps)} of {len(taken)} steps failed once, {silent} of them passed over: {bad} faults"


def random_kills(template: Path, wanted: tuple[Any, ...], kills: int, seconds: float) -> str:
    """Kill a process at random moments of its run, and finish in this one."""
    draw, bad, early, states = random.Random(7), 0, 0, dict[str, int]()  # noqa: S311
    for n in range(kills):
        shop = fresh(template)
        words = [sys.executable, "-m", "tiermodel", "refresh", "project.yaml"]
        with subprocess.Popen(words, cwd=shop, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as running:  # noqa: S603
            moment = draw.uniform(0.25, 1.05) * seconds
            time.sleep(moment)
            early += running.poll() is None
            running.kill()
        found = sorted((shop / "runs").glob("????-??-??/manifest.json")) if (shop / "runs").exists() else []
        done = len(json.loads(found[0].read_bytes())["stages"]) if found else -1
        states[str(done)] = states.get(str(done), 0) + 1
        bad += judged(shop, wanted, f"kill {n} after {moment:.1f} s, {done} stages done")
    return f"{kills} kills, {early} of them before the end, by stages done {states}: {bad} faults"


def fresh(template: Path) -> Path:
    """Return a copy of a folder, under a name of its own: MLflow keeps the connections to a store."""
    os.chdir(template)
    for old in template.parent.glob("work-*"):
        shutil.rmtree(old)
    return shutil.copytree(template, template.parent / f"work-{next(NUMBERS)}")


def main() -> None:
    """Print a line for every trial that leaves something else, and the counts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=40)
    arguments.add_argument("--every", type=int, default=1)
    asked = arguments.parse_args()
    comparison.DRAWS_AT_MOST = 400
    with tempfile.TemporaryDirectory() as name, bare_runs():
        template, trained = world(Path(name) / "shop"), Path(name) / "trained"
        shutil.copytree(template, trained)
        run(trained)
        os.chdir(template)
        shutil.rmtree(trained / "runs")
        for what, start in (("with a champion", trained), ("first run, which trains", template)):
            shop, began = fresh(start), time.perf_counter()
            words = [sys.executable, "-m", "tiermodel", "refresh", "project.yaml"]
            subprocess.run(words, cwd=shop, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # noqa: S603
            seconds, wanted = time.perf_counter() - began, state(shop)
            print(f"{what}: a run takes {seconds:.1f} s", flush=True)
            print(random_kills(start, wanted, asked.kills // 2, seconds), flush=True)
            print(every_step(start, wanted, asked.every), flush=True)


if __name__ == "__main__":
    main()
