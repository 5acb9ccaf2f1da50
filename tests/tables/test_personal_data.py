"""The scanner: what looks like personal data is named, what does not is not, and no value is repeated."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tiermodel.config.project import Project, load_project
from tiermodel.datasets.synthetic import make_world
from tiermodel.quality.check import check
from tiermodel.tables.history import read_history
from tiermodel.tables.personal_data import find_personal

N = 300
DRAW = np.random.default_rng(5)
ROOT = Path(__file__).resolve().parents[2]


def luhn(body: str) -> str:
    digits = [int(d) * (2 - place % 2) for place, d in enumerate(reversed(body))]
    return body + str(-sum(n // 10 + n % 10 for n in digits) % 10)


def resident(n: int) -> str:
    body = f"110105{1950 + n % 50}{1 + n % 12:02d}{1 + n % 28:02d}{n % 1000:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    return body + "10X98765432"[sum(int(d) * w for d, w in zip(body, weights, strict=True)) % 11]


MOBILES = [f"1{3 + n % 7}{n % 10}{DRAW.integers(10**7, 10**8)}" for n in range(N)]


def project(folder: Path, columns: dict[str, Any], customer: str = "id", **data: Any) -> Project:
    rows = {"id": range(N), "when": [date(2024, 1, 1 + n % 28) for n in range(N)], "amount": 10.0}
    pd.DataFrame(rows).assign(**columns).to_parquet(folder / "rows.parquet")
    mapped = {"customer_id": customer, "time": "when", "amount": "amount"}
    table = {"path": str(folder / "rows.parquet"), "columns": mapped}
    return Project.model_validate({"version": 1, "name": "x", "data": {"transactions": table, **data}})


def kinds(made: Project) -> dict[str, str]:
    history = read_history(made)
    return {
        found.column: found.kind
        for table in history.tables.values()
        for found in find_personal(
            history.connection, table.source, table.account.read, table.contract.mapped["customer_id"]
        )
    }


@pytest.mark.parametrize(
    ("name", "values", "kind"),
    [
        ("x", MOBILES, "mobile"),
        ("x", [int(m) for m in MOBILES], "mobile"),
        ("x", [float(m) for m in MOBILES], "mobile"),
        ("x", [f"+86 {m[:3]} {m[3:7]} {m[7:]}" for m in MOBILES], "mobile"),
        ("phone", ["+44 20 7946 0958"] * N, "mobile"),
        ("x", [resident(n) for n in range(N)], "resident_id"),
        ("x", [f"a{n}@example.com" for n in range(N)], "email"),
        ("remark", ["nothing"] * (N - 9) + ["write to a@b.org please"] * 9, "email"),
        ("x", [luhn(f"622202{n:012d}") for n in range(N)], "bank_card"),
        ("x", [f"203.0.113.{n % 250}" for n in range(N)], "ip"),
        ("姓名", ["张三"] * N, "name"),
        ("CustomerName", ["Ann Other"] * N, "name"),
        ("收货地址", ["南京路 1 号"] * N, "address"),
        ("Home Address", ["1 High Street"] * N, "address"),
        ("出生日期", [date(1980, 1, 1)] * N, "birth"),
        ("dob", ["1980-01-01"] * N, "birth"),
    ],
)
def test_personal_data_is_named(tmp_path: Path, name: str, values: list[Any], kind: str) -> None:
    assert kinds(project(tmp_path, {name: values})) == {name: kind}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("order_no", [13_500_000_000 + n for n in range(N)]),
        ("order_no", [str(31_198_570_044 + 977 * n) for n in range(N)]),
        ("random", [str(DRAW.integers(10**10, 10**11)) for _ in range(N)]),
        ("epoch", [1_704_067_200_000 + 86_400_000 * n for n in range(N)]),
        ("amount2", [round(float(x), 2) for x in DRAW.gamma(2, 9e9, N)]),
        ("serial", [f"{4 * 10**15 + n}" for n in range(N)]),
        ("digits", [f"{n:018d}" for n in range(N)]),
        ("product_name", ["lamp"] * N),
        ("email_opt_in", ["yes"] * N),
        ("email", ["html"] * N),
        ("phone_type", ["mobile"] * N),
        ("version", ["1.2.3"] * N),
        ("ship_date", [date(2024, 1, 1)] * N),
        ("description", ["ADDRESS BOOK RED"] * N),
        ("nothing", [None] * N),
    ],
)
def test_what_is_none_is_not_named(tmp_path: Path, name: str, values: list[Any]) -> None:
    assert kinds(project(tmp_path, {name: values})) == {}


def test_ids_that_are_telephone_numbers_call_for_hashing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ID_KEY", "k" * 40)
    for hashing in (None, "ID_KEY"):
        made = project(tmp_path, {"mobile": MOBILES}, "trim(mobile)", hash_ids=hashing)
        report = check(made)
        found = next(finding for finding in report.findings if finding.code.startswith("personal"))
        assert (found.level, found.code) == (("warn", "personal_id") if hashing is None else ("ok", "personal"))
        if hashing is None:
            assert "set data.hash_ids" in found.text()
            assert "请设置 data.hash_ids" in found.text("zh")
        told = report.to_text() + report.to_text("zh") + json.dumps(report.to_dict(), ensure_ascii=False)
        assert not any(mobile in told for mobile in MOBILES)


def test_a_world_has_names_numbers_and_addresses(tmp_path: Path) -> None:
    made = load_project(make_world(customers=400).write(tmp_path))
    assert kinds(made) == {"name": "name", "mobile": "mobile", "email": "email"}
    assert kinds(made) == kinds(load_project(make_world(customers=400).write(tmp_path / "csv", "csv")))


def test_real_data_without_personal_data_have_none(shared_data: Path) -> None:
    for name in ("complete_journey", "online_retail"):
        assert kinds(load_project(ROOT / "configs" / f"{name}.yaml")) == {}
    table = {"path": str(shared_data / "invoices_b2b" / "invoices.parquet")}
    table["columns"] = {"customer_id": "customerID", "time": "InvoiceDate", "amount": "InvoiceAmount"}  # type: ignore[assignment]
    assert kinds(Project.model_validate({"version": 1, "name": "x", "data": {"transactions": table}})) == {}
