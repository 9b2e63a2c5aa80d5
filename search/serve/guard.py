"""What stands before every request: who may ask, from where, how much and how often; and the headers of each answer."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from sentence_forge.search.serve.meters import Meters

COOKIE = "session"
OPEN = ("/healthz", "/login", "/static/")  # for those without the token, too
_LOCAL = ("localhost", "127.0.0.1", "[::1]")
_MOST_ADDRESSES = 10_000
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                               "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer browsers send "Origin: null" with our own forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """How much one address may ask for.

    Args:
        body: bytes of a request's body.
        rate: requests a second, over two seconds; 0 is no limit.
    """

    body: int = 4 << 20
    rate: float = 500


def session_of(token: str) -> str:
    """Return what the cookie of a signed-in browser holds: from it the token can't be computed."""
    return hmac.new(token.encode(), b"sentence-forge session", hashlib.sha256).hexdigest()


class Guard:
    """Refuses what may not reach the application, and counts and times what does.

    Args:
        app: the application.
        token: who asks must have it, in ``Authorization: Bearer`` or by signing in; None for a server that only this
            machine can reach, which then answers to this machine's names alone: a page of somebody else's whose name
            was made to lead here gets nothing.
        limits: of size and rate.
        meters: where requests are counted.
    """

    def __init__(self, app: ASGIApp, token: str | None, limits: Limits, meters: Meters) -> None:
        self._app = app
        self._token = token
        self._limits = limits
        self._meters = meters
        self._asked: dict[str, tuple[float, float]] = {}  # address -> requests left, and when that was

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("cache-control", "no-store")
            await send(message)

        try:
            refused = self._refused(Request(scope))
            if refused is None:
                await self._app(scope, self._bounded(receive), sent)
            else:
                await refused(scope, receive, sent)
        finally:
            self._meters.add("requests", f'code="{status}"')
            self._meters.took(time.perf_counter() - begun)

    def _refused(self, request: Request) -> Response | None:
        """Return the answer to a request that may not go on; None for one that may."""
        headers, path = request.headers, request.url.path
        try:
            self._check_rate("" if request.client is None else request.client.host)
            size = headers.get("content-length", "0")
            if not size.isdigit() or int(size) > self._limits.body:
                raise HTTPException(413, f"the request is larger than {self._limits.body:,} bytes")
            if self._token is None and _name(headers.get("host", "")) not in _LOCAL:
                raise HTTPException(421, "this server answers to this machine's names only; start it with --token for "
                                         "others")
            if request.method not in ("GET", "HEAD") and not same_origin(headers):
                raise HTTPException(403, "the request comes from another site's page")
            if self._token is not None and not path.startswith(OPEN) and not _knows(request, self._token):
                raise HTTPException(401, "a token is needed: Authorization: Bearer <token>")
        except HTTPException as error:
            if error.status_code == 401 and request.method == "GET" and "text/html" in headers.get("accept", ""):
                asked = f"{path}?{request.url.query}" if request.url.query else path
                return RedirectResponse(f"/login?back={quote(asked)}", 303)
            answer = refusal(path, error)
            if error.status_code == 401:
                answer.headers["www-authenticate"] = "Bearer"
            return answer
        return None

    def _check_rate(self, address: str) -> None:
        rate = self._limits.rate
        if not rate:
            return
        now = time.monotonic()
        left, before = self._asked.get(address, (2 * rate, now))
        left = min(2 * rate, left + rate * (now - before)) - 1
        if len(self._asked) > _MOST_ADDRESSES:
            self._asked.clear()
        self._asked[address] = (max(left, -1.0), now)
        if left < 0:
            raise HTTPException(429, f"more than {rate:g} requests a second; slow down")

    def _bounded(self, receive: Receive) -> Receive:
        """Return a ``receive`` that stops a body that is larger than it said."""
        so_far = 0

        async def bounded() -> Message:
            nonlocal so_far
            message = await receive()
            so_far += len(message.get("body", b""))
            if so_far > self._limits.body:
                raise HTTPException(413, f"the request is larger than {self._limits.body:,} bytes")
            return message

        return bounded


class Impatient(H11Protocol):
    """HTTP that aborts a connection whose request does not come in full.

    uvicorn waits for ever for a first request and for the rest of any, and refuses more than ``limit_concurrency``
    connections: so many silent ones would turn the server off. Every ``timeout_keep_alive`` seconds this looks whether
    a connection still waits for what it waited for at the look before.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to look."""
        super().connection_made(transport)
        self._look_later(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Look no more."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look_later(self, waited: RequestResponseCycle | None) -> None:
        self._next_look = self.loop.call_later(self.timeout_keep_alive, self._look, waited)

    def _look(self, waited: RequestResponseCycle | None) -> None:
        last: RequestResponseCycle | None = self.cycle  # the last request whose headers came in full
        if last is None:
            waits = True
        elif last.response_complete:
            waits = self.timeout_keep_alive_task is None  # otherwise no byte of another request is there yet
        else:
            waits = last.more_body
        if waits and last is waited:
            self.transport.abort()
        else:
            self._look_later(last if waits else None)


def refusal(path: str, error: HTTPException) -> JSONResponse:
    """Return the answer that says why a request was refused, in OpenAI's form below ``/v1``."""
    headers = {"retry-after": "1"} if error.status_code in (429, 503) else None
    if path.startswith("/v1/"):
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        return JSONResponse({"error": {"message": error.detail, "type": kind, "param": None, "code": None}},
                            error.status_code, headers)
    return JSONResponse({"error": error.detail}, error.status_code, headers)


def same_origin(headers: Headers | Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of this server, or from no page at all (curl, another program)."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("same-origin", "none")
    return origin.partition("://")[2] == headers.get("host")


def _name(host: str) -> str:
    """Return a Host header without its port."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _knows(request: Request, token: str) -> bool:
    given = request.headers.get("authorization", "")
    if given[:7].lower() == "bearer " and hmac.compare_digest(given[7:].strip().encode(), token.encode()):
        return True
    return hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), session_of(token).encode())
