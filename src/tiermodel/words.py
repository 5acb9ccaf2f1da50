"""Texts that users read in the project's language: each stands once, in both, in `templates/words.yaml`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import accumulate
from typing import TypeVar

__all__ = ["in_language", "notebook_table", "numbered", "visible", "words"]


_Thing = TypeVar("_Thing")
# what a terminal obeys, what turns the direction of a text, and what nobody sees, but for line breaks and tabs
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def in_language(language: str, zh: _Thing, en: _Thing) -> _Thing:
    """Return `zh` where the language is zh, `en` elsewhere.

    >>> in_language("zh", "客户", "customer"), in_language("en", "客户", "customer")
    ('客户', 'customer')
    """
    return zh if language == "zh" else en


def visible(text: str) -> str:
    r"""Return a text for a terminal or a log: control, direction and unseen characters as their codes, as in JSON.

    >>> visible("\x1b[31mA\u202eB\n")
    '\\u001b[31mA\\u202eB\n'
    """
    return _UNSEEN.sub(lambda mark: f"\\u{ord(mark[0]):04x}", text)


@cache
def words(language: str) -> Mapping[str, str]:
    """Return every text of `words.yaml` by its key, in one language: zh or en."""
    return {key: in_language(language, *pair) for key, pair in _pairs().items()}


def notebook_table(language: str, title: str, rows: Iterable[Sequence[object]], heads: Sequence[str] = ()) -> str:
    """Return a static HTML table for a notebook; the first cell of each row names it, and every text is escaped.

    >>> notebook_table("en", "a < b", [("customers", 1234)])
    '<table lang="en"><caption>a &lt; b</caption><tr><th scope="row">customers</th><td>1,234</td></tr></table>'
    """
    lines = ["".join(f'<th scope="col">{escape(head)}</th>' for head in heads)] if heads else []
    for name, *cells in rows:
        shown = "".join(f"<td>{escape(_cell(value))}</td>" for value in cells)
        lines.append(f'<th scope="row">{escape(str(name))}</th>{shown}')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table lang="{language}"><caption>{escape(title)}</caption>{body}</table>'


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1_000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


@cache
def _pairs() -> dict[str, tuple[str, str]]:
    from importlib import resources  # noqa: PLC0415  # the command line imports this module whatever it does

    import yaml  # noqa: PLC0415

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C it takes a tenth of the time
    text = (resources.files("tiermodel") / "templates" / "words.yaml").read_text(encoding="utf-8")
    return {key: (zh, en) for key, (zh, en) in yaml.load(text, loader).items()}  # noqa: S506


def numbered(progress: Callable[[str], None], weights: Sequence[float]) -> Callable[[str], None]:
    """Return a callable that tells a step with its number, of how many, and how much of the work is done before it.

    `weights` are how long the steps take beside each other.

    >>> step = numbered(print, (1, 3, 4))
    >>> step("reading"), step("fitting")
    1/3 (0 %) reading
    2/3 (12 %) fitting
    (None, None)
    """
    total = sum(weights)
    before = enumerate(accumulate(weights[:-1], initial=0), 1)

    def tell(text: str) -> None:
        number, done = next(before, (len(weights), total))
        progress(f"{number}/{len(weights)} ({100 * done / total:.0f} %) {text}")

    return tell
