"""The addresses that the status server answers."""

from __future__ import annotations

import hashlib
import html
import logging
import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edge_lsla.status.guard import COOKIE, SIGN_IN, Guard, client, refusal, same_origin, to_json, too_many_guesses
from edge_lsla.status.metrics import CONTENT_TYPE, exposition
from edge_lsla.status.settings import StatusSettings
from edge_lsla.status.tokens import COOKIE_SECONDS, Doorkeeper
from edge_lsla.status.view import Questions, UnavailableError, View

log = logging.getLogger(__name__)
PAGE = Path(__file__).with_name("page")
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
EVENT_ID = re.compile("[0-9a-f]{32}")
MOST_EVENTS = 500
MOST_HOURS = 24 * 366
MOST_FORM_BYTES = 4096
WRONG = '<p class="bad" role="alert">That is not the token.</p>'
MESSAGE, DEVICE = "<!-- message -->", "<!-- device -->"


def create_app(view: View, settings: StatusSettings, token: str | None) -> ASGIApp:
    """Return the ASGI application; `token` is what whoever asks must show, None lets everyone in."""
    doorkeeper = None if token is None else Doorkeeper(token)
    answers = _Answers(view, settings)
    # Read once: no request ever names a file.
    files = {path.name: path.read_bytes() for path in sorted(PAGE.iterdir()) if path.suffix in MEDIA}
    device = f" · {html.escape(view.device)}" if view.device else ""
    sign_in = files.pop("sign-in.html").decode().replace(DEVICE, device)
    page = files.pop("index.html")

    async def give_page(request: Request) -> Response:
        return Response(page, media_type="text/html")

    async def give_file(request: Request) -> Response:
        name = request.url.path[1:]
        return Response(files[name], media_type=MEDIA[Path(name).suffix])

    async def give_sign_in(request: Request) -> Response:
        return Response(sign_in, media_type="text/html")

    async def take_sign_in(request: Request) -> Response:
        assert doorkeeper is not None
        if not same_origin(request.headers):
            return refusal(403, "the form comes from another page")
        if not doorkeeper.may_guess(client(request.scope)):
            return too_many_guesses()
        fields = parse_qs((await _body(request)).decode("ascii", "replace"))
        if not doorkeeper.right(fields.get("token", [""])[0].strip()):
            doorkeeper.guessed(client(request.scope))
            return Response(sign_in.replace(MESSAGE, WRONG), 403, media_type="text/html")
        answer = RedirectResponse("/", 303)
        secure = request.headers["origin"].startswith("https:")  # a proxy before us may speak TLS
        answer.set_cookie(COOKIE, doorkeeper.cookie(), COOKIE_SECONDS, httponly=True, samesite="strict", secure=secure)
        return answer

    routes = [
        Route("/", give_page),
        *(Route(f"/{name}", give_file) for name in files),
        Route("/api/health", answers.health),
        Route("/api/recent", answers.recent),
        Route("/api/counts", answers.counts),
        Route("/api/cameras", answers.cameras),
        Route("/live/{camera:path}.jpg", answers.live),
        Route("/crops/{event}.jpg", answers.crop),
        Route("/metrics", answers.metrics),
        Route("/healthz", answers.probe),
    ]
    if doorkeeper is not None:
        routes += [Route(SIGN_IN, give_sign_in), Route(SIGN_IN, take_sign_in, methods=["POST"])]
    handlers: Any = {HTTPException: _refused, UnavailableError: _unavailable, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app, settings, doorkeeper)


class _Answers:
    """Everything that the view is asked for."""

    def __init__(self, view: View, settings: StatusSettings) -> None:
        self.view = view
        self.ask = Questions(settings.answer_timeout_seconds).ask

    async def health(self, request: Request) -> Response:
        return to_json(await self.ask(self.view.health))

    async def recent(self, request: Request) -> Response:
        limit = int(_number(request, "limit", 50, 1, MOST_EVENTS))
        events = await self.ask(self.view.recent, limit)
        # Whether there is a crop is the viewer's business; where it lies on the disk is not.
        return to_json({"events": [{**one, "crop": bool(one["crop"])} if "crop" in one else one for one in events]})

    async def counts(self, request: Request) -> Response:
        hours = _number(request, "hours", 24, 1, MOST_HOURS)
        return to_json(await self.ask(self.view.counts, hours))

    async def cameras(self, request: Request) -> Response:
        return to_json({"cameras": await self.ask(self.view.cameras)})

    async def live(self, request: Request) -> Response:
        camera = request.path_params["camera"]
        if camera not in await self.ask(self.view.cameras):
            raise HTTPException(404, "no such camera")
        return _jpeg(request, await self.ask(self.view.picture, camera), "the camera has no picture yet")

    async def crop(self, request: Request) -> Response:
        event = request.path_params["event"]
        if not EVENT_ID.fullmatch(event):
            raise HTTPException(404, "an event's identifier has 32 hexadecimal digits")
        return _jpeg(request, await self.ask(self.view.crop, event), "this event has no crop")

    async def metrics(self, request: Request) -> Response:
        return Response(exposition(await self.ask(self.view.health)), media_type=CONTENT_TYPE)

    async def probe(self, request: Request) -> Response:
        well = bool((await self.ask(self.view.health)).get("ok"))
        return to_json({"ok": well}, 200 if well else 503)


def _jpeg(request: Request, content: bytes | None, otherwise: str) -> Response:
    """Return a picture, or only that it is the one that the browser has: a phone's data are dear."""
    if content is None:
        raise HTTPException(404, otherwise)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(content, headers={"ETag": tag}, media_type="image/jpeg")


def _number(request: Request, name: str, usual: float, least: float, most: float) -> float:
    text = request.query_params.get(name, str(usual))
    try:
        value = float(text) if len(text) <= 20 else math.nan
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise HTTPException(400, f"{name} is a number from {least} to {most}")
    return value


async def _body(request: Request) -> bytes:
    """Return a form; one that is too large is not read, and what else comes of it neither: see `connections`."""
    if int(request.headers.get("content-length", 0)) > MOST_FORM_BYTES:
        raise HTTPException(413, "the form is too large")
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > MOST_FORM_BYTES:
                raise HTTPException(413, "the form is too large")
    except ClientDisconnect:  # no news: it was cut for being slow
        raise HTTPException(400, "the form did not come") from None
    return body


async def _refused(request: Request, error: HTTPException) -> Response:
    headers = dict(error.headers) if error.headers else None
    return refusal(error.status_code, error.detail.lower() if error.status_code == 405 else error.detail, headers)


async def _unavailable(request: Request, error: UnavailableError) -> Response:
    return refusal(503, str(error))


async def _failed(request: Request, error: Exception) -> Response:
    log.error("the status page failed: %s", error, exc_info=error)
    return refusal(500, "the status page failed; report this")
