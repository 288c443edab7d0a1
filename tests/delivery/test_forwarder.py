"""The forwarder: order, cursor, back-off, refused events, stopping."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from delivery_parts import QUICK, Memory, Scripted, event

from benchmarks.mosquitto import wait_for
from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.sender import DeliveryError
from edge_lsla.delivery.settings import ForwardSettings
from edge_lsla.errors import EdgeLslaError
from edge_lsla.events import Event


def away(seq: int, item: Event) -> DeliveryError:
    return DeliveryError("the receiver takes no connection", "here", "it is tried again")


def refusing(*bad: int) -> Callable[[int, Event], DeliveryError | None]:
    return lambda seq, item: DeliveryError("no such thing", "here", refused=seq) if seq in bad else None


def test_everything_is_delivered_in_order_and_the_cursor_follows() -> None:
    outbox, sender = Memory(250), Scripted()
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: outbox.backlog("scripted") == 0)
        state = forwarder.state
    assert sender.arrived == [f"id{number}" for number in range(1, 251)]
    assert (state.name, state.connected, state.delivered, state.backlog) == ("scripted", True, 250, 0)
    assert state.last_error is None
    assert state.set_aside == 0
    assert sender.closed


def test_a_notice_wakes_it_at_once() -> None:
    outbox, sender = Memory(), Scripted()
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: sender.calls)  # it looked, found nothing, and would look again in five seconds
        began = time.monotonic()
        outbox.add(event(1))
        forwarder.notify()
        wait_for(lambda: sender.arrived)
        assert time.monotonic() - began < 4


def test_a_receiver_that_is_away_is_asked_ever_more_rarely_and_then_gets_everything() -> None:
    outbox, sender = Memory(50), Scripted(away)
    sender.connected = False
    settings = ForwardSettings(first_wait_seconds=0.05, longest_wait_seconds=0.4)
    with Forwarder(outbox, sender, settings) as forwarder:
        begun = time.monotonic()
        wait_for(lambda: sender.calls >= 6)
        assert time.monotonic() - begun >= (0.05 + 0.1 + 0.2 + 0.4 + 0.4) / 2  # chance shortens each by up to half
        forwarder.notify()
        state = forwarder.state
        assert state.last_error == "the receiver takes no connection: here; it is tried again"
        assert (state.connected, state.backlog, state.delivered) == (False, 50, 0)
        sender.answer, sender.connected = lambda seq, item: None, True
        wait_for(lambda: outbox.backlog("scripted") == 0)
        wait_for(lambda: forwarder.state.last_error is None)
        assert forwarder.state.since >= state.since
    assert sender.arrived == [f"id{number}" for number in range(1, 51)]


def test_a_receiver_that_asks_for_time_gets_it() -> None:
    times: list[float] = []

    def busy(seq: int, item: Event) -> DeliveryError | None:
        times.append(time.monotonic())
        return DeliveryError("busy", retry_after=0.6) if len(times) == 1 else None

    with Forwarder(Memory(1), Scripted(busy), QUICK):
        wait_for(lambda: len(times) == 2)
    assert times[1] - times[0] >= 0.6


def test_one_refused_event_is_set_aside_and_said_and_the_others_arrive() -> None:
    outbox, sender = Memory(10), Scripted(refusing(4))
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: outbox.backlog("scripted") == 0)
        state = forwarder.state
    assert set(sender.arrived) == {f"id{number}" for number in range(1, 11)} - {"id4"}
    assert state.set_aside == 1
    assert state.delivered == 9
    assert state.last_error == (
        "event id4 was refused 4 times and is set aside, it remains in the store: no such thing: here"
    )


def test_several_refused_events_in_a_row_are_set_aside() -> None:
    outbox, sender = Memory(12), Scripted(refusing(1, 2, 3, 12))
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: outbox.cursor["scripted"] == 11)
        assert forwarder.state.set_aside == 3
        outbox.add(event(13))  # only now is it known that the receiver takes anything but 12
        forwarder.notify()
        wait_for(lambda: outbox.backlog("scripted") == 0)
        assert forwarder.state.set_aside == 4
    assert set(sender.arrived) == {f"id{number}" for number in (*range(4, 12), 13)}


def test_a_refused_event_does_not_make_a_later_one_wait() -> None:
    outbox, sender = Memory(1), Scripted(refusing(1))
    settings = ForwardSettings(first_wait_seconds=300, longest_wait_seconds=300, refusals=1)
    with Forwarder(outbox, sender, settings) as forwarder:
        wait_for(lambda: forwarder.state.last_error)
        outbox.add(event(2))
        forwarder.notify()
        wait_for(lambda: outbox.backlog("scripted") == 0)
        assert forwarder.state.set_aside == 1
    assert sender.arrived == ["id2"]


def test_a_receiver_that_refuses_everything_makes_nobody_give_up() -> None:
    outbox, sender = Memory(10), Scripted(refusing(*range(31)))
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: sender.calls > 35)  # every event was refused three times
        state = forwarder.state
        assert (state.set_aside, state.backlog) == (0, 10)
        assert state.last_error == "no such thing: here"
        sender.answer = lambda seq, item: None
        wait_for(lambda: outbox.backlog("scripted") == 0)
    assert set(sender.arrived) == {f"id{number}" for number in range(1, 11)}


def test_a_refusing_receiver_is_asked_about_no_more_events_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_lsla.delivery.forwarder.MOST_PASSED_OVER", 3)
    asked: list[int] = []

    def refuse(seq: int, item: Event) -> DeliveryError:
        asked.append(seq)
        return DeliveryError("no such thing", "here", refused=seq)

    outbox, sender = Memory(10), Scripted(refuse)
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: len(asked) > 15)
        assert set(asked) == {1, 2, 3}
        sender.answer = lambda seq, item: None
        wait_for(lambda: outbox.backlog("scripted") == 0)
        assert forwarder.state.set_aside == 0


def test_a_connection_that_breaks_at_one_event_by_chance_sets_nothing_aside() -> None:
    trials: list[int] = []

    def flapping(seq: int, item: Event) -> DeliveryError | None:
        if seq != 5:
            return None
        trials.append(seq)
        return DeliveryError("closed", refused=seq) if len(trials) <= 3 else None

    outbox, sender = Memory(10), Scripted(flapping)
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: outbox.backlog("scripted") == 0)
        assert forwarder.state.set_aside == 0
    assert set(sender.arrived) == {f"id{number}" for number in range(1, 11)}


def test_an_outbox_in_trouble_and_a_mistake_in_a_sender_are_said_and_survived() -> None:
    class Troubled(Memory):
        trouble: Exception | None = EdgeLslaError("the disk is full", "/data", "free some space")

        def delivered(self, sink: str, upto: int) -> None:
            if self.trouble is not None:
                raise self.trouble
            super().delivered(sink, upto)

    outbox, sender = Troubled(3), Scripted()
    with Forwarder(outbox, sender, QUICK) as forwarder:
        wait_for(lambda: forwarder.state.last_error == "the disk is full: /data; free some space")
        outbox.trouble = KeyError("x")
        wait_for(lambda: forwarder.state.last_error == "KeyError: 'x'")
        assert forwarder.alive
        outbox.trouble = None
        wait_for(lambda: outbox.backlog("scripted") == 0)
    assert set(sender.arrived) == {"id1", "id2", "id3"}


def test_it_stops_within_two_seconds_while_waiting_and_while_the_sender_hangs() -> None:
    with Forwarder(Memory(1), Scripted(away), ForwardSettings(first_wait_seconds=200)) as forwarder:
        wait_for(lambda: forwarder.state.last_error)
        began = time.monotonic()
        forwarder.stop()
        assert not forwarder.alive
    released, entered = threading.Event(), threading.Event()

    def hang(seq: int, item: Event) -> None:
        entered.set()
        released.wait(60)

    forwarder = Forwarder(Memory(1), Scripted(hang), QUICK)
    forwarder.start()
    assert entered.wait(30)
    middle = time.monotonic()
    forwarder.stop()
    ended = time.monotonic()
    assert forwarder.alive
    assert max(middle - began, ended - middle) < 4  # two seconds, and a busy machine
    released.set()


def test_it_never_starts_where_the_outbox_cannot_register_it() -> None:
    class Broken(Memory):
        def register(self, sink: str) -> None:
            raise EdgeLslaError("the disk is read-only", "/data", "remount it")

    forwarder = Forwarder(Broken(), Scripted(), QUICK)
    with pytest.raises(EdgeLslaError, match="read-only"):
        forwarder.start()
    forwarder.stop()
