"""Events recorded while the MQTT broker is away: does a subscriber get each of them in the end?

    python -m benchmarks.broker_away [EVENTS]

A process records half of the events and is killed (SIGKILL); another one records the rest. Then the broker comes back;
when a quarter of the events have arrived that process is killed, too, and a third one goes on; when half have arrived
the broker is restarted. The subscriber had subscribed before all this, with QoS 1 and a session that the broker keeps.
What it received is held against what the event store has.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.mosquitto import PROGRAM, Broker, Subscriber, wait_for
from edge_lsla.delivery.forwarder import Forwarder
from edge_lsla.delivery.mqtt import MqttSender
from edge_lsla.delivery.settings import ForwardSettings, MqttSettings
from edge_lsla.events import Box, Event
from edge_lsla.records.store import Store

EVENTS = 10_000
SECONDS = 900.0  # the longest that any step may take
BOX = Box(10, 10, 90, 90)
TOPIC = "away"


def make(number: int) -> Event:
    """Return one of a pair: an individual arrives, and leaves."""
    kind = ("arrived", "left")[number % 2]
    return Event(kind, 1.8e9 + number, "trap-1", f"track{number // 2}", "bee", 0.9, BOX, id=f"event{number}")


def record(folder: Path, port: int, first: int, last: int) -> None:
    """Record events first to last-1, telling each on standard output once it is durable, and deliver meanwhile."""
    settings = MqttSettings("127.0.0.1", port, topic=TOPIC, tls=False)
    quick = ForwardSettings(longest_wait_seconds=1.0)
    with Store(folder) as store, Forwarder(store, MqttSender(settings, "trap-1"), quick) as forwarder:
        for number in range(first, last):
            store.record(make(number))
            forwarder.notify()
            print(number, flush=True)
        wait_for(lambda: store.backlog("mqtt") == 0, SECONDS)


def recorder(folder: Path, port: int, first: int, last: int) -> subprocess.Popen[str]:
    """Start `record` in a process of its own."""
    numbers = [str(number) for number in (port, first, last)]
    command = [sys.executable, "-m", "benchmarks.broker_away", "--record", str(folder), *numbers]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])


def read_until(process: subprocess.Popen[str], last: int) -> list[int]:
    """Return the numbers that a recorder tells, up to `last`."""
    told: list[int] = []
    assert process.stdout is not None
    for line in process.stdout:
        told.append(int(line))
        if told[-1] == last:
            return told
    raise RuntimeError(f"the recorder ended after {told[-1:]}")


def run(events: int, folder: Path) -> dict[str, Any]:
    """Play it through in a folder and return the figures.

    Raises:
        TimeoutError: not everything arrived.
        RuntimeError: the recorder failed.
    """
    store = folder / "store"
    store.mkdir()
    begun = time.monotonic()
    with Broker(folder) as broker, Subscriber(broker.port, f"{TOPIC}/trap-1/#") as subscriber:
        broker.stop()
        with recorder(store, broker.port, 0, events) as killed:
            told = read_until(killed, events // 2 - 1)
            killed.kill()
            rest, _ = killed.communicate()
        # What it said before it died, a number cut short left out.
        told += [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]
        # One more may be durable and untold: recording it again changes nothing.
        with recorder(store, broker.port, len(told), events) as second:
            told += read_until(second, events - 1)
            recorded = time.monotonic()
            early = len(subscriber.messages)
            broker.start()
            wait_for(lambda: len(subscriber.messages) >= events // 4, SECONDS)
            second.kill()
        with recorder(store, broker.port, events, events) as third:
            wait_for(lambda: len(subscriber.messages) >= events // 2, SECONDS)
            broker.stop()
            broker.start()
            if third.wait(SECONDS) != 0:
                raise RuntimeError("the last process failed")
        with Store(store) as opened:
            kept = [item["id"] for item in opened.recent(events * 2)]
        wait_for(lambda: received(subscriber) >= set(kept), SECONDS)
        ended = time.monotonic()
        messages, unique = len(subscriber.messages), received(subscriber)
    assert told == list(range(events))
    assert {f"event{number}" for number in told} <= set(kept), "a recorded event is gone"
    assert len(kept) == len(set(kept))
    return {
        "events": events,
        "recorded_at_all": len(kept),  # with the "left" of an individual whose process was killed
        "received_while_away": early,
        "received": len(unique & set(kept)),
        "never_recorded": len(unique - set(kept)),
        "duplicates_before_de_duplication": messages - len(unique),
        "seconds_recording": round(recorded - begun, 2),
        "seconds_delivering": round(ended - recorded, 2),
    }


def received(subscriber: Subscriber) -> set[str]:
    """Return the identifiers of the events that arrived."""
    return {json.loads(message.payload)["id"] for message in list(subscriber.messages)}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--record"]:
        record(Path(arguments[1]), *map(int, arguments[2:]))
        return
    if PROGRAM is None:
        raise SystemExit("error: no mosquitto; apt-get install mosquitto")
    from benchmarks.machine import keep

    with tempfile.TemporaryDirectory() as folder:
        keep("broker_away", run(int(arguments[0]) if arguments else EVENTS, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1:])
