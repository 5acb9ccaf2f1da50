"""The server over a real socket: the bits of the batch, probes, token, limits, what it tells, and how it ends."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from commands import Run
from served import TOKEN, Server, as_json, serving, written
from tiermodel.config.project import Project
from tiermodel.features.export import write_features
from tiermodel.predict import predict, score
from tiermodel.serving.service import Service
from worlds import TrainedWorld

AS_OF = "2023-11-01"
CANARY = "KANARIENVOGEL"


@pytest.fixture(scope="module")
def server(trained: TrainedWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, written(trained.project, folder), "--model", trained.bundle, token=TOKEN) as found:
        yield found


@pytest.fixture(scope="module")
def rows(trained: TrainedWorld) -> list[dict[str, Any]]:
    return as_json(pd.read_parquet(str(trained.project.data.transactions.path)))


def plain(table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    finite = [{k: v if not isinstance(v, float) or np.isfinite(v) else None for k, v in row.items()} for row in table]
    return [{**row, "as_of": str(row["as_of"])} for row in finite]


def test_raw_rows_over_a_socket_have_the_bits_of_the_batch(
    server: Server, trained: TrainedWorld, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    score(trained.project, trained.trained.bundle, AS_OF, tmp_path / "scores.parquet")
    batch = plain(pq.read_table(tmp_path / "scores.parquet").to_pylist())
    found = server.score({"as_of": AS_OF, "transactions": rows})
    assert found.status == 200, found.body
    assert found.json()["scores"] == batch
    assert found.json()["model_version"] == trained.trained.bundle.version
    one = [row for row in rows if row["customer"] == batch[7]["customer_id"]]
    assert server.score({"as_of": AS_OF, "transactions": one}).json()["scores"] == [batch[7]]
    before_the_first = server.score({"as_of": "2020-01-01", "transactions": one})
    assert (before_the_first.status, before_the_first.json()["scores"]) == (200, [])


def test_feature_rows_over_a_socket_have_the_bits_of_the_batch(
    server: Server, trained: TrainedWorld, tmp_path: Path
) -> None:
    write_features(trained.project, AS_OF, tmp_path / "features.parquet")
    frame = pd.read_parquet(tmp_path / "features.parquet")
    sent = as_json(frame.astype({"as_of": str}))
    found = server.score({"as_of": AS_OF, "rows": sent})
    assert found.status == 200, found.body
    table = predict(trained.trained.bundle, frame)
    wanted = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in table.astype(object).to_dict("records")]
    for got, row in zip(found.json()["scores"], wanted, strict=True):
        assert got == {**row, "as_of": AS_OF, "contact_threshold": got["contact_threshold"]}
    assert server.score({"as_of": AS_OF, "rows": sent[5:6]}).json()["scores"] == found.json()["scores"][5:6]


def test_the_pages_tell_the_state_the_model_and_the_counts(server: Server, trained: TrainedWorld) -> None:
    bundle = trained.trained.bundle
    for probe in ("/healthz", "/readyz"):  # without a token, as schedulers ask
        assert server.ask("GET", probe, Authorization="").status == 200
    model = server.ask("GET", "/model").json()
    assert model["version"] == bundle.version
    assert model["features"]["numbers"] == list(bundle.inputs.names)
    assert [level["code"] for level in model["levels"]] == list(bundle.scheme.scheme.codes)
    assert model["facts"]["later"]["churn"]["auc"] == bundle.facts["later"]["churn"]["auc"]
    described = server.ask("GET", "/openapi.json").json()
    assert described["openapi"].startswith("3.1")
    columns = described["components"]["schemas"]["Answer"]["properties"]["scores"]["items"]["properties"]
    assert {"tier_code", "churn_risk", "expected_value_low", "reason_1", "policy"} <= set(columns)
    asked = described["components"]["schemas"]["FeatureRows"]["properties"]["rows"]["items"]["required"]
    assert set(asked) == {"customer_id", *bundle.inputs.names}
    counts = server.ask("GET", "/metrics").body.decode()
    assert f'tiermodel_model{{version="{bundle.version}"}} 1.0' in counts
    assert 'tiermodel_requests_total{path="/healthz",status="200"}' in counts
    assert server.ask("GET", "/nowhere").status == 404
    assert server.ask("GET", "/score").status == 405


@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer é"])
def test_without_the_token_there_is_no_answer(server: Server, given: str) -> None:
    for method, path in (("POST", "/score"), ("GET", "/model"), ("GET", "/metrics"), ("GET", "/openapi.json")):
        body = b"{}" if method == "POST" else None
        found = server.ask(method, path, body, Authorization=given.encode().decode("latin-1"))
        assert found.status == 401, (path, found.body)
        assert found.headers["www-authenticate"] == "Bearer"


def bad_bodies(trained: TrainedWorld) -> Iterator[tuple[str, bytes, int]]:
    """Yield what may be wrong with a body, the body, and the status that answers it."""
    row = {"customer": CANARY, "day": "2023-01-01", "order": "1", "amount": 5.0, "product": CANARY}
    feature = {"customer_id": CANARY, **dict.fromkeys(trained.trained.bundle.inputs.names, 1.0)}
    first = trained.trained.bundle.inputs.names[0]

    def raw(**changes: Any) -> bytes:
        return json.dumps({"as_of": AS_OF, "transactions": [row, {**row, **changes}]}).encode()

    def features(**changes: Any) -> bytes:
        return json.dumps({"as_of": AS_OF, "rows": [{**feature, **changes}]}).encode()

    yield "nothing", b"", 400
    yield "no JSON", CANARY.encode(), 400
    yield "half of a body", raw()[:-3], 400
    yield "no UTF-8", raw().replace(b"KANA", b"\xff\xfe"), 400
    yield "half of a pair", raw(product="\ud800"), 400
    yield "a NUL", raw(product=f"{CANARY}\0"), 400
    yield "NaN", raw(amount=float("nan")), 400
    yield "infinity", features(**{first: float("inf")}), 400
    yield "an overflow", raw().replace(b"5.0", b"1e999"), 422
    yield "a huge number", raw(amount=10**400), 422
    yield "a huge feature", features(**{first: 10**400}), 422
    yield "more digits than Python reads", raw().replace(b"5.0", b"9" * 5000), 400
    yield "a key twice", raw().replace(b'"order"', b'"product"'), 400
    yield "depth", b"[" * 1_000_000, 400
    yield "depth in a row", raw().replace(b"5.0", b'{"a":' * 900 + b"1" + b"}" * 900), 422
    yield "a list", b"[1, 2]", 422
    yield "a number", b"7", 422
    yield "no date", json.dumps({"transactions": [row]}).encode(), 422
    days: list[Any] = [CANARY, "latest", "2023-13-01", "20231101", "0001-01-01", 5, None, [], "２０２３-01-01"]
    for day in days:
        yield f"the date {day!r}", json.dumps({"as_of": day, "transactions": [row]}).encode(), 422
    yield "neither", json.dumps({"as_of": AS_OF}).encode(), 422
    yield "both", json.dumps({"as_of": AS_OF, "transactions": [row], "rows": [feature]}).encode(), 422
    yield "an unknown key", json.dumps({"as_of": AS_OF, "transactions": [row], CANARY: 1}).encode(), 422
    yield "no rows", json.dumps({"as_of": AS_OF, "transactions": []}).encode(), 422
    yield "no feature rows", json.dumps({"as_of": AS_OF, "rows": []}).encode(), 422
    wrongs: list[Any] = [CANARY, 5, None, {"a": CANARY}, [CANARY], [[]], [None], [{}], [row, CANARY]]
    for wrong in wrongs:
        yield f"rows {wrong!r}", json.dumps({"as_of": AS_OF, "transactions": wrong}).encode(), 422
        yield f"features {wrong!r}", json.dumps({"as_of": AS_OF, "rows": wrong}).encode(), 422
    for wrong in wrongs[0], True, wrongs[3], wrongs[4]:
        yield f"amount {wrong!r}", raw(amount=wrong), 422
        yield f"a feature {wrong!r}", features(**{first: wrong}), 422
    yield "a list in a field nobody knows", raw(**{CANARY: [CANARY]}), 422
    yield "an id that is a number beside text", raw(customer=5), 422
    yield "a long text", raw(product=CANARY * 1000), 422
    yield "a column without a name", raw(**{" ": 1}), 422
    yield "a reserved column", raw(_row=1), 422
    yield "two columns of one name", raw(Amount=1), 422
    yield "many columns", raw(**{f"{CANARY}{n}": n for n in range(300)}), 422
    yield "a missing column", json.dumps({"as_of": AS_OF, "transactions": [{"customer": CANARY}]}).encode(), 422
    yield "a missing feature", json.dumps({"as_of": AS_OF, "rows": [{"customer_id": CANARY}]}).encode(), 422
    yield "a row of another date", features(as_of="2023-01-01"), 422
    yield "SQL", raw(**{"x'); DROP TABLE transactions_source; --": "'; SELECT 1; --"}), 200
    yield "too many rows", json.dumps({"as_of": AS_OF, "rows": [{}] * 5001}).encode(), 413
    yield "too many bytes", b" " * ((16 << 20) + 1), 413


def test_whatever_is_sent_the_answer_names_the_fault_and_no_value(server: Server, trained: TrainedWorld) -> None:
    for what, body, status in bad_bodies(trained):
        found = server.ask("POST", "/score", body)
        assert found.status == status, (what, found.body[:300])
        if status != 200:
            assert set(found.json()) <= {"error", "field"}, what
            assert CANARY not in found.body.decode(), what
    assert server.ask("GET", "/healthz").status == 200
    assert CANARY not in server.ask("GET", "/metrics").body.decode()
    assert CANARY not in server.said
    assert len(server.said.splitlines()) == 1


def test_errors_name_the_field(server: Server, trained: TrainedWorld) -> None:
    fields = {
        what: server.ask("POST", "/score", body).json().get("field")
        for what, body, s in bad_bodies(trained)
        if s == 422
    }
    first = trained.trained.bundle.inputs.names[0]
    assert fields["amount True"] == "transactions[1].amount"
    assert fields["a feature True"] == f"rows[0].{first}"
    assert fields["a huge feature"] == f"rows[0].{first}"
    assert fields["no date"] == "as_of"
    assert fields["a missing feature"] == f"rows[0].{first}"
    assert fields["a missing column"] == "transactions.amount"


def test_only_json_is_read(server: Server) -> None:
    found = server.ask("POST", "/score", b"{}", Content_Type="text/plain")  # as a page of another site could send it
    assert found.status == 415


def test_two_hundred_megabytes_are_refused_before_they_are_read(server: Server) -> None:
    before = server.memory()
    for head in (f"Content-Length: {200 << 20}", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plug:
            words = (
                f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json"
            )
            plug.sendall(f"{words}\r\n{head}\r\n\r\n".encode())
            chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n" if "chunked" in head else b" " * 0x100000
            sent = 0
            try:
                for _ in range(200):
                    plug.sendall(chunk)
                    sent += 1
            except OSError:  # the server has closed the connection
                pass
            assert sent < 60, head
            try:
                told = plug.recv(4096)
            except ConnectionError:
                told = b"HTTP/1.1 413"  # reset, with the answer lost in the client's own sending
            assert told.startswith(b"HTTP/1.1 413"), told
    assert server.ask("GET", "/healthz").status == 200
    assert server.memory() < before + 60


def test_a_slow_client_is_let_go_and_others_do_not_wait(server: Server) -> None:
    started = time.monotonic()
    heads = [b"GET /hea", b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: app"]
    words = f"POST /score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json"
    heads.append(f"{words}\r\nContent-Length: 1000\r\n\r\n{{".encode())
    plugs = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in heads]
    for plug, head in zip(plugs, heads, strict=True):
        plug.sendall(head)
    quick = time.monotonic()
    assert server.ask("GET", "/healthz").status == 200
    assert time.monotonic() - quick < 5
    for plug in plugs:
        with plug:
            while plug.recv(4096):
                pass
    assert 3 < time.monotonic() - started < 15
    assert server.ask("GET", "/healthz").status == 200


def test_what_the_page_on_models_sends_is_answered(trained: TrainedWorld) -> None:
    root = Path(__file__).resolve().parents[2]
    readme, configs = ((root / name / "README.md").read_text(encoding="utf-8") for name in ("models", "configs"))
    (body,) = re.findall(r"curl [^']*'Content-Type: application/json' -d '(.*?)'\n", readme, flags=re.DOTALL)
    (shop,) = re.findall(r"^```yaml\n(version:.*?)^```", configs, flags=re.MULTILINE | re.DOTALL)
    data = yaml.safe_load(shop)["data"]
    data["transactions"]["columns"]["product_id"] = "order_no"  # which the small world's model reads
    project = Project.model_validate({**trained.project.model_dump(exclude_none=True), "data": data})
    (found,) = json.loads(Service(project, trained.trained.bundle, "shop").answer(body.encode()))["scores"]
    assert (found["customer_id"], found["as_of"]) == ("1001", "2025-07-31")


# starting and ending


@pytest.mark.parametrize(
    ("start", "told", "code"),
    [
        ((("--host", "0.0.0.0"), ""), "there is no token", 2),  # noqa: S104  refused
        (((), "short"), "has 5 characters", 2),
        ((("--model", "nowhere"), ""), "no manifest.json", 5),
    ],
)
def test_a_server_that_must_not_start_says_why(
    trained: TrainedWorld,
    cli: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: tuple[tuple[str, ...], str],
    told: str,
    code: int,
) -> None:
    words, token = start
    monkeypatch.setenv("TIERMODEL_TOKEN", token)
    ran = cli("serve", written(trained.project, tmp_path), "--model", trained.bundle, "--port", "0", *words)
    assert ran.code == code
    assert told in ran.err


def test_a_port_in_use_is_told(trained: TrainedWorld, cli: Run, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ran = cli("serve", written(trained.project, tmp_path), "--model", trained.bundle, "--port", port)
    assert ran.code == 7
    assert f"--port {port}: Address already in use" in ran.err


def test_without_the_extra_the_line_that_installs_it_is_told(
    trained: TrainedWorld, cli: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys  # noqa: PLC0415

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "tiermodel.serving.server", raising=False)
    ran = cli("serve", written(trained.project, tmp_path), "--model", trained.bundle)
    assert (ran.code, ran.err.strip()) == (2, "tiermodel: serving needs: pip install 'tiermodel[serve]'")


def test_sigterm_lets_open_requests_have_their_answers(
    trained: TrainedWorld, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    with serving(tmp_path, written(trained.project, tmp_path), "--model", trained.bundle) as server:
        found: list[int] = []
        many = [{**row, "customer": f"{row['customer']}{n}"} for n in range(4) for row in rows]
        body = {"as_of": AS_OF, "transactions": many}
        asking = [threading.Thread(target=lambda: found.append(server.score(body).status)) for _ in range(3)]
        for thread in asking:
            thread.start()
        time.sleep(0.5)
        idle = server.connect()
        idle.connect()  # a connection that asks nothing does not hold the server up
        assert server.stop() == 0
        for thread in asking:
            thread.join()
        idle.close()
    assert found == [200, 200, 200]
    assert len(server.said.splitlines()) == 1
