"""The encoding of a text file, told by its bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["encoding_of"]

_LONGEST = 4  # bytes of a character, of which a block may hold a part at its ends
_FEWEST = 0.9
_FOURS = re.compile(rb"[\x81-\xfe][0-9][\x81-\xfe][0-9]")  # of GB18030: "¥", Western letters, rare characters
_PAIRS = re.compile(rb"[\x81-\xfe][\x40-\x7e\x80-\xfe]|[\x80-\xff]")


def encoding_of(blocks: Sequence[bytes]) -> str:
    """Return the encoding of blocks of one text, each of whole lines: UTF-8, UTF-16, GB18030 or else cp1252.

    Chinese characters in GB18030 have two bytes of high values, one beside the other; in Western texts such bytes stand
    alone between letters. Characters of four bytes, such as the "¥" of an amount, tell nothing.

    >>> encoding_of(["订单编号,金额".encode("gb18030")]), encoding_of(["Müller;Café".encode("cp1252")])
    ('gb18030', 'cp1252')
    >>> encoding_of(["金额;¥1,234.50;¥8.00".encode("gb18030")])
    'gb18030'
    >>> encoding_of(["订单编号".encode()])
    'utf-8'
    """
    text = b"\n".join(blocks)
    if text[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return "utf-16"
    if all(_decodes(block, "utf-8") for block in blocks):
        return "utf-8"
    pairs = _PAIRS.findall(_FOURS.sub(b" ", text))
    common = sum(len(pair) == 2 and pair[0] >= 0xA1 and pair[1] >= 0xA1 for pair in pairs)
    chinese = common >= _FEWEST * len(pairs) and all(_decodes(block, "gb18030") for block in blocks)
    return "gb18030" if chinese else "cp1252"


def _decodes(block: bytes, encoding: str) -> bool:
    try:
        block.decode(encoding)
    except UnicodeDecodeError as error:
        return error.start >= len(block) - _LONGEST and error.reason.startswith(("unexpected end", "incomplete"))
    return True
