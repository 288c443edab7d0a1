"""The ahead-of-time build: each kernel for each architecture, in a worker process of its own, into a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_lsla.errors import EdgeLslaError, InputError, MissingComponentError, UsageError
from plugins import ptxas as assemblers
from plugins.compile import ENTRY, Request, signature
from plugins.folder import CACHE, KERNELS, LOGS, check_ours, exclusive, put_kernels
from plugins.index import Entry, Index
from plugins.package import pack
from plugins.processes import Process
from plugins.ptxas import PTX_ARCHITECTURE, Ptxas
from plugins.variants import Variant

ROOT = Path(__file__).resolve().parents[1]
WORKER_SECONDS = 600.0  # a kernel takes 1 to 4 s; only a compiler that hangs takes so long
POLL_SECONDS = 0.02

Step = Callable[[int, int, str], None]
Report = Callable[[str], None]


@dataclass(frozen=True)
class BuildSettings:
    """What is compiled, and how.

    Attributes:
        variants: each for every architecture, and once as PTX.
        architectures: compute capabilities, 87 for 8.7.
        jobs: workers at a time.
        timeout: seconds after which a worker counts as hung.
    """

    variants: tuple[Variant, ...]
    architectures: tuple[int, ...]
    jobs: int = 1
    timeout: float = WORKER_SECONDS

    def __post_init__(self) -> None:
        if not self.variants or not self.architectures:
            raise UsageError("nothing to compile", "variants and architectures", "name at least one of each")
        if self.jobs < 1:
            raise UsageError("too few workers", self.jobs, "use 1 or more")
        if self.timeout <= 0:
            raise UsageError("the timeout is no time", self.timeout, "use a positive number of seconds")


@dataclass(frozen=True)
class Built:
    """What a build made.

    Attributes:
        folder: with index.json and the files; of a package the build folder.
        index: what is in it.
        digest: of the index.
        compiled: files that were compiled.
        cached: files that were there from before.
        seconds: the whole took.
    """

    folder: Path
    index: Index
    digest: str
    compiled: int
    cached: int
    seconds: float


@dataclass(frozen=True)
class _Job:
    variant: Variant
    arch: int
    kind: str
    ptxas: Ptxas

    @property
    def title(self) -> str:
        return f"{self.variant.name} sm_{self.arch} {self.kind}"

    @property
    def key(self) -> str:
        """The digest of everything that decides the result."""
        variant = self.variant
        facts = {
            "sources": _sources(),
            "variant": [dataclasses.asdict(variant), variant.module, variant.function, variant.constants],
            "tile": dataclasses.asdict(variant.tile),
            "launch": [variant.row_blocks, variant.max_per_program, signature(variant)],
            "target": [self.arch, self.kind],
            "tools": [_triton_version(), self.ptxas.version],
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def build_kernels(settings: BuildSettings, output: Path, step: Step, report: Report) -> Built:
    """Compile into `output / "kernels"`, replacing what was there only when everything is compiled.

    Args:
        settings: what.
        output: the build folder.
        step: told (done, total, what) after each file.
        report: told what a person should know, a line each.

    Raises:
        MissingComponentError: Triton, or a ptxas for an architecture, is absent.
        UsageError: an architecture is unknown, or `output` or its folder "kernels" is somebody else's.
        EdgeLslaError: kernels failed to compile (`details["failed"]`), or another build is at work.
    """
    jobs = _jobs(settings, report)
    folder = output / KERNELS
    check_ours(folder)
    with exclusive(output) as work:
        return _build(jobs, settings, output, folder, work, step, report)


def build_package(
    settings: BuildSettings, output: Path, package: Path, step: Step, report: Report
) -> tuple[Built, str]:
    """Compile into one file; what was compiled before is taken from `output`, whose kernels and library stay.

    Returns:
        What was built, and the package's SHA-256.

    Raises:
        InputError: `package` cannot be written there; else as `build_kernels`.
    """
    jobs = _jobs(settings, report)
    with exclusive(output) as work:
        built = _build(jobs, settings, output, work / KERNELS, work, step, report)
        return dataclasses.replace(built, folder=output), pack(built.folder, package)


def _build(
    jobs: list[_Job], settings: BuildSettings, output: Path, folder: Path, work: Path, step: Step, report: Report
) -> Built:
    """Compile what the cache lacks, and put all of it into `folder`."""
    started = time.monotonic()
    cache, logs = output / CACHE, output / LOGS
    shutil.rmtree(logs, ignore_errors=True)
    for made in (cache, logs):
        made.mkdir(exist_ok=True)
    keys = {job: job.key for job in jobs}
    entries = {job: entry for job in jobs if (entry := _cached(cache, keys[job])) is not None}
    absent = [job for job in jobs if job not in entries]
    failed: dict[_Job, str] = {}
    done = len(entries)
    step(done, len(jobs), "")
    for job, outcome, place in _run(absent, settings, work):
        done += 1
        step(done, len(jobs), job.title)
        if isinstance(outcome, Entry):
            (place / outcome.file).replace(cache / f"{keys[job]}.bin")
            (place / ENTRY).replace(cache / f"{keys[job]}.json")  # last: it says that the other is whole
            entries[job] = outcome
        else:
            failed[job] = outcome
            report(f"failed: {job.title}: {outcome}")
            with contextlib.suppress(OSError):
                (place / "log").replace(logs / f"{job.title.replace(' ', '.')}.log")
        shutil.rmtree(place, ignore_errors=True)
    if failed:
        raise _failure(failed, len(jobs), logs)
    logs.rmdir()
    index = Index(_triton_version(), tuple(sorted(entries.values(), key=lambda one: one.key)))
    files = {entry.file: (cache / f"{keys[job]}.bin").read_bytes() for job, entry in entries.items()}
    digest = put_kernels(folder, index.dump(), files, work)
    for entry in index.entries:
        if entry.spills:
            report(
                f"spills: {entry.name} sm_{entry.arch} {entry.kind}: {entry.spills} bytes, {entry.registers} registers"
            )
    return Built(folder, index, digest, len(absent), len(jobs) - len(absent), time.monotonic() - started)


def _jobs(settings: BuildSettings, report: Report) -> list[_Job]:
    """List what is to be compiled, once each, with the assembler of each architecture."""
    _triton_version()
    found = assemblers.installed()
    chosen = {arch: assemblers.choose(arch, found) for arch in {*settings.architectures, PTX_ARCHITECTURE}}
    for line in assemblers.notices(chosen):
        report(line)
    variants = dict.fromkeys(settings.variants)
    jobs = [_Job(v, arch, "cubin", chosen[arch]) for arch in dict.fromkeys(settings.architectures) for v in variants]
    return [*jobs, *(_Job(v, PTX_ARCHITECTURE, "ptx", chosen[PTX_ARCHITECTURE]) for v in variants)]


@functools.cache
def _triton_version() -> str:
    try:
        return importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        raise MissingComponentError(
            "Triton, which compiles the kernels, is absent",
            "this Python",
            "pip install triton==3.6.0, or take compiled kernels with --kernels FILE",
        ) from None


@functools.cache
def _sources() -> str:
    """Return the digest of the code that the result depends on; what variants.py decides is in the key itself."""
    paths = [*sorted((ROOT / "plugins" / "kernels").glob("*.py")), *(ROOT / "plugins" / n for n in _WORKER_FILES)]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in paths)).hexdigest()


_WORKER_FILES = ("compile.py", "index.py")


def _cached(cache: Path, key: str) -> Entry | None:
    """Return what was compiled before, or None where there is nothing whole."""
    try:
        entry = Entry.from_dict(json.loads((cache / f"{key}.json").read_bytes()), cache)
        data = (cache / f"{key}.bin").read_bytes()
    except (OSError, ValueError, InputError):
        return None
    return entry if hashlib.sha256(data).hexdigest() == entry.sha256 else None


class _Worker:
    """One worker process and its folder."""

    def __init__(self, job: _Job, place: Path, timeout: float) -> None:
        self.job, self.place = job, place
        self.deadline = time.monotonic() + timeout
        temporary = place / "tmp"
        temporary.mkdir(parents=True)
        folder = str(place.resolve())
        request = Request(job.variant.name, job.arch, job.kind, str(job.ptxas.path), job.ptxas.version, folder)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "0", "TMPDIR": str(temporary.resolve())}
        command = [sys.executable, "-m", "plugins.compile", json.dumps(dataclasses.asdict(request))]
        with (place / "log").open("wb") as log:
            self.process = Process(command, log, environment, ROOT)

    def hung(self) -> bool:
        """Say whether it has run for too long."""
        return not self.process.ended() and time.monotonic() > self.deadline

    def outcome(self, code: int, ended: str | None = None) -> Entry | str:
        """Return the entry, or why there is none, in one line that begins with how the worker ended."""
        if code == 0:
            try:
                return Entry.from_dict(json.loads((self.place / ENTRY).read_bytes()), self.job.title)
            except (OSError, ValueError, InputError) as error:
                return f"the worker wrote no entry ({error})"
        said = _last_words((self.place / "log").read_text(encoding="utf-8", errors="replace"))
        if code == 1 and said:
            return said.removeprefix("error: ")
        ended = ended or (f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}")
        return f"{ended}: {said}" if said else ended


def _run(jobs: Sequence[_Job], settings: BuildSettings, work: Path) -> Iterator[tuple[_Job, Entry | str, Path]]:
    """Run the workers, some at a time; give each job as it ends. Leaving the loop kills those that still run."""
    waiting, running = list(enumerate(jobs)), list[_Worker]()
    try:
        while waiting or running:
            while waiting and len(running) < settings.jobs:
                number, job = waiting.pop(0)
                running.append(_Worker(job, work / str(number), settings.timeout))
            time.sleep(POLL_SECONDS)
            for worker in list(running):
                hung = worker.hung()
                if not hung and not worker.process.ended():
                    continue
                code = worker.process.kill()
                running.remove(worker)
                outcome = worker.outcome(code, f"no result after {settings.timeout:g} s" if hung else None)
                yield worker.job, outcome, worker.place
    finally:
        for worker in running:
            worker.process.kill()


def _last_words(log: str) -> str:
    """Return the line of a compiler's output that says what is wrong, else its last line."""
    lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
    telling = [line for line in lines if any(word in line.lower() for word in ("error", "assert", "fatal"))]
    return (telling or lines or [""])[-1][:300]


def _failure(failed: dict[_Job, str], total: int, logs: Path) -> EdgeLslaError:
    titles = [job.title for job in failed]
    listed = ", ".join(titles[:6]) + (f", and {len(titles) - 6} more" if len(titles) > 6 else "")
    details = {
        "failed": [{"name": j.variant.name, "arch": j.arch, "kind": j.kind, "why": w} for j, w in failed.items()]
    }
    return EdgeLslaError(
        f"{len(failed)} of {total} kernels failed to compile, and nothing was replaced",
        listed,
        f"the lines above say why, the compiler's words are in {logs}",
        details,
    )
