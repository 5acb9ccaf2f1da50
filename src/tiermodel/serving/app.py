"""The pages of the server: token, limits of bytes and time, and errors that name a field and hold no value."""

from __future__ import annotations

import asyncio
import hmac
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeAlias

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tiermodel.serving.body import MOST_BYTES
from tiermodel.serving.faults import RequestError
from tiermodel.serving.service import Service

__all__ = ["make_app"]

Page: TypeAlias = Callable[[Request], Awaitable[Response]]
_Asked: TypeAlias = tuple[bytes, Future[bytes]]
_BODY_SECONDS, _SCORE_SECONDS = 5, 30
_MOST_WAITING, _MOST_HELD, _MOST_DROPPED = 64, 64 << 20, 16 << 20
_TOGETHER, _TOGETHER_BYTES, _GATHER_SECONDS = 16, 256 << 10, 0.004
_OPEN = ("/healthz", "/readyz")


class _Worker:
    """A thread that answers bodies: all that wait by then together, which takes little longer than one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._queue: SimpleQueue[_Asked | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="score", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def submit(self, body: bytes) -> Future[bytes]:
        """Return the answer to come, or the fault."""
        answer: Future[bytes] = Future()
        self._queue.put((body, answer))
        return answer

    def stop(self) -> None:
        """End the thread, once it has answered what waits."""
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        before = 1
        while (first := self._queue.get()) is not None:
            waiting = self._gathered(first, before)
            before = len(waiting)
            wanted = [(body, answer) for body, answer in waiting if answer.set_running_or_notify_cancel()]
            found = self._service.answers([body for body, _ in wanted])
            for (_, answer), one in zip(wanted, found, strict=True):
                answer.set_exception(one) if isinstance(one, Exception) else answer.set_result(one)

    def _gathered(self, first: _Asked, before: int) -> list[_Asked]:
        """Return what waits; as many as last time are awaited for a moment, since who was answered then asks again."""
        waiting = [first]
        until = time.monotonic() + _GATHER_SECONDS
        with suppress(Empty):
            while len(waiting) < _TOGETHER and sum(len(body) for body, _ in waiting) < _TOGETHER_BYTES:
                patience = until - time.monotonic() if len(waiting) < before else 0
                if (another := self._queue.get(timeout=max(patience, 0))) is None:
                    self._queue.put(None)  # for the next round
                    break
                waiting.append(another)
        return waiting


class _Scoring:
    """The page /score: bodies are read side by side, and answered on a thread."""

    def __init__(self, service: Service, worker: _Worker) -> None:
        self._service, self._worker = service, worker
        self._waiting = self._held = 0

    async def __call__(self, request: Request) -> Response:
        started = time.perf_counter()
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError(415, "send Content-Type: application/json")
        if self._waiting >= _MOST_WAITING:
            raise RequestError(503, "too many requests are waiting; try again in a second")
        self._waiting += 1
        try:
            found = await self._answer(request)
        finally:
            self._waiting -= 1
        self._service.metrics.seconds.observe(time.perf_counter() - started)
        return Response(found, media_type="application/json")

    async def _answer(self, request: Request) -> bytes:
        parts: list[bytes] = []
        try:
            try:
                async with asyncio.timeout(_BODY_SECONDS):
                    await self._read(request, parts)
            except TimeoutError:
                raise RequestError(408, f"the body took more than {_BODY_SECONDS} seconds") from None
            try:
                async with asyncio.timeout(_SCORE_SECONDS):
                    work = self._worker.submit(b"".join(parts))
                    return await asyncio.wrap_future(work)  # cancelled if it did not start in time
            except TimeoutError:
                raise RequestError(503, f"no answer within {_SCORE_SECONDS} seconds; send fewer rows") from None
        finally:
            self._held -= sum(map(len, parts))

    async def _read(self, request: Request, parts: list[bytes]) -> None:
        """Add the body to `parts`, unless it is too large, or all bodies at once are."""
        large = RequestError(413, f"the body has more than {MOST_BYTES >> 20} MB; send several requests")
        said = int(request.headers.get("content-length", 0))
        if said > MOST_BYTES + _MOST_DROPPED:
            raise large
        size = 0
        async for part in request.stream():
            size += len(part)
            if max(size, said) > MOST_BYTES:  # the rest is dropped: an answer amid its sending would be lost
                if size > MOST_BYTES + _MOST_DROPPED:
                    raise large
                continue
            parts.append(part)
            self._held += len(part)
            if self._held > _MOST_HELD:
                raise RequestError(503, "too many large requests at once; try again in a second")
        if size > MOST_BYTES:
            raise large


def make_app(service: Service, token: str | None) -> Starlette:
    """Return the ASGI application of a service; all pages but the probes ask for the token, where there is one."""
    pages: dict[str, Callable[[], Response]] = {
        "/healthz": lambda: JSONResponse({"status": "ok"}),
        "/readyz": lambda: JSONResponse({"status": "ready", "model_version": service.version}),
        "/model": lambda: JSONResponse(service.model()),
        "/metrics": lambda: PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4"),
        "/openapi.json": lambda: JSONResponse(service.openapi()),
    }
    worker = _Worker(service)
    routes = [Route(path, _guarded(_page(made), service, token), methods=["GET"]) for path, made in pages.items()]
    routes.append(Route("/score", _guarded(_Scoring(service, worker), service, token), methods=["POST"]))

    async def no_page(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        service.metrics.requests.labels("other", str(status)).inc()
        known = ", ".join(("POST /score", *(f"GET {path}" for path in pages)))
        return _error(status, f"there is no such page; there are {known}")

    @asynccontextmanager
    async def until_the_end(_: Starlette) -> AsyncIterator[None]:
        worker.start()
        yield
        worker.stop()

    return Starlette(routes=routes, exception_handlers={HTTPException: no_page}, lifespan=until_the_end)


def _page(made: Callable[[], Response]) -> Page:
    async def page(_: Request) -> Response:
        return made()

    return page


def _guarded(page: Page, service: Service, token: str | None) -> Page:
    """Return a page that asks for the token, and whose errors are answers without a value of the request."""

    async def answered(request: Request) -> Response:
        try:
            if token is not None and request.url.path not in _OPEN:
                _refuse_other_token(request, token)
            response = await page(request)
        except RequestError as error:
            response = _error(error.status, error.message, error.field)
        except ClientDisconnect:
            response = _error(400, "the body ended early")
        except Exception as error:  # noqa: BLE001  a bug of ours, of which neither client nor log may see a value
            response = _error(500, "a fault of the server; the operator finds the place in its log")
            _tell(error)
        service.metrics.requests.labels(request.url.path, str(response.status_code)).inc()
        return response

    return answered


def _refuse_other_token(request: Request, token: str) -> None:
    """Raise `RequestError` unless a request has the token; how long it takes does not tell how much of it is right."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestError(401, "give the token of the server: Authorization: Bearer TOKEN")


def _error(status: int, words: str, field: str = "") -> Response:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "1"}}.get(status, {})
    if status in {408, 413}:
        headers = {"Connection": "close"}  # the rest of the body is not read
    return JSONResponse({"error": words, **({"field": field} if field else {})}, status, headers)


def _tell(error: Exception) -> None:
    """Write the kind of an error and where it was raised to stderr, never its message, which may hold a value."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        place, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
    print(f"tiermodel: {type(error).__name__} at {place}", file=sys.stderr)  # noqa: T201
