"""Numbers and names as people read them."""

from __future__ import annotations

import os.path
import re
import unicodedata
from collections.abc import Iterable, Sequence

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
NBSP = "\N{NO-BREAK SPACE}"  # keeps a number and its unit on one line
ABSENT = "\N{EN DASH}"
# They turn the direction of all the text that follows, so that a file name could rewrite the line it stands in.
TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def plain(text: str) -> str:
    """Return a text with what cannot be shown safely as escapes: control characters, lone surrogates, turned text."""
    return "".join(" " if c in "\t\r\n" else c if _shown(c) else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, columns: int) -> str:
    """Shorten a name in its middle to a number of columns; wide characters take two."""
    text = plain(text)
    if sum(map(_columns, text)) <= columns:
        return text
    tail = _fitting(reversed(text), columns // 2)[::-1]
    return f"{_fitting(text, columns - columns // 2 - 1)}…{tail}"


def cut_apart(texts: Sequence[str], columns: int) -> list[str]:
    """Shorten names; of those that would look the same, what they begin with in common is left out instead."""
    shown = [cut(text, columns) for text in texts]
    for same in {name for name in shown if shown.count(name) > 1}:
        places = [place for place, name in enumerate(shown) if name == same]
        begin = len(os.path.commonprefix([texts[place] for place in places]))  # noqa: RUF071  # of letters, not folders
        if begin and len({texts[place] for place in places}) > 1:
            for place, end in zip(places, cut_apart([texts[place][begin:] for place in places], columns - 1)):
                shown[place] = f"…{end}"
    return shown


def title(form: str) -> str:
    """Write the name of a form as its field does: FP32, INT8."""
    name = re.sub(r"\b(fp32|fp16|int8)\b", lambda found: found[0].upper(), form)
    return name[:1].upper() + name[1:]


def number(value: float, digits: int) -> str:
    """Write a number with a real minus sign, and never as minus zero."""
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) else text.lstrip("-")


def signed(value: float, digits: int) -> str:
    """Write a change, with its sign also where it is a gain."""
    return f"+{number(value, digits)}" if value > 0 else number(value, digits)


def decibels(ratio: float | None) -> str:
    """Write a ratio in decibels."""
    return ABSENT if ratio is None else f"{number(ratio, 1)}{NBSP}dB"


def percent(value: float | None, digits: int = 2) -> str:
    """Write a percentage."""
    return ABSENT if value is None else f"{number(value, digits)}{NBSP}%"


def small_share(share: float) -> str:
    """Write a share, 0 to 1, as a percentage whose size shows however small it is."""
    value = 100 * share
    if 0 < value < 0.001:
        return f"below 0.001{NBSP}%"
    return percent(value, 0 if value in (0, 100) else 1 if value >= 10 else 2 if value >= 0.1 else 3)


def short(amount: float) -> str:
    """Write a count in at most four letters: 100, 10k, 1M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if amount >= size:
            return f"{amount / size:g}{letter}"
    return f"{amount:g}"


def span(interval: tuple[float, float] | None, digits: int = 2) -> str:
    """Write an interval."""
    return ABSENT if interval is None else f"{number(interval[0], digits)} to {number(interval[1], digits)}"


def megabytes(size: float | None) -> str:
    """Write a size in bytes as megabytes (10^6)."""
    return ABSENT if size is None else f"{number(size / 1e6, 2)}{NBSP}MB"


def milliseconds(latency: float | None) -> str:
    """Write a latency."""
    return ABSENT if latency is None else f"{number(latency, 2)}{NBSP}ms"


def count(amount: int, noun: str, nouns: str | None = None) -> str:
    """Write a number of things: "1 picture", "2 pictures"."""
    return f"{amount:,} {noun if amount == 1 else nouns or noun + 's'}"


def noise_percent(snr_db: float) -> float:
    """Return the size of an error relative to the signal, in percent: 20 dB is 10 %, 40 dB is 1 %."""
    return float(100 * 10 ** (-snr_db / 20))


def _shown(character: str) -> bool:
    code = ord(character)
    return not (character in TURNING or unicodedata.category(character) in ("Cc", "Cs") or code & 0xFFFE == 0xFFFE)


def _columns(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fitting(characters: Iterable[str], columns: int) -> str:
    taken = ""
    for character in characters:
        columns -= _columns(character)
        if columns < 0:
            break
        taken += character
    return taken
