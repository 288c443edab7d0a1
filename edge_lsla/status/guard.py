"""Who is answered, and the headers of every answer."""

from __future__ import annotations

import ipaddress
import json
import math
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import GUESS_SECONDS, Doorkeeper

COOKIE = "edge_lsla_status"
MOST_HEAD_BYTES = 16384  # h11's own limit sees only what comes in more than one piece
SIGN_IN = "/sign-in"
BEARER = {"WWW-Authenticate": "Bearer"}
# What anyone may have: it says nothing about the service but whether it is well.
OPEN = frozenset({"/healthz", SIGN_IN, "/page.css", "/icon.svg"})
HEADERS = {
    # Trusted types: even our own code cannot turn a text into HTML.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not no-referrer: with that a browser sends "Origin: null" with the sign-in form, and whose it is cannot be told.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def to_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an answer in JSON, in ASCII; a number that JSON lacks (an infinity) becomes null."""
    text = json.dumps(_finite(content), allow_nan=False)
    return Response(text, status, headers, media_type="application/json")


def refusal(status: int, what: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer that says in one sentence why there is no other."""
    return to_json({"ok": False, "error": what}, status, headers)


class Guard:
    """Stands before the application: the names it may be asked by, tokens, and the headers of every answer."""

    def __init__(self, app: ASGIApp, settings: StatusSettings, doorkeeper: Doorkeeper | None) -> None:
        self.app, self.doorkeeper = app, doorkeeper
        # Only on loopback: elsewhere a page of another name has no cookie for this one, and gets nothing.
        self.names: frozenset[str] | None = None
        if settings.loopback:
            own = {"localhost", "127.0.0.1", "::1", settings.address}
            self.names = frozenset(own | {name.lower() for name in settings.host_names})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        answer = self.refuse(scope)
        await (answer or self.app)(scope, receive, send_with_headers)

    def refuse(self, scope: Scope) -> Response | None:
        """Return why this request gets no other answer; None where it may pass."""
        headers = Headers(scope=scope)
        head = len(scope["raw_path"]) + len(scope["query_string"])
        if head + sum(len(name) + len(value) for name, value in scope["headers"]) > MOST_HEAD_BYTES:
            return refusal(431, "the request is too large")
        if self.names is not None and _host_name(headers.get("host", "")) not in self.names:
            # A page on the internet whose name was made to point here would otherwise read everything.
            return refusal(421, "the status page is not served under this name; add it to host_names")
        if self.doorkeeper is None or scope["path"] in OPEN:
            return None
        authorization = headers.get("authorization")
        if authorization is not None:
            return self.refuse_token(self.doorkeeper, authorization, client(scope))
        cookie = HTTPConnection(scope).cookies.get(COOKIE)
        if cookie is not None and self.doorkeeper.right_cookie(cookie):
            return None
        if scope["path"] == "/":
            return RedirectResponse(SIGN_IN, 303)
        return refusal(401, "a token is needed; sign in, or send it as Authorization: Bearer", BEARER)

    def refuse_token(self, doorkeeper: Doorkeeper, authorization: str, address: str) -> Response | None:
        """Return why the token of an `Authorization` header is not enough; None where it is."""
        if not doorkeeper.may_guess(address):
            return too_many_guesses()
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer" and doorkeeper.right(token.strip()):
            return None
        doorkeeper.guessed(address)
        return refusal(401, "the token is wrong", BEARER)


def too_many_guesses() -> Response:
    """Return the answer to an address that has shown too many wrong tokens."""
    return refusal(429, "too many wrong tokens; wait a minute", {"Retry-After": str(int(GUESS_SECONDS))})


def client(scope: Scope) -> str:
    """Return the address that asks, as the socket knows it; headers that claim another are not believed."""
    return scope["client"][0] if scope.get("client") else ""


def same_origin(headers: Headers) -> bool:
    """Whether a form comes from a page of this very server."""
    origin, host = urlsplit(headers.get("origin", "")), headers.get("host", "")
    return origin.scheme in ("http", "https") and bool(host) and origin.netloc.lower() == host.lower()


def _host_name(host: str) -> str | None:
    """Return the name or address of a `Host` header without its port; None where it is none."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    if name is None or urlsplit(f"//{host}").netloc != host or "@" in host:
        return None
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return content
