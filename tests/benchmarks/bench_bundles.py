"""Damaged bundles, with and without a right manifest: what becomes of each one that is loaded and scores a small table.

python tests/benchmarks/bench_bundles.py [--count 2000] [--seed 1] [--keep FOLDER]

Every variant runs in a process of its own, forked from one that is warm. It is refused by a `ModelError` of one line,
or scores as the original, or gives scores in their ranges; anything else (an end by a signal, more than 20 seconds,
another exception) is a fault: it is printed, kept with `--keep`, and the exit code is 1. Variants are of the bundle in
models/, and of the same with other schemes, segments and a conversion model.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # a process that is forked from one with threads may wait for them for good
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

from bundle_variants import Variant, variants, write_variant
from tiermodel.bundle.bundle import Bundle, load_bundle
from tiermodel.errors import ModelError
from tiermodel.features.frame import has_bought
from tiermodel.models.calibrated_ensemble import CalibratedEnsemble
from tiermodel.models.learners.boosting import fit_boosted
from tiermodel.models.learners.linear import fit_logistic
from tiermodel.predict import predict
from tiermodel.segments.fit import FITS, scale_of, standardised
from tiermodel.tiers.fitted_scheme import fit_scheme
from tiermodel.tiers.schemes.load import load_preset, parse_scheme, scheme_data

ROOT = Path(__file__).resolve().parents[2]
DEMO, SNAPSHOT = ROOT / "models" / "complete-journey", ROOT / "tests" / "golden" / "complete_journey_snapshot.parquet"
SECONDS, ROWS, WORKERS = 20, 40, 2
FAULTS = ("killed", "hangs", "traceback", "out of range")
FORKS = multiprocessing.get_context("fork")
RULE = {"up": {"band": 0.03, "confirmations": 2}, "down": {"band": 0.05, "confirmations": 2}}


class Outcome(NamedTuple):
    """What became of a variant, and what it said."""

    kind: str
    said: str


def bases(frame: pd.DataFrame) -> dict[str, Bundle]:
    """Return bundles of every kind of scheme and segments, by name."""
    demo = load_bundle(DEMO)
    windows = demo.settings["features"]["windows_days"]
    frame = frame.assign(outcome_value=frame["net_amount_30d"])
    earlier = frame.assign(as_of=frame["as_of"] - pd.Timedelta(days=30))
    found = {"demo": replace(demo)}
    for name in ("pyramid", "rfm", "kaism", "four_indicators", "vip_cascade"):
        data = scheme_data(load_preset(name, windows)) | {"stability": RULE}
        fitted = fit_scheme(parse_scheme(data, name, windows), frame, earlier, 7)
        found[name] = with_levels(replace(demo, scheme=fitted), len(fitted.scheme.levels))
    learned = scheme_data(demo.scheme.scheme)
    for learner in ("ordinal_boosting", "neural_network"):
        scheme = parse_scheme({**learned, "learner": learner}, learner, windows)
        found[learner] = replace(demo, scheme=fit_scheme(scheme, frame, earlier, 7, 30))
    z = standardised(scale_of(frame), frame)
    mixture, dense = (scale_of(frame) | FITS[way](z, k, 7, 1) for way, k in (("gaussian_mixture", 3), ("hdbscan", 0.1)))
    found["mixture"] = replace(found["pyramid"], segments=mixture)
    names = demo.inputs.names[:6]
    x = frame[list(names)].to_numpy(dtype=np.float64)
    y = frame["net_amount_30d"].to_numpy() > frame["net_amount_30d"].median()
    chance = fit_boosted(x, y.astype(float), list(names), 20, 7, objective="binary")
    conversion = CalibratedEnsemble(names, fit_logistic(x, y), chance, (0.0, 1.0))
    found["dense"] = replace(found["rfm"], segments=dense, prospects=conversion)
    return found


def with_levels(bundle: Bundle, levels: int) -> Bundle:
    """Return a bundle whose model of the tier to come has so many levels, taken from another number of them."""
    tier, wanted = bundle.tier, levels - 1
    boosted = (tier.boosted * wanted)[:wanted]
    shares = (tier.share_above * wanted)[:wanted]
    mass = (tier.mass * levels)[:levels]
    return replace(bundle, tier=replace(tier, boosted=boosted, share_above=shares, mass=mass))


def outcome_of(folder: Path, frame: pd.DataFrame, original: pd.DataFrame) -> Outcome:
    """Load a bundle, score a table, and compare: what is printed and written is left to the process."""
    try:
        scores = predict(load_bundle(folder), frame)
    except ModelError as error:
        told = str(error)
        return Outcome("refused", told) if "\n" not in told else Outcome("traceback", f"lines: {told}")
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what is looked for
        return Outcome("traceback", f"{type(error).__name__}: {error}")
    if beyond := out_of_range(scores):
        return Outcome("out of range", beyond)
    aside = ["model_version", "scheme_version"]
    same = scores.drop(columns=aside).astype(str).equals(original.drop(columns=aside).astype(str))
    return Outcome("same scores" if same else "other scores", "")


def out_of_range(scores: pd.DataFrame) -> str:
    """Return the name of a score that is outside of its range, by rules of its own; empty where there is none."""
    for name in map(str, scores.select_dtypes("number")):
        values = scores[name].to_numpy(dtype=np.float64)
        known = values[~np.isnan(values)]
        share = name.startswith("p_") or name in {"churn_risk", "upgrade_potential", "conversion_chance"}
        if share and not ((known >= 0) & (known <= 1)).all():
            return name
        if name != "contact_threshold" and not np.isfinite(known).all():
            return name
    if scores[[name for name in scores.columns if name.startswith("p_")]].isna().to_numpy().any():
        return "p_"
    return "expected_value" if scores.loc[scores["movement"] == "", "expected_value"].isna().any() else ""


def try_variant(variant: Variant, frame: pd.DataFrame, original: pd.DataFrame, keep: Path | None) -> Outcome:
    """Write a variant and see in a process of its own what becomes of it."""
    scratch = Path(tempfile.mkdtemp())
    folder, (receive, send) = write_variant(variant.files, scratch / "bundle"), FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=lambda: send.send(outcome_of(folder, frame, original)))
    process.start()
    send.close()
    until = time.monotonic() + SECONDS
    found = Outcome("hangs", f"{SECONDS} s")
    if receive.poll(SECONDS):
        try:
            found = receive.recv()
        except EOFError:
            process.join()
            found = Outcome("killed", f"exit code {process.exitcode}")
    process.join(max(0.0, until - time.monotonic()))
    if process.is_alive():
        process.kill()
        process.join()
    if keep is not None and found.kind in FAULTS:
        shutil.copytree(folder, keep / scratch.name)
    shutil.rmtree(scratch)
    return found


def main() -> None:
    """Print how many variants there are of each outcome, and every fault."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--count", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--keep", type=Path)
    given = arguments.parse_args()
    rows = pd.read_parquet(SNAPSHOT)
    frame = rows[has_bought(rows)].iloc[:ROWS].reset_index(drop=True)
    frame.loc[0, [name for name in frame if name not in {"customer_id", "as_of"}]] = np.nan  # a prospect
    bundles = bases(rows)
    files = {name: dict(bundle._files) for name, bundle in bundles.items()}
    originals = {name: predict(bundle, frame) for name, bundle in bundles.items()}
    started, faults = time.monotonic(), list[str]()
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}

    def tried(variant: Variant) -> tuple[Variant, Outcome]:
        return variant, try_variant(variant, frame, originals[variant.told.split(" ")[0]], given.keep)

    for name, original in files.items():  # what was not changed scores as it did
        assert tried(Variant(name, original))[1].kind == "same scores", name
    with ThreadPoolExecutor(WORKERS) as pool:
        for variant, found in pool.map(tried, variants(files, given.count, given.seed)):
            counts["manifest as it was" not in variant.told][found.kind] += 1
            if found.kind in FAULTS:
                faults.append(f"{found.kind}: {variant.told}: {found.said[:300]}")
            if found.kind == "other scores":
                print(f"other scores: {variant.told}")
    for hashed, of_kind in counts.items():
        told = ", ".join(f"{count} {kind}" for kind, count in of_kind.most_common())
        print(f"{sum(of_kind.values())} {'with' if hashed else 'without'} a right manifest: {told}")
    print(f"{time.monotonic() - started:.0f} s", *faults, sep="\n")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
