"""Customers whose service costs more than they bring: a list for people to decide on, never acted on."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tiermodel import disk
from tiermodel.arrays import Floats, Ints
from tiermodel.output import Staged, escape_formulas
from tiermodel.policy.candidates import Candidates
from tiermodel.policy.service_policy import Policy

__all__ = ["Unprofitable", "advisory_path", "unprofitable", "write_advisory"]

_YEAR = 365
_HEAD = ("customer_id", "tier_code", "expected_value", "cost_to_serve", "difference", "approved_by", "approved_on")


@dataclass(frozen=True)
class Unprofitable:
    """The rows of such customers, the largest loss first, with what they bring and cost in the period."""

    rows: Ints
    brings: Floats
    costs: Floats
    unknown: int

    def sums(self, out: Path) -> dict[str, Any]:
        """Return how many there are, what they cost beyond what they bring, and the file that lists them."""
        file = advisory_path(out).name if len(self.rows) else None
        loss = float((self.costs - self.brings).sum())
        return {"customers": len(self.rows), "loss": loss, "without_value": self.unknown, "file": file}


def advisory_path(out: Path) -> Path:
    """Return the path of the list that belongs to an output."""
    return out.with_name(f"{out.stem}.advisory.csv")


def unprofitable(policy: Policy, found: Candidates, period_days: int) -> Unprofitable | None:
    """Return who costs more than they are expected to bring in the period; None where either is not known."""
    yearly = [level.cost_per_year for level in policy.levels.values()]
    if found.value is None or all(cost is None for cost in yearly):
        return None
    of_level = np.array([0.0 if cost is None else cost for cost in yearly]) * period_days / _YEAR
    costs = of_level[found.tier]
    known = np.array([cost is not None for cost in yearly])[found.tier]
    loss = np.where(known, costs - found.value, np.nan)
    rows = np.flatnonzero(loss > 0)
    rows = rows[np.argsort(-loss[rows], kind="stable")]
    unknown = int((known & np.isnan(found.value)).sum())
    return Unprofitable(rows, found.value[rows], costs[rows], unknown)


def write_advisory(listed: Unprofitable | None, policy: Policy, found: Candidates, out: Path, into: Staged) -> None:
    """Write the list beside an output, with empty columns for who approved what and when; remove an old one if empty.

    Nothing here reads the list: what is to follow from it is for a person to decide, customer by customer.
    """
    path = advisory_path(out)
    if listed is None or not len(listed.rows):
        into.remove(path)
        return
    codes, temporary = list(policy.levels), into.add(path)
    with disk.create(temporary) as file, io.TextIOWrapper(file, encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_HEAD)
        for row, brings, costs in zip(listed.rows.tolist(), listed.brings, listed.costs, strict=True):
            amounts = (f"{brings:.4f}", f"{costs:.4f}", f"{brings - costs:.4f}")
            who = escape_formulas(found.ids[row].as_py())
            writer.writerow((who, escape_formulas(codes[found.tier[row]]), *amounts, "", ""))
