"""Who may come in, and how much: the token, the page's own origin, sizes, rates, headers.

The address holds a random token.  The first visit trades it for a cookie that scripts cannot read, so that
the token is in no later address; every request must bring the cookie, the websocket's included.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

TOKEN_BYTES = 32
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
WEBSOCKET_PATH = "/ws"
MOST_WEBSOCKETS = 6
LARGEST_MESSAGE = 1 << 20
"""Bytes of one message from the browser; strokes and clicks are far below."""
MESSAGES_AT_ONCE, MESSAGES_PER_SECOND = 600, 300
"""Of one page; the mouse sends a hundred a second."""

HEADERS = {
    # Nothing comes from elsewhere and nothing goes elsewhere.  The browser compiles the page's templates.
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
        "style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; object-src 'none'; "
        "base-uri 'self'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass
class Allowance:
    """So many at once, refilled at a rate; a leaky bucket.

    Attributes:
        most: how many at once.
        per_second: refilled.
        clock: seconds.
    """

    most: float
    per_second: float
    clock: Callable[[], float] = time.monotonic
    _left: float = field(init=False)
    _when: float = field(init=False)

    def __post_init__(self) -> None:
        self._left, self._when = self.most, self.clock()

    def take(self) -> bool:
        """Takes one if there is one."""
        return self.wait() == 0

    def wait(self) -> float:
        """Takes one if there is one, and returns 0; else the seconds until there is."""
        now = self.clock()
        self._left = min(self.most, self._left + (now - self._when) * self.per_second)
        self._when = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.per_second


class Access:
    """Checks every request.

    Attributes:
        token: what the address must hold.
    """

    def __init__(self, loopback_only: bool = True, token: str | None = None) -> None:
        self.token = token or secrets.token_urlsafe(TOKEN_BYTES)
        self._loopback_only = loopback_only
        self._requests = Allowance(400, 100)
        self._refusals = Allowance(20, 0.2)
        self._websockets = 0

    def refusal(self, request: Any) -> tuple[int, str] | None:
        """Status and reason why an aiohttp request is refused; None if it may come in."""
        host = request.headers.get("Host", "")
        if self._loopback_only and _without_port(host) not in LOOPBACK:
            return 421, "This page is only for the computer it runs on."  # a name that was made to lead here
        if not _same_origin(request.headers.get("Origin"), host, needed=request.path == WEBSOCKET_PATH):
            return 403, "Another page may not use this one."
        if not self.knows(request.query.get("token")) and not self.knows(_cookie(request)):
            slow = not self._refusals.take()
            return (
                (429, "Too many attempts.")
                if slow
                else (403, "Open the address that was printed at the start.")
            )
        if request.method not in ("GET", "HEAD"):
            return 405, "Nothing can be uploaded here."
        if not self._requests.take():
            return 429, "Too many requests."
        if request.path == WEBSOCKET_PATH and self._websockets >= MOST_WEBSOCKETS:
            return 503, "Too many pages are open: close some."
        return None

    def knows(self, token: str | None) -> bool:
        """Whether it is the token; takes as long for every wrong one."""
        return hmac.compare_digest((token or "").encode(), self.token.encode())

    def middleware(self) -> Any:
        """The aiohttp middleware that asks `refusal` first, trades token for cookie and adds the headers."""
        from aiohttp import web

        @web.middleware
        async def check(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
            refused = self.refusal(request)
            if refused:
                return web.Response(status=refused[0], text=refused[1] + "\n", headers=HEADERS)
            if "token" in request.query and request.path != WEBSOCKET_PATH:
                return self._with_cookie(
                    request, web.Response(status=303, headers={"Location": "/index.html"})
                )
            response = await self._counted(request, handler)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return check

    async def _counted(self, request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        if request.path != WEBSOCKET_PATH:
            return await handler(request)
        self._websockets += 1
        try:
            return await handler(request)
        finally:
            self._websockets -= 1

    def _with_cookie(self, request: Any, response: Any) -> Any:
        response.set_cookie(_cookie_name(request), self.token, httponly=True, samesite="Strict", path="/")
        response.headers.update(HEADERS)
        return response


def limit_messages(handler: Any) -> None:
    """Slows a websocket down to what a hand can do, and refuses messages above `LARGEST_MESSAGE`.

    Args:
        handler: wslink's, which lifts its own limit of the message size once the browser has said hello.
    """
    allowances: dict[str, Allowance] = {}
    on_connect, on_message, on_close = handler.onConnect, handler.onMessage, handler.onClose

    async def connect(request: Any, client: str) -> None:
        await on_connect(request, client)
        allowances[client] = Allowance(MESSAGES_AT_ONCE, MESSAGES_PER_SECOND)
        chunks = handler.unchunkers[client]
        chunks.set_max_message_size(LARGEST_MESSAGE)
        chunks.set_max_message_size = lambda size: None

    async def message(is_binary: bool, content: Any, client: str) -> None:
        while (seconds := allowances[client].wait()) > 0:  # what comes after it waits in the browser
            await asyncio.sleep(seconds)
        await on_message(is_binary, content, client)

    async def close(client: str) -> None:
        allowances.pop(client, None)
        await on_close(client)

    handler.onConnect, handler.onMessage, handler.onClose = connect, message, close


def _cookie(request: Any) -> str | None:
    value: str | None = request.cookies.get(_cookie_name(request))
    return value


def _cookie_name(request: Any) -> str:
    # Cookies do not tell ports apart; two pages of one computer must.
    port = request.headers.get("Host", "").rpartition(":")[2]
    return f"diffseglung-{port if port.isdecimal() else 80}"


def _without_port(host: str) -> str:
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host


def _same_origin(origin: str | None, host: str, needed: bool) -> bool:
    """Whether a request comes from our own page; a browser names the page's origin with each websocket."""
    if origin is None:
        return not needed
    return origin in (f"http://{host}", f"https://{host}")
