"""Whatever interrupts the writing, the old file or none is left, and nothing beside it."""

import subprocess
import sys
from pathlib import Path

import bundle_parts as parts
import pytest

from edge_lsla.bundle import NewArtifact, archive, open_bundle, write_bundle
from edge_lsla.errors import BundleError, Interrupted

FULL_DISK = """
import resource, sys
import bundle_parts as parts
from edge_lsla.bundle import write_bundle
from edge_lsla.errors import EdgeLslaError
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
try:
    write_bundle(sys.argv[1], parts.passport(name="new"), parts.artifacts(), parts.golden())
except EdgeLslaError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.fixture(params=[False, True], ids=["new", "over an old one"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a.lsla"
    if request.param:
        parts.write(path)
    return path


def left(path: Path) -> tuple[list[str], bytes | None]:
    return [one.name for one in path.parent.iterdir()], path.read_bytes() if path.exists() else None


def test_a_full_disk(destination: Path) -> None:
    before = left(destination)
    command = [sys.executable, "-c", FULL_DISK, str(destination)]
    environment = {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 1, done.stderr
    assert "cannot write" in done.stdout
    assert "free some space" in done.stdout
    assert left(destination) == before


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt, Interrupted("stopped"), MemoryError, OSError(28, "No space left")]
)
@pytest.mark.parametrize("after", [0, 3, 7])
def test_an_exception_in_the_middle(
    destination: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | BaseException, after: int
) -> None:
    before = left(destination)
    calls = 0
    real = archive.stream

    def failing(source: bytes | Path):  # type: ignore[no-untyped-def]
        nonlocal calls
        calls += 1
        if calls > after:
            raise error
        yield from real(source)

    monkeypatch.setattr(archive, "stream", failing)
    with pytest.raises(BaseException) as caught:  # noqa: PT011  which one is the subject of no test here
        write_bundle(destination, parts.passport(name="new"), parts.artifacts(), parts.golden())
    assert not isinstance(caught.value, pytest.fail.Exception)
    assert calls == after + 1
    assert left(destination) == before


def test_a_file_that_changes_while_it_is_read(
    destination: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = left(destination)
    source = tmp_path_factory.mktemp("source") / "a.onnx"
    source.write_bytes(b"first")
    real = archive.fill_archive

    def change(*arguments):  # type: ignore[no-untyped-def]
        source.write_bytes(b"later")
        real(*arguments)

    monkeypatch.setattr("edge_lsla.bundle.writing.fill_archive", change)
    with pytest.raises(BundleError, match="not the one that the manifest names"):
        write_bundle(
            destination, parts.passport(precisions={}), [NewArtifact(source, "onnxruntime", "fp32")], parts.golden()
        )
    assert left(destination) == before


def test_a_file_that_changes_between_measuring_and_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"first")
    real = archive.stream

    def changing(data: bytes | Path):  # type: ignore[no-untyped-def]
        yield from real(data)
        if data == source:
            source.write_bytes(b"later")

    monkeypatch.setattr(archive, "stream", changing)
    with pytest.raises(BundleError, match=r"file changed while .*source; try again"):
        archive.write_archive(tmp_path / "a.lsla", {"manifest.json": b"{}", "source": source})
    assert [one.name for one in tmp_path.iterdir()] == ["source"]


def test_after_an_interruption_it_is_written(destination: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(archive, "stream", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_bundle(destination, parts.passport(), parts.artifacts(), parts.golden())
    write_bundle(destination, parts.passport(name="new"), parts.artifacts(), parts.golden())
    with open_bundle(destination) as bundle:
        assert bundle.manifest.name == "new"
