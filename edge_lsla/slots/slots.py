"""Two slots for models: one answers, the other holds the next or the one before.

Every change of the state is one file that is replaced whole, and a slot's file is replaced only while the state names
nothing in it: so whenever the process or the power ends, the state names a whole, verified model to answer with.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import BundleError, EdgeLslaError, GateError, UsageError
from edge_lsla.slots import folder as files
from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.state import FILE, LARGEST_BYTES, SLOTS, Entry, Held, State, parse
from edge_lsla.slots.taking import compare_labels, copy_into, examine, unwritten

log = logging.getLogger(__name__)

Check = Callable[[Path], "tuple[str, str]"]


@dataclass(frozen=True)
class Candidate:
    """What `Slots.install` made of a bundle.

    Attributes:
        held: its slot, digest and name.
        waits: whether it is to be tried; False where it is the active model, being the first or the same.
    """

    held: Held
    waits: bool


class Slots:
    """The folder `models/`: `a.lsla`, `b.lsla` and `state.json`; any process may change it.

    Args:
        path: the folder; it is made by the first `install`.
        settings: which bundles are taken.
    """

    def __init__(self, path: Path, settings: SlotSettings | None = None) -> None:
        self.path = Path(path).absolute()
        self.settings = settings or SlotSettings()
        self._said = ""  # what is wrong with the record of the slots: it is read often

    def state(self) -> State:
        """Return what is in the slots; where that was lost, what can be made out from them."""
        if not self.path.is_dir():
            return State()
        with files.opened(self.path) as folder:
            return self._read(folder)

    def signature(self) -> tuple[int, int, int] | None:
        """Return what changes whenever the state does; None without one."""
        try:
            status = os.stat(self.path / FILE, follow_symlinks=False)  # noqa: PTH116  # Path.stat follows links in 3.9
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size

    def active(self) -> Path:
        """Return the file of the model that answers.

        Raises:
            UsageError: there is none yet.
        """
        held = self.state().active
        if held is None:
            raise UsageError("no model is installed", self.path, "run: edge-lsla update NAME.lsla")
        return self.path / held.file

    def verified(self, held: Held) -> Path:
        """Return a model's file, which is what it was when it was installed.

        Raises:
            BundleError: it is damaged, or another.
            CompatibilityError, TrustError, MissingComponentError: see `open_bundle`.
        """
        path = self.path / held.file
        if examine(path, self.settings).digest != held.digest:
            raise BundleError("bundle is not the one that was installed", path, "install it again")
        return path

    def install(self, bundle: Path, check: Check | None = None) -> Candidate:
        """Copy a bundle into the free slot, to be tried; the first one becomes the active model.

        Args:
            bundle: the file; the copy is what is verified.
            check: more to verify, given the copy; it refuses by raising, and returns the precision that ran and the
                SHA-256 of its artifact.

        Raises:
            BundleError: it is not a bundle, damaged, or too large.
            GateError: it needs a signature, names other classes, is of a newer format, or a model is on trial.
            EdgeLslaError: the disk is full, read-only or fails. Whatever is raised, nothing has changed.
        """
        bundle = Path(bundle)
        files.make_folder(self.path)
        with files.opened(self.path) as folder:
            files.sweep(folder)
            temporary = copy_into(folder, self.path, bundle, self.settings)
            copy = self.path / temporary
            try:
                held = examine(copy, self.settings)
                active = self._read(folder).active
                if active is not None and not self.settings.allow_other_labels:
                    compare_labels(copy, self.path / active.file)
                if check is not None:
                    precision, artifact = check(copy)
                    held = dataclasses.replace(held, precision=precision, artifact_sha256=artifact)
                return self._store(temporary, held)
            except EdgeLslaError as error:  # who reads it knows the bundle, not the copy
                where = str(error.where).replace(str(copy), str(bundle)) if error.where is not None else None
                remedy = error.remedy and error.remedy.replace(str(copy), str(bundle))
                raise type(error)(error.what, where, remedy, error.details) from error
            except OSError as error:
                raise unwritten(self.path, error) from error
            finally:
                files.discard(folder, temporary)

    def start(self) -> State:
        """Count a start of the service, roll back a model on trial that was started too often, and return the state.

        A disk that cannot be written to is logged, and the state returned all the same.
        """
        if not self.path.is_dir():
            return State()
        with files.opened(self.path, alone=True) as folder:
            recorded = self._recorded(folder)
            state = changed = recorded or self._recovered(folder)
            if state.state == "trial":
                changed = dataclasses.replace(state, starts=state.starts + 1)
                if changed.starts > self.settings.most_starts:
                    reason = f"the service ended {state.starts} times while it was on trial"
                    changed = _rolled_back(state, reason)
            if changed is not recorded and changed.active is not None:
                try:
                    self._save(folder, changed)
                except EdgeLslaError as error:
                    log.warning("%s", error)
            return changed

    def begin_shadow(self, digest: str) -> bool:
        """Count a start with this candidate; return False where it is gone or was started too often, and so refused."""

        def change(state: State) -> State:
            if state.candidate is None or state.candidate.digest != digest:
                return state
            if state.starts < self.settings.most_starts:
                return dataclasses.replace(state, starts=state.starts + 1)
            return _refused(state, f"the service ended {state.starts} times while it was being tried")

        state, changed = self._change(change)
        return changed is not state and changed.candidate is not None

    def begin_trial(self, digest: str) -> State:
        """Let the candidate answer, on probation.

        Raises:
            GateError: it is not the candidate any more.
            EdgeLslaError: the state cannot be written; also by all below.
        """

        def change(state: State) -> State:
            new = state.candidate
            if new is None or new.digest != digest or state.state != "steady":
                raise GateError("it is not the candidate any more", digest, "look at: edge-lsla update --status")
            trial = State(new, None, state.active, "trial", 0, state.history)
            return _noted(trial, "switched", new, "it passed its self-test and its time in shadow; it is on probation")

        return self._change(change)[1]

    def promote(self, digest: str, reason: str) -> State:
        """End the probation of the active model well."""

        def change(state: State) -> State:
            if state.active is None or state.active.digest != digest or state.state != "trial":
                return state
            steady = dataclasses.replace(state, state="steady", starts=0)
            return _noted(steady, "promoted", state.active, reason)

        return self._change(change)[1]

    def refuse(self, digest: str, reason: str) -> State:
        """Give a candidate up; nothing happens where it is another by now."""

        def change(state: State) -> State:
            known = state.candidate is not None and state.candidate.digest == digest
            return _refused(state, reason) if known else state

        return self._change(change)[1]

    def roll_back(self, reason: str, digest: str | None = None) -> State:
        """Go back: from a model on trial to the one before, from a candidate to none, or to the previous model.

        Args:
            reason: one sentence.
            digest: where given, nothing happens unless this is the active model, on trial.

        Raises:
            GateError: there is nothing to go back from.
        """

        def change(state: State) -> State:
            if digest is not None and (state.state, state.active and state.active.digest) != ("trial", digest):
                return state
            return _rolled_back(state, reason)

        return self._change(change)[1]

    def abandon(self, digest: str, reason: str) -> State:
        """Replace an active model that cannot be opened by whatever the other slot holds.

        Raises:
            GateError: it holds nothing.
        """

        def change(state: State) -> State:
            if state.active is None or state.active.digest != digest:
                return state
            other = state.previous or state.candidate
            if other is None:
                raise GateError("the only model cannot be used", state.active.file, reason)
            return _noted(State(other, history=state.history), "recovered", other, f"the other model: {reason}")

        return self._change(change)[1]

    def forgive(self, digest: str) -> None:
        """Take back a counted start: the service was stopped, not ended by the model that is being tried."""

        def change(state: State) -> State:
            tried = state.active if state.state == "trial" else state.candidate
            if tried is None or tried.digest != digest or not state.starts:
                return state
            return dataclasses.replace(state, starts=state.starts - 1)

        self._change(change)

    def ran(self, held: Held) -> None:
        """Note what of the active model or the candidate the service runs.

        `update` may have tested another precision, and a record from before, or a recovered one, knows neither.
        """

        def change(state: State) -> State:
            for role in ("active", "candidate"):
                known = getattr(state, role)
                if known is not None and known.digest == held.digest:
                    file = known.file_sha256 or examine(self.path / known.file, self.settings).file_sha256
                    ran = dataclasses.replace(
                        known, precision=held.precision, artifact_sha256=held.artifact_sha256, file_sha256=file
                    )
                    return state if ran == known else dataclasses.replace(state, **{role: ran})
            return state

        self._change(change)

    def _change(self, change: Callable[[State], State]) -> tuple[State, State]:
        with files.opened(self.path, alone=True) as folder:
            state = self._read(folder)
            changed = change(state)
            if changed is not state:
                self._save(folder, changed)
            return state, changed

    def _read(self, folder: int) -> State:
        return self._recorded(folder) or self._recovered(folder)

    def _recorded(self, folder: int) -> State | None:
        data = files.read(folder, FILE, LARGEST_BYTES)
        state = None if data is None else parse(data)
        if state is not None:
            self._said = ""
        return state

    def _recovered(self, folder: int) -> State:
        """Make the state anew from the slots: the model that lies there longest has most likely answered before."""
        found = []
        for slot in SLOTS:
            path = self.path / f"{slot}.lsla"
            try:
                found.append((path.lstat().st_mtime, dataclasses.replace(examine(path, self.settings), slot=slot)))
            except (EdgeLslaError, OSError):
                continue
        why = "lost" if files.read(folder, FILE, LARGEST_BYTES) is None else "damaged"
        if not found:
            if why == "damaged":
                self._warn("the record of the slots is damaged, and no slot has a whole model")
            return State()
        held = min(found, key=lambda one: one[0])[1]
        self._warn(f"the record of the slots is {why}; slot {held.slot} answers")
        return _noted(State(held), "recovered", held, f"the record of the slots was {why}; this slot's model is whole")

    def _warn(self, what: str) -> None:
        """Log what is wrong with the record of the slots, once until that is mended or something else."""
        if what != self._said:
            self._said = what
            log.warning("%s: %s", what, self.path / FILE)

    def _save(self, folder: int, state: State) -> None:
        try:
            files.put(folder, files.write(folder, FILE, lambda file: file.write(state.text())), FILE)
        except OSError as error:
            raise unwritten(self.path, error) from error

    def _store(self, temporary: str, held: Held) -> Candidate:
        with files.opened(self.path, alone=True) as folder:
            state = self._read(folder)
            if state.active is not None and state.active.digest == held.digest:
                if self._repair(folder, temporary, state.active):  # maybe another file: signing changes no manifest
                    state = dataclasses.replace(
                        state, active=dataclasses.replace(state.active, file_sha256=held.file_sha256)
                    )
                    self._save(folder, state)
                assert state.active is not None
                return Candidate(state.active, waits=False)
            if state.state == "trial":
                remedy = "wait until it is promoted or rolled back, or run: edge-lsla update --rollback"
                raise GateError("a model is on trial, and the other slot holds the way back", self.path, remedy)
            held = dataclasses.replace(held, slot=state.free_slot())
            if state.previous is not None or state.candidate is not None:
                # Its slot is written to next: until then the state must not name it.
                state = dataclasses.replace(state, previous=None, candidate=None, starts=0)
                self._save(folder, state)
            files.put(folder, temporary, held.file)
            if state.active is None:
                state = _noted(State(held, history=state.history), "installed", held, "it is the first model")
            else:
                state = dataclasses.replace(state, candidate=held, starts=0)
                state = _noted(state, "installed", held, "it waits to be tried")
            self._save(folder, state)
            return Candidate(held, waits=state.candidate is not None)

    def _repair(self, folder: int, temporary: str, active: Held) -> bool:
        """Put a whole copy of the active model in the place of one that the disk damaged; return whether it was."""
        try:
            self.verified(active)
        except EdgeLslaError:
            files.put(folder, temporary, active.file)
            return True
        return False


def _noted(state: State, what: str, held: Held, reason: str) -> State:
    about = (held.precision, held.file_sha256, held.artifact_sha256)
    return state.noted(Entry(round(time.time(), 3), what, held.name, held.digest, reason, *about))


def _refused(state: State, reason: str) -> State:
    assert state.candidate is not None
    return _noted(dataclasses.replace(state, candidate=None, starts=0), "refused", state.candidate, reason)


def _rolled_back(state: State, reason: str) -> State:
    if state.state == "steady" and state.candidate is not None:
        return _refused(state, reason)
    if state.active is None or state.previous is None:
        raise GateError("there is no model to go back to", "the slots", "install one: edge-lsla update NAME.lsla")
    # A model that failed its trial is not gone back to; one that an operator left may be.
    left = None if state.state == "trial" else state.active
    back = State(state.previous, None, left, history=state.history)
    return _noted(back, "rolled back", state.active, reason)
