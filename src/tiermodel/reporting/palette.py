"""The colours of the report in light and in dark: one for each tier, a few for series, and apart from them a status."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["DARK", "LIGHT", "contrast", "tier_colours"]

LIGHT = {
    "paper": "#ffffff",
    "panel": "#f3f5f8",
    "ink": "#1b2430",
    "muted": "#56616f",
    "grid": "#d5dbe3",
    "series": "#0f6b66",
    "second": "#7a5230",
    "good": "#1e7a34",
    "warn": "#935e00",
    "bad": "#b3261e",
}
DARK = {
    "paper": "#12171d",
    "panel": "#1b222b",
    "ink": "#e7ecf2",
    "muted": "#a3afbd",
    "grid": "#38434f",
    "series": "#4fc1b8",
    "second": "#d0a174",
    "good": "#6cc784",
    "warn": "#e3b04b",
    "bad": "#ff8a80",
}
"""`series` and `second` draw what is neither a tier nor a status, and `series` links; text is `ink` or `muted`."""
_TIERS = {
    "light": ("#7b8794", "#3b7fc4", "#3d55c4", "#6a3aa8", "#8a1c7c"),
    "dark": ("#8793a1", "#62a8e5", "#8497f5", "#b394f5", "#ee8fe0"),
}


def tier_colours(levels: int, scheme: str) -> list[str]:
    """Return one colour for each level, lowest first, from grey over blue to purple; `scheme` is light or dark.

    >>> tier_colours(3, "light")
    ['#7b8794', '#3d55c4', '#8a1c7c']
    """
    anchors = np.array([_channels(colour) for colour in _TIERS[scheme]])
    places = np.linspace(0, len(anchors) - 1, levels) if levels > 1 else np.array([len(anchors) - 1.0])
    mixed = [[np.interp(place, range(len(anchors)), anchors[:, k]) for k in range(3)] for place in places]
    return ["#" + "".join(f"{round(channel):02x}" for channel in colour) for colour in mixed]


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colours as WCAG 2 defines it, between 1 and 21.

    >>> round(contrast("#000000", "#ffffff"), 1)
    21.0
    """
    dark, light = sorted(_luminance(_channels(colour)) for colour in (one, other))
    return (light + 0.05) / (dark + 0.05)


def _channels(colour: str) -> list[int]:
    return [int(colour[k : k + 2], 16) for k in (1, 3, 5)]


def _luminance(channels: Sequence[int]) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in channels)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
