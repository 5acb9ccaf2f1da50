"""The texts of reports, figures and model cards in Chinese and English, read from `templates/words.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources

import yaml

__all__ = ["words"]


@cache
def words(language: str) -> Mapping[str, str]:
    """Return every text by its key in one language, `zh` or `en`."""
    text = (resources.files("tiermodel") / "templates" / "words.yaml").read_text(encoding="utf-8")
    return {key: pair[language != "zh"] for key, pair in yaml.safe_load(text).items()}
