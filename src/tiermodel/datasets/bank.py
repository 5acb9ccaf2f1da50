"""A bank of the seeded world: the same customers with a balance and a credit grade, and a project that grades them."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tiermodel.datasets.synthetic import World, make_world

__all__ = ["bank_world", "write_bank"]

_GRADES = 5  # 5 is the best
_BUSINESS = (90, 365)  # a balance is the business of so many days


def bank_world(customers: int = 1500, seed: int = 7) -> World:
    """Return the world behind the bank's tables, which knows what is true of every customer.

    >>> world = bank_world(customers=50)
    >>> float(world.p_silent(date(2023, 10, 1), 90).between(0, 1).mean())
    1.0
    """
    return make_world(seed=seed, customers=customers, future_days=1)


def write_bank(folder: str | Path, customers: int = 1500, seed: int = 7) -> Path:
    """Write the tables that `configs/bank.yaml` reads, Parquet files in a folder, and return the folder.

    Transactions are fees and interest earned. The balance is some months of a customer's business, and the credit grade
    (5 is the best) follows the mean delay of payments, both with noise and as known when the customer signed up.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     sorted(path.name for path in write_bank(folder, customers=50).iterdir())
    ['customers.parquet', 'invoices.parquet', 'transactions.parquet']
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    world, draw = bank_world(customers, seed), np.random.default_rng(seed)
    truth = world.truth.reindex(world.tables["customers"]["customer_id"].to_pylist())
    n = len(truth)
    business = (truth["rate"] * truth["order_amount"]).fillna(0.0).to_numpy() * draw.uniform(*_BUSINESS, n)
    late = truth["late_days"].fillna(0.0).rank(pct=True).to_numpy() + draw.normal(0, 0.15, n)
    grade = _GRADES - np.clip(np.floor(late * _GRADES), 0, _GRADES - 1)
    signup = world.tables["customers"]["signup"]
    people = {
        "customer_id": world.tables["customers"]["customer_id"], "signup": signup,
        "known_from": signup.fill_null(pa.scalar(date(2022, 1, 1), signup.type)) if signup.null_count else signup,
        "balance": pa.array(np.round(business, 2)), "credit_grade": pa.array(grade.astype(np.int64)),
    }  # fmt: skip
    pq.write_table(pa.table(people), folder / "customers.parquet")
    for name in ("transactions", "invoices"):
        pq.write_table(world.tables[name], folder / f"{name}.parquet")
    return folder
