"""Spans of watching, as the deployments of Camtrap DP."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from edge_lsla.events import Effort
from edge_lsla.records.exports import harmless, utc

PAUSE_SECONDS = 900.0  # spans of one camera and engine that are closer than this are one deployment
SLACK_SECONDS = 2.0  # between an event and the end of the span that it belongs to


@dataclass
class _Deployment:
    source: str
    began: float
    ended: float
    seconds: float = 0.0
    frames: int = 0
    dropped: int = 0
    engine: str = ""
    clock: str = "unknown"
    counted: bool = True  # whether effort was recorded for it
    device: str | None = None

    @property
    def name(self) -> str:
        source = self.source if self.device is None else f"{self.device}-{self.source}"
        return harmless(f"{source}-{_stamp(self.began)}" if self.counted else f"{source}-without-effort")


class Deployments:
    """Spans of watching put together, and what was seen outside of any.

    Args:
        effort: by source and time.
        since, until: what lies wholly outside is left out.
        device: the device's name; with it the names are unique among the packages of several devices.
    """

    def __init__(
        self,
        effort: Iterable[Effort],
        since: float | None = None,
        until: float | None = None,
        device: str | None = None,
    ) -> None:
        self._device = device
        self._by_source: dict[str, list[_Deployment]] = {}
        self._others: dict[str, _Deployment] = {}
        for span in effort:
            if (since is not None and span.ended < since) or (until is not None and span.began >= until):
                continue
            known = self._by_source.setdefault(span.source, [])
            if not (known and self._continues(known[-1], span)):
                new = _Deployment(span.source, span.began, span.ended, device=device)
                new.engine, new.clock = span.engine, span.clock
                known.append(new)
            last = known[-1]
            last.ended = max(last.ended, span.ended)
            last.seconds += span.seconds
            last.frames += span.frames
            last.dropped += span.dropped

    def of(self, source: str, began: float, ended: float) -> str:
        """Return the deployment in which something was seen; one without effort grows to hold what has none."""
        known = self._by_source.get(source, [])
        index = bisect_right(known, began + SLACK_SECONDS, key=lambda each: each.began) - 1
        if index >= 0 and began <= known[index].ended + SLACK_SECONDS:
            return known[index].name
        other = self._others.setdefault(source, _Deployment(source, began, ended, counted=False, device=self._device))
        other.began, other.ended = min(other.began, began), max(other.ended, ended)
        return other.name

    def rows(self, place: Callable[[str], tuple[float, float]]) -> list[dict[str, object]]:
        """Return the rows of deployments.csv; `place` says where a source stands."""
        each = [one for known in self._by_source.values() for one in known] + list(self._others.values())
        return [_row(one, *place(one.source)) for one in each]

    @staticmethod
    def _continues(last: _Deployment, span: Effort) -> bool:
        same = (last.engine, last.clock) == (span.engine, span.clock)
        return same and span.began - last.ended <= PAUSE_SECONDS


def _row(one: _Deployment, latitude: float, longitude: float) -> dict[str, object]:
    if one.counted:
        tags = (
            f"effort_seconds:{one.seconds:.0f} | frames:{one.frames} | frames_dropped:{one.dropped} | clock:{one.clock}"
        )
        remark = f"the camera really watched {one.seconds:.0f} s of this time, with engine {one.engine or 'unknown'}"
    else:
        tags, remark = "", "no effort was recorded for what was seen in this time"
    if one.device is not None:
        tags = " | ".join(filter(None, (f"device:{one.device.replace('|', ' ')}", tags)))
    return {
        "deploymentID": one.name,
        "latitude": latitude,
        "longitude": longitude,
        "deploymentStart": utc(one.began).partition(".")[0] + "Z",
        "deploymentEnd": utc(one.ended).partition(".")[0] + "Z",
        "cameraID": harmless(one.source),
        "timestampIssues": str(one.clock != "synchronised").lower(),
        "deploymentTags": harmless(tags),
        "deploymentComments": remark,
    }


def _stamp(time: float) -> str:
    return utc(time).translate({ord(mark): None for mark in "-:."})
