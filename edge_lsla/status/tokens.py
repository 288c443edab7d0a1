"""The secret that lets someone read the status page: reading it, comparing it, and guessing made slow."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import time
from collections import OrderedDict
from collections.abc import Callable

from edge_lsla.errors import UsageError
from edge_lsla.reading import read_regular
from edge_lsla.status.settings import StatusSettings

LEAST_CHARACTERS = 16
MOST_CHARACTERS = 1024
COOKIE_SECONDS = 30 * 86400
GUESSES = 5  # wrong tokens an address may show at once; later one more every `GUESS_SECONDS`
GUESS_SECONDS = 12.0
MOST_ADDRESSES = 1024
IPV6_NETWORK_BITS = 64  # one guesser: a machine has one or two addresses of IPv4, but a whole network of IPv6


def read_token(settings: StatusSettings) -> str | None:
    """Return the token from its file or environment variable; None where the settings name neither.

    Raises:
        UsageError: it cannot be read, is too short, or has characters that no header can carry.
    """
    if settings.token_file is not None:
        field = "token_file"
        try:
            content = read_regular(settings.token_file, MOST_CHARACTERS + 2)
        except OSError as error:
            raise UsageError(
                f"the token cannot be read from {settings.token_file}", field, error.strerror or "give another file"
            ) from error
        token = content.decode("ascii", errors="replace").strip()
    elif settings.token_env is not None:
        field = "token_env"
        if settings.token_env not in os.environ:
            raise UsageError(f"no environment variable {settings.token_env}", field, "set it to the token")
        token = os.environ[settings.token_env].strip()
    else:
        return None
    if not LEAST_CHARACTERS <= len(token) <= MOST_CHARACTERS:
        raise UsageError(
            f"a token has {LEAST_CHARACTERS} to {MOST_CHARACTERS} characters", field, "make one: openssl rand -hex 16"
        )
    if not all("!" <= letter <= "~" for letter in token):
        raise UsageError(
            "a token is of ASCII letters, digits and signs", field, "make one without spaces: openssl rand -hex 16"
        )
    return token


class Doorkeeper:
    """Knows the token, tells whether a token or a cookie is right, and how often an address may still guess.

    Not for several threads at once.
    """

    def __init__(
        self, token: str, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self._token = token.encode()
        # The cookie proves the token without containing it, so that a stolen cookie expires.
        self._cookie_key = hmac.digest(self._token, b"edge-lsla status cookie 1", "sha256")
        self._clock, self._wall = clock, wall
        self._guesses: OrderedDict[str, tuple[float, float]] = OrderedDict()  # address: (guesses left, as of)

    def right(self, token: str) -> bool:
        """Whether this is the token; takes equally long however much of it is right."""
        return hmac.compare_digest(token.encode("utf-8", "surrogatepass"), self._token)

    def may_guess(self, address: str) -> bool:
        """Whether an address may show a token now: it has not shown too many wrong ones."""
        return self._left(network(address)) >= 1

    def guessed(self, address: str) -> None:
        """Remember that an address has shown a wrong token."""
        guesser = network(address)
        self._guesses[guesser] = (self._left(guesser) - 1, self._clock())
        self._guesses.move_to_end(guesser)
        if len(self._guesses) > MOST_ADDRESSES:
            self._guesses.popitem(last=False)

    def cookie(self) -> str:
        """Return what a browser that has shown the token may show instead, for 30 days."""
        until = str(int(self._wall()) + COOKIE_SECONDS)
        return f"{until}.{self._sign(until)}"

    def right_cookie(self, cookie: str) -> bool:
        """Whether `cookie` made this and it has not expired; nobody guesses 256 bits, so wrong ones are not counted."""
        until, _, signature = cookie.partition(".")
        if not hmac.compare_digest(signature.encode("utf-8", "surrogatepass"), self._sign(until).encode()):
            return False
        return int(until) > self._wall()  # we signed it, so it is a number

    def _sign(self, until: str) -> str:
        return hmac.new(self._cookie_key, until.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()

    def _left(self, network: str) -> float:
        left, then = self._guesses.get(network, (float(GUESSES), 0.0))
        return min(float(GUESSES), left + max(0.0, self._clock() - then) / GUESS_SECONDS)


def network(address: str) -> str:
    """Return what counts as one machine: an IPv4 address, or a whole IPv6 network, which one machine often has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped:
            return str(found.ipv4_mapped)
        return str(ipaddress.ip_network((int(found), IPV6_NETWORK_BITS), strict=False))
    return str(found)
