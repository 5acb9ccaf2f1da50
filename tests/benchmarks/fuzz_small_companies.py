"""Take 60 seeded small companies through check, train, backtest and score: each gets a model, or a named refusal.

    python tests/benchmarks/fuzz_small_companies.py [--quick] [SEED …]

Warnings count as errors. Exit 1 where a company ends in anything else than a model with finite predictions in range, or
a refusal that `check` and `train` give in the same words.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from small_companies import Company, outcome_of
from worlds import quick_fits

COMPANIES = 60


def main() -> None:
    """Print what becomes of each company, and count it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("seeds", nargs="*", type=int, default=range(COMPANIES))
    options.add_argument("--quick", action="store_true", help="Grow few trees and draw few resamples.")
    asked = options.parse_args()
    warnings.simplefilter("error")
    counts = Counter[str]()
    with quick_fits() if asked.quick else nullcontext():
        for seed in asked.seeds:
            company, start = Company.make(seed), time.process_time()
            with TemporaryDirectory() as folder:
                try:
                    found = outcome_of(company, Path(folder))
                except Exception:  # noqa: BLE001  the very thing that is looked for
                    found = f"FAULT {traceback.format_exc(limit=-6)}"
            counts[found.split(maxsplit=1)[0]] += 1
            print(f"{company.name} | {found} | {time.process_time() - start:.1f} s", flush=True)
    print(dict(counts))
    sys.exit(1 if counts["FAULT"] else 0)


if __name__ == "__main__":
    main()
