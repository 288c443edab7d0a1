"""Which model is in which slot, and how it came there: a small JSON file."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from typing import Any

FILE = "state.json"
LARGEST_BYTES = 1_048_576
VERSION = 1
SLOTS = ("a", "b")
MOST_REMEMBERED = 20  # entries of the history
LONGEST_TEXT = 500
LATEST = 253_402_214_400.0  # the last day of the year 9999, which is where dates end

_DIGEST = re.compile("[0-9a-f]{64}")
_SHOWN_DIGEST = 12  # characters


@dataclass(frozen=True)
class Held:
    """A model in a slot.

    Attributes:
        slot: "a" or "b".
        digest: the bundle's `Manifest.sha256`, which says what it holds, signed or not.
        name: the model's.
        precision: in which it last ran here, "fp32", "fp16" or "int8"; "" where that is not known, as below.
        file_sha256: SHA-256 of the bundle's file, as `sha256sum` tells it.
        artifact_sha256: SHA-256 of the artifact that last ran here, which is the `engine` of events.
    """

    slot: str
    digest: str
    name: str
    precision: str = ""
    file_sha256: str = ""
    artifact_sha256: str = ""

    @property
    def file(self) -> str:
        """The slot's file, in the folder of the slots."""
        return f"{self.slot}.lsla"

    @property
    def title(self) -> str:
        """What tells it from others of its name."""
        return _title(self)


@dataclass(frozen=True)
class Entry:
    """Something that happened to a model.

    Attributes:
        time: seconds since the epoch.
        what: "installed", "refused", "switched", "promoted", "rolled back" or "recovered".
        name, digest, precision, file_sha256, artifact_sha256: of the model; see `Held`.
        reason: one sentence.
    """

    time: float
    what: str
    name: str
    digest: str
    reason: str
    precision: str = ""
    file_sha256: str = ""
    artifact_sha256: str = ""

    @property
    def title(self) -> str:
        """What tells its model from others of that name."""
        return _title(self)


@dataclass(frozen=True)
class State:
    """The slots.

    Attributes:
        active: the model that answers; None before the first.
        candidate: a model that waits, or runs in shadow.
        previous: the model to go back to.
        state: "trial" while `active` is on probation, else "steady".
        starts: how often the service was started with the model that is being tried; 0 while a candidate waits.
        history: the last entries, oldest first.
    """

    active: Held | None = None
    candidate: Held | None = None
    previous: Held | None = None
    state: str = "steady"
    starts: int = 0
    history: tuple[Entry, ...] = field(default=())

    @property
    def phase(self) -> str:
        """What the last service to run does, or did when it was killed: "steady", "waits", "shadow" or "probation"."""
        if self.state == "trial":
            return "probation"
        if self.candidate is None:
            return "steady"
        return "shadow" if self.starts else "waits"

    def noted(self, entry: Entry) -> State:
        """Return the same with one more entry."""
        short = dataclasses.replace(entry, reason=entry.reason[:LONGEST_TEXT], name=entry.name[:LONGEST_TEXT])
        return dataclasses.replace(self, history=(*self.history, short)[-MOST_REMEMBERED:])

    def free_slot(self) -> str:
        """Return the slot that the active model is not in."""
        return next(slot for slot in SLOTS if self.active is None or slot != self.active.slot)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-ready values."""
        return {"version": VERSION, **dataclasses.asdict(self), "history": [vars(entry) for entry in self.history]}

    def text(self) -> bytes:
        """Return the file's bytes."""
        return json.dumps(self.to_dict(), indent=1).encode() + b"\n"


def parse(data: bytes) -> State | None:
    """Return the state that `State.text` wrote, or None where these bytes are anything else."""
    try:
        values = json.loads(data)
        if not isinstance(values, dict) or values.pop("version", None) != VERSION:
            return None
        for name in ("active", "candidate", "previous"):
            values[name] = _held(values[name])
        values["history"] = tuple(_entry(value) for value in values["history"])[-MOST_REMEMBERED:]
        state = State(**values)
        places = [held.slot for held in (state.active, state.candidate, state.previous) if held is not None]
        fits = state.state in ("steady", "trial") and type(state.starts) is int and state.starts >= 0
        if not fits or len(places) > len(set(places)) or (state.state == "trial" and state.previous is None):
            return None
        return None if state.active is None and places else state
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _held(value: Any) -> Held | None:
    if value is None:
        return None
    held = Held(**value)
    texts = (held.name, held.precision, held.file_sha256, held.artifact_sha256)
    fits = held.slot in SLOTS and _DIGEST.fullmatch(held.digest)
    if not fits or not all(isinstance(text, str) for text in texts):
        raise ValueError("not a slot")
    return held


def _entry(value: Any) -> Entry:
    entry = Entry(**value)
    texts = (value for name, value in vars(entry).items() if name != "time")
    if not all(isinstance(text, str) for text in texts) or not 0 <= entry.time < LATEST:
        raise ValueError("not an entry")
    return entry


def _title(model: Held | Entry) -> str:
    """Return name, beginnings of digests, each with what it is of, and precision; the manifest's where no other is."""
    file, artifact = model.file_sha256[:_SHOWN_DIGEST], model.artifact_sha256[:_SHOWN_DIGEST]
    about = [f"file {file}" if file else f"manifest {model.digest[:_SHOWN_DIGEST]}"]
    about += [f"artifact {artifact}"] if artifact else []
    return f"{model.name} ({', '.join([*about, *filter(None, [model.precision])])})"
