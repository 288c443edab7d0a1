"""What is taken into the slots, what is refused, and what the state says."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from pathlib import Path

import pytest
import slot_parts
from slot_parts import QUICK

from edge_lsla.bundle import generate_key, open_bundle, read_private_key, sign_bundle
from edge_lsla.errors import (
    AccuracyError,
    BundleError,
    CompatibilityError,
    EdgeLslaError,
    GateError,
    TrustError,
    UsageError,
)
from edge_lsla.slots.settings import SlotSettings
from edge_lsla.slots.slots import Slots
from edge_lsla.slots.state import MOST_REMEMBERED, Entry, State, parse


@pytest.fixture
def slots(tmp_path: Path, first: Path) -> Slots:
    slots = Slots(tmp_path / "data" / "models", QUICK)
    slots.install(first)
    return slots


def contents(slots: Slots) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(slots.path.iterdir())}


def test_the_first_model_is_active_at_once_and_the_next_waits(slots: Slots, first: Path, second: Path) -> None:
    assert slots.active() == slots.path / "a.lsla"
    assert slots.active().read_bytes() == first.read_bytes()
    candidate = slots.install(second)
    assert candidate.waits
    assert candidate.held.slot == "b"
    state = slots.state()
    assert (state.active.name, state.candidate.name, state.state) == ("first", "second", "steady")
    assert [entry.what for entry in state.history] == ["installed", "installed"]
    assert not slots.install(first).waits  # it answers already
    assert slots.state() == state


def test_no_model_is_said_to_be_none(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "models")
    assert slots.state() == slots.start() == State()
    with pytest.raises(UsageError, match=r"no model is installed.*edge-lsla update"):
        slots.active()


def test_a_trial_ends_well(slots: Slots, second: Path) -> None:
    digest = slots.install(second).held.digest
    assert slots.begin_shadow(digest)
    trial = slots.begin_trial(digest)
    assert (trial.active.name, trial.previous.name, trial.state) == ("second", "first", "trial")
    assert slots.active().name == "b.lsla"
    steady = slots.promote(digest, "all went well")
    assert (steady.active.name, steady.previous.name, steady.state) == ("second", "first", "steady")
    assert steady.history[-1].reason == "all went well"
    assert slots.roll_back("the operator prefers the old one").active.name == "first"
    assert slots.roll_back("and the new one again").active.name == "second"


def test_a_trial_ends_badly(slots: Slots, second: Path, failing: Path) -> None:
    digest = slots.install(second).held.digest
    slots.begin_trial(digest)
    with pytest.raises(GateError, match="a model is on trial"):
        slots.install(failing)
    back = slots.roll_back("it is slow", digest)
    assert (back.active.name, back.previous, back.candidate, back.state) == ("first", None, None, "steady")
    assert back.history[-1].what == "rolled back"
    assert slots.roll_back("again", digest) == back  # not on trial any more
    with pytest.raises(GateError, match="no model to go back to"):
        slots.roll_back("once more")


def test_a_candidate_is_withdrawn(slots: Slots, second: Path) -> None:
    digest = slots.install(second).held.digest
    assert slots.roll_back("the operator changed his mind").candidate is None
    assert not slots.begin_shadow(digest)
    with pytest.raises(GateError, match="not the candidate"):
        slots.begin_trial(digest)


def test_a_model_on_trial_that_ends_the_service_again_and_again_is_rolled_back(slots: Slots, second: Path) -> None:
    slots.begin_trial(slots.install(second).held.digest)
    assert [slots.start().state for _ in range(QUICK.most_starts)] == ["trial"] * QUICK.most_starts
    state = slots.start()
    assert (state.active.name, state.state) == ("first", "steady")
    assert "ended 2 times while it was on trial" in state.history[-1].reason


def test_a_stop_is_no_failed_start(slots: Slots, second: Path) -> None:
    digest = slots.install(second).held.digest
    slots.begin_trial(digest)
    for _ in range(2 * QUICK.most_starts):
        assert slots.start().state == "trial"
        slots.forgive(digest)


def test_a_candidate_that_ends_the_service_again_and_again_is_refused(slots: Slots, second: Path) -> None:
    digest = slots.install(second).held.digest
    assert [slots.begin_shadow(digest) for _ in range(3)] == [True, True, False]
    state = slots.state()
    assert state.candidate is None
    assert state.history[-1].what == "refused"


def test_a_refusal_changes_nothing(slots: Slots, first: Path, second: Path, tmp_path: Path) -> None:
    before = contents(slots)
    whole = second.read_bytes()
    damaged = tmp_path / "damaged.lsla"

    def refuses(error: type[EdgeLslaError], match: str, path: Path = damaged, taker: Slots = slots) -> None:
        with pytest.raises(error, match=match) as refused:
            taker.install(path)
        assert str(path) in str(refused.value) or "MB are free" in str(refused.value)
        assert ".part" not in str(refused.value)
        assert contents(slots) == before

    damaged.write_bytes(whole[:-70] + b"x" + whole[-69:])
    refuses(BundleError, "digest|damaged|changed")
    damaged.write_bytes(whole[: len(whole) // 2])
    refuses(BundleError, "bundle|digest|short")
    damaged.write_bytes(b"")
    refuses(BundleError, "bundle|digest|short")
    refuses(BundleError, "cannot be read", tmp_path / "absent.lsla")
    refuses(BundleError, "not a regular file", tmp_path)
    os.mkfifo(tmp_path / "pipe.lsla")
    refuses(BundleError, "not a regular file", tmp_path / "pipe.lsla")
    other = slot_parts.write(tmp_path / "labels.lsla", "other", labels=("ant", "bee", "wasp"))
    refuses(CompatibilityError, r"other classes than the active model \(lady beetle, wasp\)", other)
    signed_only = Slots(slots.path, SlotSettings(require_signature=True, trusted_keys=tmp_path / "keys"))
    refuses(TrustError, "not signed", second, signed_only)
    large = tmp_path / "large.lsla"
    with large.open("wb") as file:
        file.truncate(2_000_000)
    refuses(BundleError, "larger than 1 MB", large, Slots(slots.path, SlotSettings(largest_mb=1)))
    refuses(EdgeLslaError, "MB are free", second, Slots(slots.path, SlotSettings(spare_disk_mb=10**9)))


def test_what_the_caller_refuses_is_not_taken(slots: Slots, second: Path) -> None:
    before = contents(slots)

    def check(path: Path) -> None:
        with open_bundle(path) as bundle:  # it is whole, and named like no slot
            raise AccuracyError("its self-test failed", bundle.path, "rebuild it")

    with pytest.raises(AccuracyError, match=str(second)):
        slots.install(second, check)
    assert contents(slots) == before


def test_other_labels_are_taken_where_that_is_allowed(slots: Slots, second: Path, tmp_path: Path) -> None:
    other = slot_parts.write(tmp_path / "labels.lsla", "other", labels=("ant", "bee", "wasp"))
    assert Slots(slots.path, SlotSettings(allow_other_labels=True)).install(other).waits


def test_a_required_signature(slots: Slots, second: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    trusted = generate_key(tmp_path / "trusted.pem")
    generate_key(tmp_path / "stranger.pem")
    (keys / "trusted.pub").write_bytes(trusted.path.read_bytes())
    strict = Slots(slots.path, SlotSettings(require_signature=True, trusted_keys=keys, spare_disk_mb=0))
    signed, forged = tmp_path / "signed.lsla", tmp_path / "forged.lsla"
    sign_bundle(second, read_private_key(tmp_path / "trusted.pem"), signed)
    sign_bundle(second, read_private_key(tmp_path / "stranger.pem"), forged)
    with pytest.raises(TrustError, match="unknown key"):
        strict.install(forged)
    candidate = strict.install(signed)
    assert strict.verified(candidate.held).name == "b.lsla"
    with pytest.raises(TrustError, match="not signed"):
        strict.verified(slots.state().active)  # it was taken when none was required


def test_another_file_in_a_slot_is_refused(slots: Slots, second: Path) -> None:
    held = slots.state().active
    (slots.path / "a.lsla").write_bytes(second.read_bytes())
    with pytest.raises(BundleError, match="not the one that was installed"):
        slots.verified(held)


def test_links_in_the_folder_lead_nowhere(slots: Slots, second: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("b.lsla", "state.json"):
        (slots.path / name).unlink(missing_ok=True)
        (slots.path / name).symlink_to(precious)
    slots.install(second)
    assert precious.read_text() == "mine"
    assert not (slots.path / "b.lsla").is_symlink()
    assert not (slots.path / "state.json").is_symlink()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.symlink_to(slots.path)
    with pytest.raises(EdgeLslaError, match="folder of models"):
        Slots(elsewhere).install(second)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"version": 1}', '{"version": 2}', "[" * 100_000, "\x00" * 5000,
        '{"version":1,"active":{"slot":"../../etc/x","digest":"' + "0" * 64 + '","name":"x"},"candidate":null,'
        '"previous":null,"state":"steady","starts":0,"history":[]}',
    ],
    ids=range(9),
)  # fmt: skip
def test_a_damaged_state_is_made_anew_from_the_slots(slots: Slots, text: str) -> None:
    (slots.path / "state.json").write_text(text)
    state = slots.start()
    assert (state.active.name, state.active.slot) == ("first", "a")
    assert state.history[-1].what == "recovered"
    assert json.loads((slots.path / "state.json").read_text())["active"]["slot"] == "a"  # it is on the disk again
    assert slots.state() == state


def test_a_damaged_state_is_said(slots: Slots, caplog: pytest.LogCaptureFixture) -> None:
    (slots.path / "state.json").write_text("{")
    slots.state()
    assert "the record of the slots is damaged; slot a answers" in caplog.text
    (slots.path / "a.lsla").write_bytes(b"")
    caplog.clear()
    assert slots.state() == State()
    assert "damaged, and no slot has a whole model" in caplog.text


def test_a_damaged_state_is_said_once(slots: Slots, caplog: pytest.LogCaptureFixture) -> None:
    def said() -> int:
        return caplog.text.count("the record of the slots is damaged")

    damaged = slots.path / "state.json"
    damaged.write_text("{")
    for _ in range(2):
        slots.state()  # as the service looks before it starts with what it finds
    slots.start()
    slots.state()
    assert said() == 1
    damaged.write_text("{")  # it was whole meanwhile: this is news
    slots.state()
    assert said() == 2


def test_the_state_says_in_which_precision_a_model_ran(slots: Slots, second: Path) -> None:
    held = slots.install(second, lambda copy: ("int8", "5" * 64)).held
    digest = held.digest
    state = slots.state()
    assert (state.active.precision, state.candidate.precision) == ("", "int8")  # the first was not run at all
    assert [(entry.what, entry.precision) for entry in state.history] == [("installed", ""), ("installed", "int8")]
    slots.ran(dataclasses.replace(held, precision="fp16", artifact_sha256="6" * 64))  # the service may choose another
    slots.begin_trial(digest)
    slots.promote(digest, "well")
    state = slots.state()
    assert (state.active.precision, state.previous.precision) == ("fp16", "")
    assert [entry.what for entry in state.history[2:]] == ["switched", "promoted"]
    assert {(entry.precision, entry.artifact_sha256) for entry in state.history[2:]} == {("fp16", "6" * 64)}
    assert state.history[1].artifact_sha256 == "5" * 64


def test_the_state_keeps_the_digest_of_the_file(slots: Slots, first: Path, second: Path) -> None:
    slots.install(second)
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (first, second)]
    state = slots.state()
    assert [state.active.file_sha256, state.candidate.file_sha256] == digests
    assert [entry.file_sha256 for entry in state.history] == digests
    assert state.candidate.title == f"second (file {digests[1][:12]})"
    assert f"manifest {state.active.digest[:12]}" in dataclasses.replace(state.active, file_sha256="").title


def test_a_record_from_before_gets_the_digests_when_it_runs(slots: Slots, first: Path) -> None:
    values = json.loads((slots.path / "state.json").read_text())
    for part in (values["active"], *values["history"]):
        del part["file_sha256"], part["artifact_sha256"]
    (slots.path / "state.json").write_text(json.dumps(values))
    before = slots.state()
    assert (before.active.file_sha256, before.history[0].what) == ("", "installed")  # not "recovered"
    slots.ran(dataclasses.replace(before.active, precision="fp32", artifact_sha256="6" * 64))
    after = slots.state()
    assert after.active.file_sha256 == hashlib.sha256(first.read_bytes()).hexdigest()
    assert (after.active.artifact_sha256, after.history) == ("6" * 64, before.history)


def test_the_phase_is_told(slots: Slots, second: Path) -> None:
    phases = [slots.state().phase]
    digest = slots.install(second).held.digest
    phases.append(slots.state().phase)
    slots.begin_shadow(digest)
    phases.append(slots.state().phase)
    slots.forgive(digest)  # the service was stopped
    phases.append(slots.state().phase)
    slots.begin_trial(digest)
    phases.append(slots.state().phase)
    assert phases == ["steady", "waits", "shadow", "waits", "probation"]


def test_a_state_from_before_precisions_were_kept_is_whole(slots: Slots, second: Path) -> None:
    slots.install(second, lambda copy: ("int8", "5" * 64))
    values = json.loads((slots.path / "state.json").read_text())
    for part in (values["active"], values["candidate"], *values["history"]):
        del part["precision"]
    (slots.path / "state.json").write_text(json.dumps(values))
    state = slots.start()
    assert (state.active.name, state.candidate.name, state.candidate.precision) == ("first", "second", "")
    assert [entry.what for entry in state.history] == ["installed", "installed"]  # not "recovered"


@pytest.mark.parametrize("where", ["active", "history"])
def test_a_precision_that_is_no_text_is_damage(slots: Slots, where: str) -> None:
    values = json.loads((slots.path / "state.json").read_text())
    (values["history"][0] if where == "history" else values[where])["precision"] = 8
    assert parse(json.dumps(values).encode()) is None


@pytest.mark.parametrize("time", ["1e300", "NaN", "-1", "9" * 400, '"now"'])
def test_a_time_that_is_no_date_is_damage(slots: Slots, time: str) -> None:
    values = json.loads((slots.path / "state.json").read_text())
    values["history"][0]["time"] = "TIME"
    assert parse(json.dumps(values).replace('"TIME"', time).encode()) is None
    assert parse(json.dumps(values).replace('"TIME"', "1e9").encode()) is not None


def test_a_damaged_model_gives_way_to_the_other(slots: Slots, second: Path) -> None:
    digest = slots.install(second).held.digest
    slots.begin_trial(digest)
    slots.promote(digest, "well")
    assert slots.abandon(digest, "the disk lost a block").active.name == "first"
    with pytest.raises(GateError, match="only model"):
        slots.abandon(slots.state().active.digest, "another one")


def test_the_same_model_again_repairs_its_file(slots: Slots, first: Path) -> None:
    (slots.path / "a.lsla").write_bytes(first.read_bytes()[:-1000])
    with pytest.raises(BundleError):
        slots.verified(slots.state().active)
    assert not slots.install(first).waits
    assert slots.verified(slots.state().active).read_bytes() == first.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_installs_belongs_to_the_service(tmp_path: Path, first: Path, second: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, 12345, 54321)
    before = os.umask(0o077)
    try:
        slots = Slots(data / "models", QUICK)
        slots.install(first)
        slots.install(second)
    finally:
        os.umask(before)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (slots.path, *slots.path.iterdir())}
    assert owners == {(12345, 54321)}


def test_the_state_is_what_was_written_and_its_history_is_bounded() -> None:
    state = State()
    for number in range(2 * MOST_REMEMBERED):
        state = state.noted(Entry(float(number), "refused", "ä" * 600, "0" * 64, "⚠" * 10_000))
    assert len(state.history) == MOST_REMEMBERED
    assert parse(state.text()) == state
    assert len(state.text()) < 1_000_000


def test_installs_at_once_leave_one_whole_candidate(slots: Slots, second: Path, failing: Path) -> None:
    bundles = [second, failing] * 3
    threads = [threading.Thread(target=slots.install, args=(bundle,)) for bundle in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    state = slots.state()
    assert slots.verified(state.candidate).name == "b.lsla"
    assert sorted(path.name for path in slots.path.iterdir()) == ["a.lsla", "b.lsla", "state.json"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("largest_mb", 0), ("largest_mb", 10**6), ("spare_disk_mb", -1), ("most_starts", 0), ("shadow_seconds", -1.0),
     ("shadow_share", 0.0), ("shadow_share", 1.1), ("error_limit", 2.0), ("agreement_limit", -0.1),
     ("latency_limit_ms", 0.0), ("latency_ratio", 0.5), ("probation_seconds", float("nan"))],
)  # fmt: skip
def test_settings_name_the_field_that_is_wrong(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        SlotSettings(**{name: value})
