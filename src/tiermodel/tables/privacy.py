"""Keyed hashes in place of customer ids, and shapes in place of values."""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import pyarrow as pa
import pyarrow.compute as pc

from tiermodel.config.project import Project
from tiermodel.errors import ProjectError

__all__ = ["hash_key", "masked", "public_ids", "shows_values", "values_shown"]

_SHORTEST_KEY = 32
_HASH_CHARACTERS = 32
_LONGEST_SHAPE = 60
_SHOWN: ContextVar[bool] = ContextVar("values_shown", default=False)


def hash_key(project: Project) -> bytes | None:
    """Return the key of `data.hash_ids` from its environment variable; None where ids are not hashed.

    Raises ProjectError, which names the variable and never its value, where the key is missing or short.
    """
    name = project.data.hash_ids
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if len(key) < _SHORTEST_KEY:
        fault = f"has {len(key)} characters" if key else "is not set"
        raise ProjectError(
            f"data.hash_ids: the environment variable {name} {fault}; put a secret of at least {_SHORTEST_KEY} "
            "characters there (made by: openssl rand -hex 32), the same for every run, and keep it out of files"
        )
    return key.encode()


def public_ids(customers: pa.Array, key: bytes | None) -> pa.Array:
    """Return ids as text, or with a key the first 128 bits, in hex, of HMAC-SHA-256 of that text in UTF-8.

    Among a thousand million customers, two share a hash with probability 1.5e-21. PostgreSQL computes the same by
    `left(encode(hmac(id, key, 'sha256'), 'hex'), 32)`.

    >>> public_ids(pa.array([13085]), b"0123456789abcdef0123456789abcdef")[0].as_py()
    'cd32191b09125d20c896121207f4052f'
    """
    texts = pc.cast(customers, pa.string())
    if key is None:
        return texts
    keyed = hmac.new(key, digestmod="sha256")  # copied: twice as fast as starting from the key for every id

    def hashed(text: str) -> str:
        one = keyed.copy()
        one.update(text.encode())
        return one.hexdigest()[:_HASH_CHARACTERS]

    return pa.array(map(hashed, texts.to_pylist()), pa.string(), size=len(texts))


@contextmanager
def values_shown() -> Iterator[None]:
    """Let messages and quarantine files that are written in this block show ids and personal data as they stand.

    Where ids are hashed (`data.hash_ids`) they show shapes all the same.
    """
    token = _SHOWN.set(True)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def shows_values() -> bool:
    """Return whether ids and personal data may be shown: inside `values_shown` only."""
    return _SHOWN.get()


def masked(value: str) -> str:
    """Return the shape of a value, which shows a fault but no person: digits become 9, letters A or a.

    >>> masked("2024-02-30"), masked("张三 13800138000"), masked("¥12.5"), masked("AB-x1")
    ('9999-99-99', 'aa 99999999999', '¥99.9', 'AA-a9')
    """
    digits = re.sub(r"\d", "9", value)
    return re.sub(r"[^\W\d_]", lambda letter: "A" if letter[0].isupper() else "a", digits)[:_LONGEST_SHAPE]
