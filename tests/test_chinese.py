"""What a project whose language is Chinese prints is Chinese: every verb, on a seeded shop with Chinese attributes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from commands import run_command
from tiermodel import make_world
from worlds import bare_backtests, bare_runs, quick_fits

# names of methods, programs and formats, which have no Chinese name, and tables and groups by the names of their keys
NAMES = {
    *("LightGBM", "Tweedie", "Gamma", "Pareto", "Brier", "Kappa", "Excel", "tiermodel", "Wilson"),
    *("transactions", "customers", "events", "invoices", "costs", "retail", "shop", "team", "desk", "amount"),
    *("customer_id", "where", "keep", "models", "ledger", "lists", "exported", "pyramid"),
    *("major", "secondary", "regular", "small"),  # of a score table alone the names of tiers are not known
}
# keys of the project file, files, options, codes behind a name, identifiers, commands and SQL
CODES = re.compile(
    r"tiermodel (?:[a-z]+|PROJECT|--?[\w-]+|[\w./@-]+|\"\w+\"| )+|（[a-z_]+）|（TM\d+ [a-z_]+）|\([a-z_0-9]+\)"
    r"|--[a-z-]+(?: \w+)*|[\w-]+(?:[./][\w*-]+)+|(?:keep|duplicates|where): ?\S*|trim\([^)]*\)\S*"
    r"|segment_\d+|shop-[0-9a-f]+|\"WH[OY]\""
)
VERBS = """
check project.yaml
train project.yaml --as-of 2023-03-01 --out models/a --register --details
promote shop
features project.yaml --as-of 2023-04-01 --out f.parquet
score project.yaml --model models/a --as-of 2023-03-01 --out s0.parquet --ledger ledger
score project.yaml --model models/a --as-of 2023-04-01 --out scores.parquet --ledger ledger --shadow models/a
upgrades project.yaml --model models/a --as-of 2023-04-01 --out u.csv
lists scores.parquet --model models/a --features f.parquet --ledger ledger --out lists
outcomes project.yaml --ledger ledger --out o.parquet
monitor project.yaml --model models/a --as-of 2023-05-01 --scores . --ledger ledger
ledger show ledger
ledger movement ledger --from 2023-03-01 --to 2023-04-01 --scores s0.parquet
ledger forecast ledger
ledger override ledger --customer C0000001 --tier major --from 2023-05-02 --operator 张三 --reason 战略客户
ledger overrides ledger
ledger check ledger
allocate scores.parquet --policy retail --budget 500 --out a.csv --project project.yaml
show policy project.yaml scores.parquet
export scores.parquet --to fxiaoke --mapping fxiaoke_customers --out exported
rules models/a
backtest project.yaml --out b.json --details
report scores.parquet b.json models/a --out r.html --language zh
refresh project.yaml --dry-run
forget project.yaml C0000002 --ledger ledger --in lists
"""


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
    del data["invoices"]  # so that a group of features cannot be built
    settings = {
        "version": 1, "name": "shop", "language": "zh", "timezone": "Asia/Shanghai", "currency": "CNY", "data": data,
        "features": {"groups": ["rfm", "loyalty", "potential", "value", "credit"], "windows_days": [90, 365]},
        "outcome": {"horizon_days": 60}, "panel": {"every_days": 45, "snapshots": 4}, "policy": "retail",
        "tiers": {"scheme": "pyramid", "stability": {"up": {"band": 0.05}}},
        "backtest": {"dates": ["2023-02-01"]},
        "tracking": {"uri": "sqlite:///mlflow.db", "experiment": "shop"},
    }  # fmt: skip
    path.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
    return path


def english(text: str) -> set[str]:
    """Return the words of four letters and more that are no code, no name and no part of a path."""
    return {word for word in re.findall(r"[A-Za-z_]{4,}", CODES.sub(" ", text)) if word not in NAMES}


def test_every_verb_speaks_chinese(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, empty_store: Path
) -> None:
    chinese_shop(tmp_path)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    found = {}
    with quick_fits(), bare_backtests(), bare_runs():
        for line in VERBS.strip().splitlines():
            done = run_command(capsys, monkeypatch, *line.split())
            assert done.code in {0, 9}, (line, done.err)
            assert re.search("[\u4e00-\u9fff]", done.out + done.err) or line.startswith("report"), (line, done)
            found[line] = english(done.out + done.err)
    assert not {line: words for line, words in found.items() if words}


def test_words_of_four_letters_are_found_and_codes_are_not() -> None:
    assert english("3 rows: customer_id_missing") == {"rows", "customer_id_missing"}
    assert not english(
        "重要客户 (major)；设置 data.transactions.duplicates: keep；tiermodel promote shop --accept margin"
    )
