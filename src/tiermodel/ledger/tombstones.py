"""Tombstones of a ledger: whose rows were erased, and stay out of later gradings until that is revoked.

A tombstone holds neither the id nor a plain hash of it, but an HMAC under a salt of the ledger. Whoever has the ledger
and can guess an id can still tell whether it was erased: without that, nobody could keep the person out.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from tiermodel import disk
from tiermodel.errors import LedgerError
from tiermodel.output import Staged

__all__ = ["TOMBSTONES", "Tombstones", "read_tombstones"]

TOMBSTONES = "erased.json"
"""The file of the tombstones in a ledger's folder."""

_FORMAT, _DIGITS = 1, 32


class Tombstones:
    """The tombstones of a ledger; `in` tells whether a customer's rows were erased, `len` how many customers'."""

    def __init__(self, salt: str, erased: Iterable[str] = ()) -> None:
        self.salt, self.erased = salt, frozenset(erased)
        self._key = hmac.new(bytes.fromhex(salt), digestmod="sha256")

    def __len__(self) -> int:
        """Return how many customers were erased."""
        return len(self.erased)

    def __contains__(self, customer: str) -> bool:
        """Return whether a customer was erased."""
        return bool(self.erased) and self._digest(customer) in self.erased

    def _digest(self, customer: str) -> str:
        one = self._key.copy()
        one.update(customer.encode())
        return one.hexdigest()[:_DIGITS]

    def with_customer(self, customer: str) -> Tombstones:
        """Return the tombstones and one for a customer."""
        return Tombstones(self.salt, {*self.erased, self._digest(customer)})

    def without_customer(self, customer: str) -> Tombstones:
        """Return the tombstones but that of a customer."""
        return Tombstones(self.salt, self.erased - {self._digest(customer)})

    def left_out(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Yield batches with a column `customer_id` without the rows of erased customers."""
        for batch in batches:
            kept = [customer not in self for customer in batch["customer_id"].to_pylist()]
            yield batch if all(kept) else batch.filter(pa.array(kept, pa.bool_()))

    def write(self, folder: Path, into: Staged) -> None:
        """Write them into a ledger's folder, put in place with the other files of `into`."""
        told = {"format": _FORMAT, "salt": self.salt, "erased": sorted(self.erased)}
        disk.write_bytes(into.add(folder / TOMBSTONES), f"{json.dumps(told, indent=2)}\n".encode())


def read_tombstones(folder: Path) -> Tombstones:
    """Return the tombstones in a ledger's folder, none and a new salt where there is no file of them.

    Raises `LedgerError` for a damaged file.
    """
    path = folder / TOMBSTONES
    if not path.exists():
        return Tombstones(secrets.token_hex(16))
    try:
        found = json.loads(path.read_bytes())
        return {_FORMAT: Tombstones(found["salt"], found["erased"])}[found["format"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LedgerError(f"{path} is damaged: {error}; put back a copy from a backup") from None
