"""Events to a web address by POST: a JSON list, acknowledged by 2xx, signed where a key is configured."""

from __future__ import annotations

import contextlib
import email.utils
import hashlib
import hmac
import http
import http.client
import socket
import threading
import time
from collections.abc import Sequence

from edge_lsla.delivery.network import explain, tls_context
from edge_lsla.delivery.secret import exposed, read_secret
from edge_lsla.delivery.sender import DeliveryError, to_json, told
from edge_lsla.delivery.settings import WebhookSettings
from edge_lsla.events import Event

RETRIED = "it is tried again"
# Statuses that no other content would change; every other 4xx may be about one event of the batch.
NOT_THE_CONTENT = {401, 404, 405, 407, 408, 410, 421, 425, 426, 429}


class WebhookSender:
    """Posts events, one request a batch; a redirect is an error, and nothing but the status of an answer is read.

    A batch that is refused for its content is halved until the event at fault is found.

    Args:
        settings: see `WebhookSettings`.
        device: this device's name, `device` of each event.

    Attributes:
        connected: whether the last request was answered with 2xx; true before the first.
        warnings: what is unwise about the settings, sentences.
    """

    def __init__(self, settings: WebhookSettings, device: str) -> None:
        self._settings, self._device = settings, device
        self.connected = True
        # The path may be a secret, as many services have it.
        self._where = f"{settings.parts.scheme}://{settings.parts.netloc}"
        said = (
            exposed(settings.token_file),
            exposed(settings.secret_file),
            "the webhook is not protected by TLS and a verified certificate" if settings.insecure else None,
        )
        self.warnings = tuple(filter(None, said))

    @property
    def name(self) -> str:
        """The sink's name in the outbox."""
        return self._settings.name

    def send(self, batch: Sequence[tuple[int, Event]], stop: threading.Event) -> int:
        """See `Sender.send`."""
        upto = 0
        waiting = [list(batch)] if batch else []
        while waiting and not stop.is_set():
            part = waiting.pop()
            try:
                refusal = self._post([event for _, event in part])
            except DeliveryError as error:
                self.connected = False
                error.upto = upto
                raise
            self.connected = True  # a refusal is an answer, too
            if refusal is None:
                upto = part[-1][0]
            elif len(part) == 1:
                raise DeliveryError(refusal, self._where, "see what the receiver takes", upto=upto, refused=part[0][0])
            else:
                middle = len(part) // 2
                waiting += [part[middle:], part[:middle]]
        return upto

    def tend(self) -> None:
        """See `Sender.tend`."""

    def close(self) -> None:
        """See `Sender.close`."""

    def _post(self, events: list[Event]) -> str | None:
        """Return None where the receiver has the events, or why it refuses them.

        Raises:
            DeliveryError: the receiver is away, or refuses whatever it is sent.
        """
        try:
            body = to_json([told(event, self._device) for event in events])
        except (ValueError, TypeError, RecursionError) as error:
            return f"an event cannot be written as JSON ({error})"
        status, retry_after = self._request(body, self._headers(events, body))
        if 200 <= status < 300:
            return None
        answer = f"the receiver answered {_phrase(status)}"
        if status == 429 or status >= 500:
            raise DeliveryError(answer, self._where, RETRIED, retry_after=retry_after)
        if 300 <= status < 400:
            raise DeliveryError(f"{answer}, a redirect", self._where, "give the final address as url")
        if status in (401, 403) and not (self._settings.token_file or self._settings.token_env):
            answer += " and no token is configured"
        if status in NOT_THE_CONTENT or status < 200:
            raise DeliveryError(answer, self._where, "check url, token_file and token_env")
        return answer

    def _headers(self, events: list[Event], body: bytes) -> dict[str, str]:
        settings = self._settings
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "edge-lsla",
            # The same events are sent again under the same key, and other events never.
            "Idempotency-Key": f"{_ascii(events[0].id)}-{_ascii(events[-1].id)}",
        }
        token = read_secret(settings.token_file, settings.token_env, "token")
        if token is not None:
            if not token.isascii():
                raise DeliveryError("the token has other characters than ASCII", settings.token_file, "correct it")
            headers["Authorization"] = f"Bearer {token}"
        key = read_secret(settings.secret_file, settings.secret_env, "secret")
        if key is not None:
            headers["X-Edge-Lsla-Signature"] = f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"
        return headers

    def _request(self, body: bytes, headers: dict[str, str]) -> tuple[int, float | None]:
        """Post once and return the status, and the seconds that the receiver asks to be left alone."""
        settings, parts = self._settings, self._settings.parts
        timeout = settings.timeout_seconds
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = tls_context(settings.ca_file, settings.insecure)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        late = threading.Event()
        deadline: threading.Timer | None = None
        try:
            connection.connect()
            # The connection's own timeout begins anew with every byte that comes.
            deadline = threading.Timer(timeout, _break_off, (connection.sock, late))
            deadline.name, deadline.daemon = "webhook deadline", True
            deadline.start()
            connection.request("POST", path, body, headers)
            with connection.getresponse() as response:
                if late.is_set():  # what was cut short reads like a whole answer
                    raise TimeoutError
                return response.status, _retry_after(response.headers.get("Retry-After"))
        except http.client.HTTPException as error:
            what = "the receiver does not answer" if late.is_set() else "the receiver does not speak HTTP"
            raise DeliveryError(what, self._where, RETRIED) from error
        except OSError as error:
            what = "the receiver does not answer" if late.is_set() else explain(error, "the receiver")
            raise DeliveryError(what, self._where, RETRIED) from error
        finally:
            if deadline is not None:
                deadline.cancel()
                deadline.join()
            connection.close()


def _break_off(opened: socket.socket, late: threading.Event) -> None:
    late.set()
    with contextlib.suppress(OSError):  # it ended just now
        opened.shutdown(socket.SHUT_RDWR)


def _phrase(status: int) -> str:
    """Return a status in words of our own; the receiver's could be anything."""
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header means, a number or a date; None where it means nothing."""
    if value is None:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _ascii(identifier: str) -> str:
    return "".join(character for character in identifier if character.isalnum() and character.isascii())[:64]
