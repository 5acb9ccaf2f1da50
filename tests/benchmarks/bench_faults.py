"""Break every verb that writes: each step on the disk fails once, and runs are killed at random steps and moments.

    python tests/benchmarks/bench_faults.py [--kills 200] [--every 1] [--at-once 5] [--verbs score train]

After each fault every file must be as before or as after a run without a fault, a failure must be told by an exit code
and a sentence with a path, and the next run must leave what a run without a fault leaves, and nothing else. Last, runs
of one verb meet, eight at a time.
"""

from __future__ import annotations

import argparse
import errno
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from failpoints import KILL
from writing_verbs import COMMANDS, Clean, Shop, make_shop

ERRORS = (errno.ENOSPC, errno.EIO)


def told(what: str, faults: list[str]) -> int:
    """Print faults, and return 1 where there are some."""
    for fault in faults:
        print(f"{what}: {fault}", flush=True)
    return bool(faults)


def every_step(shop: Shop, verb: str, clean: Clean, every: int, first: int) -> str:
    """Let each step (or one in `every`) fail, by a full and by a broken disk in turn."""
    steps = range(1 + first % every, len(clean.steps) + 1, every)
    bad = sum(
        told(f"{verb}, step {step} ({clean.steps[step - 1]})", shop.stopped(verb, clean, step, ERRORS[step % 2]))
        for step in steps
    )
    return f"{verb}: {len(steps)} of {len(clean.steps)} steps failed once: {bad} faults"


def kills(shop: Shop, cleans: dict[str, Clean], number: int) -> str:
    """Kill runs of all verbs in turn, at a random step on the disk or a random moment."""
    draw, bad, early = random.Random(11), 0, 0  # noqa: S311
    verbs = list(cleans)
    for n in range(number):
        verb, clean = verbs[n % len(verbs)], cleans[verbs[n % len(verbs)]]
        folder = shop.copy(verb)
        if n // len(verbs) % 2:
            step = draw.randint(1, len(clean.steps))
            what, ended = f"killed at step {step}", shop.start(folder, verb, (step, KILL)).wait()
        else:
            moment = draw.uniform(0.1, 1.0) * clean.seconds
            started = shop.start(folder, verb)
            time.sleep(moment)
            started.process.kill()
            what, ended = f"killed after {moment:.1f} s", started.wait()
        early += ended.code == -9
        if n % len(verbs) == 0:
            print(f"{n} kills, {early} of them before the end, {bad} faults so far", flush=True)
        bad += told(f"{verb}, {what}", shop.judged(folder, verb, clean, ended))
    return f"{number} kills, {early} of them before the end: {bad} faults"


def main() -> None:
    """Print a line for every fault, and the counts."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--kills", type=int, default=200)
    arguments.add_argument("--every", type=int, default=1)
    arguments.add_argument("--at-once", type=int, default=5)
    arguments.add_argument("--verbs", nargs="+", default=list(COMMANDS))
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as name:
        shop = make_shop(Path(name) / "shops")
        cleans = {verb: shop.clean(verb) for verb in asked.verbs}
        print({verb: (len(clean.steps), round(clean.seconds, 1)) for verb, clean in cleans.items()}, flush=True)
        if asked.every:
            for place, (verb, clean) in enumerate(cleans.items()):
                print(every_step(shop, verb, clean, asked.every, place), flush=True)
        print(kills(shop, cleans, asked.kills), flush=True)
        bad = sum(told(f"round {n}", shop.at_once(8)) for n in range(asked.at_once))
        print(f"{asked.at_once} rounds of eight runs at once: {bad} with faults", flush=True)


if __name__ == "__main__":
    main()
