"""What a project whose language is Chinese prints is Chinese: every verb, on a seeded shop with Chinese attributes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from tiermodel import make_world

DAYS = ("2023-02-01", "2023-03-01", "2023-04-01")
_WORD = re.compile(r"[A-Za-z]{4,}")


def chinese_shop(folder: Path) -> Path:
    """Write a seeded shop of 300 customers with three bad rows, and its project in Chinese; return the project."""
    world = make_world(seed=3, customers=300, days=500, future_days=60)
    people = world.tables["customers"]
    regions = np.where(np.arange(len(people)) % 2 == 0, "华东", "华南")
    world.tables["customers"] = people.append_column("地区", pa.array(regions))
    path = world.write(folder, "csv")
    rows = (folder / "transactions.csv").read_text(encoding="utf-8").splitlines()
    bad = rows[6].split(",")
    rows += [rows[5], ",".join([*bad[:3], "￥1,2.3", *bad[4:]]), ",".join(['""', *rows[7].split(",")[1:]])]
    (folder / "transactions.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    data = yaml.safe_load(path.read_text(encoding="utf-8"))["data"]
    data["customers"]["categories"] = {"region": "地区"}
    groups = ("rfm", "loyalty", "potential", "value", "behaviour", "season", "lifecycle", "btyd", "engagement")
    settings = {
        "version": 1, "name": "shop", "language": "zh", "timezone": "Asia/Shanghai", "currency": "CNY", "data": data,
        "features": {"groups": [*groups, "service", "credit"], "windows_days": [30, 90, 365]},
        "outcome": {"horizon_days": 60}, "panel": {"every_days": 45, "snapshots": 4}, "policy": "retail",
        "tiers": {"scheme": "pyramid", "stability": {"up": {"band": 0.05}}},
        "backtest": {"dates": ["2023-02-01"]},
        "tracking": {"uri": "sqlite:///mlflow.db", "experiment": "shop"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path
