"""What a careless or hostile user hands to the command line, run as a process of its own where it could hang."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n"


def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a verb and fail if it takes longer than a minute."""
    command = [sys.executable, str(ROOT / "cli.py"), *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # type: ignore[call-overload,no-any-return]


def one_error(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.returncode == code, result.stderr
    assert len(errors) == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert "unexpected" not in errors[0]
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize(
    "arguments",
    [
        ["infer", "image", "x.jpg", "--top", "0"],
        ["infer", "image", "x.jpg", "--top", "x"],
        ["infer", "dir", ".", "--batch", "99999"],
        ["infer", "image"],
        ["infer", "picture"],
        ["nonsense"],
        ["inspect", "x.lsla", "--nonsense"],
    ],
    ids=" ".join,
)
def test_usage_errors_are_one_line_and_json(arguments: list[str]) -> None:
    result = run(*arguments, "--json")
    one_error(result, 2, "--help")
    answer = json.loads(result.stdout.splitlines()[-1])
    assert (answer["ok"], answer["exit_code"]) == (False, 2)


def test_pipes_and_programs_in_disguise_are_refused_at_once(bundle: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "eps.jpg").write_bytes(EPS)
    one_error(run("infer", "image", tmp_path / "pipe.jpg", "-e", bundle), 2, "not a regular file")
    one_error(run("infer", "image", tmp_path / "eps.jpg", "-e", bundle), 2, "not a picture")
    one_error(run("fuse", tmp_path / "pipe.jpg", "-o", tmp_path / "x.onnx"), 2, "not a regular file")
    one_error(run("model", "info", "/dev/zero"), 2)
    os.mkfifo(tmp_path / "pipe.json")
    one_error(run("model", "info", tmp_path / "pipe.json"), 2, "not a regular file")


def test_devices_and_inputs_are_not_overwritten(bundle: Path, tmp_path: Path) -> None:
    samples = ROOT / "demo" / "samples"
    one_error(run("infer", "image", samples / "ant_1.jpg", "-e", bundle, "-o", "/dev/null"), 2, "device")
    assert Path("/dev/null").is_char_device()
    video = tmp_path / "v.mp4"
    shutil.copy(ROOT / "demo" / "pests.mp4", video)
    before = video.read_bytes()
    for option in ("-o", "--events"):
        one_error(run("infer", "video", video, "-e", bundle, option, video), 2, "overwrite")
    picture = tmp_path / "a.jpg"
    shutil.copy(samples / "ant_1.jpg", picture)
    one_error(run("infer", "image", picture, "-e", bundle, "-o", picture), 2, "overwrite")
    assert video.read_bytes() == before


def test_a_link_is_kept_and_its_target_written(command, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "real" / "t.csv")
    assert command("infer", "dir", pictures / "test", "-e", bundle, "-o", tmp_path / "link.csv").code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real" / "t.csv").stat().st_size > 100


def test_names_like_markup_and_names_that_are_no_text(command, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "[bold]f["
    folder.mkdir()
    odd = folder / "].lsla"  # the path holds "[/]", which closes a tag that was never opened
    shutil.copy(bundle, odd)
    shown = command("inspect", odd)
    assert (shown.code, "[bold]f[/].lsla" in shown.out.replace("\n", "")) == (0, True)
    good = next((pictures / "test").rglob("*.jpg"))
    shutil.copy(good, os.fsencode(folder) + b"/bad\xff.jpg")
    shutil.copy(good, folder / "[red].jpg")
    result = run(
        "infer", "dir", folder, "-e", odd, "-o", tmp_path / "t.csv", env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert result.returncode == 0, result.stderr
    assert "[red].jpg" in result.stdout
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3


def test_a_tall_strip_is_annotated_without_filling_memory(command, bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (1, 20_000), "red").save(tmp_path / "tall.png")
    Image.new("RGB", (20_000, 1), "red").save(tmp_path / "wide.png")
    assert command("infer", "image", tmp_path / "tall.png", "-e", bundle, "-o", tmp_path / "o.jpg").code == 0
    with Image.open(tmp_path / "o.jpg") as image:
        assert image.size == (480, 20_000)
    result = run("infer", "image", tmp_path / "wide.png", "-e", bundle, "-o", tmp_path / "o.webp")
    one_error(result, 2, "does not fit")


def test_an_interrupted_video_leaves_the_old_file(process, bundle: Path, tmp_path: Path) -> None:
    output = tmp_path / "w.mp4"
    output.write_text("old")
    long = tmp_path / "long.mp4"
    _repeat(ROOT / "demo" / "pests.mp4", long, times=40)
    started = process("infer", "video", long, "-e", bundle, "-o", output, "--json")
    time.sleep(5)
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=30)
    assert started.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["ok"] is False
    assert output.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mp4", "w.mp4"]


def _repeat(source: Path, destination: Path, times: int) -> None:
    """Write a video's packets several times over, which takes no encoding."""
    import av

    with av.open(str(source)) as opened, av.open(str(destination), "w") as written:
        stream = opened.streams.video[0]
        copy = written.add_stream_from_template(stream)
        packets = [p for p in opened.demux(stream) if p.dts is not None]
        length = stream.duration
        for turn in range(times):
            for packet in packets:
                clone = av.Packet(bytes(packet))
                clone.stream, clone.time_base = copy, packet.time_base
                clone.pts, clone.dts = packet.pts + turn * length, packet.dts + turn * length
                clone.is_keyframe = packet.is_keyframe
                written.mux(clone)


def test_a_video_that_breaks_off_says_so_and_how_far_it_got(bundle: Path, tmp_path: Path) -> None:
    stream = tmp_path / "v.mkv"
    import av

    with av.open(str(ROOT / "demo" / "pests.mp4")) as opened, av.open(str(stream), "w") as written:
        copy = written.add_stream_from_template(opened.streams.video[0])
        for packet in opened.demux(opened.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                written.mux(packet)
    data = stream.read_bytes()
    stream.write_bytes(data[: len(data) // 2] + b"\x00" * 50_000)
    result = run("infer", "video", stream, "-e", bundle, "--json")
    answer = json.loads(result.stdout.splitlines()[-1])
    one_error(result, 2, "broke off after")
    assert answer["ok"] is False
    assert answer["frames"] > 10


def test_json_that_cannot_be_written_is_no_traceback() -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, str(ROOT / "cli.py"), "doctor", "--json"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "No space left" in result.stderr


def test_absurd_numbers(command, bundle: Path, pictures: Path, tmp_path: Path) -> None:
    picture = next((pictures / "test").rglob("*.jpg"))
    for threads in ("100000", "99999999999999999999"):
        assert command("infer", "image", picture, "-e", bundle, "--threads", threads).code == 2
    assert command("infer", "camera", "synthetic", "-e", bundle, "--size", "16384x16384", "--no-window").code == 2
    assert command("infer", "camera", "synthetic", "-e", bundle, "--size", "²x²", "--no-window").code == 2
    assert command("model", "info", "vit_lsla_t", "--classes", "999999999999").code == 2
    for text in ('{"a":' * 100_000, '{"name": 1e999}'):
        (tmp_path / "deep.json").write_text(text)
        assert command("model", "info", tmp_path / "deep.json").code == 2
    assert command("infer", "image", picture, "-e", bundle, "--precision", "[/]").code == 2


def test_a_damaged_cached_demo_bundle_is_built_again(command, tmp_path: Path) -> None:
    sample = ROOT / "demo" / "samples" / "ant_1.jpg"
    assert command("infer", "image", sample).code == 0
    (cached,) = (tmp_path / "cache" / "edge-lsla").glob("*.lsla")
    cached.write_bytes(b"broken")
    result = command("infer", "image", sample)
    assert (result.code, "building the demo bundle" in result.out) == (0, True)


def test_output_folders_and_data_are_checked_before_the_work(command, checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.lsla"
    int8 = ["-o", output, "--precision", "int8", "--data"]
    for arguments in (
        ["-o", tmp_path / "no" / "x.lsla"],
        [*int8, tmp_path / "no"],
        [*int8, checkpoint.parent],
        ["-o", output, "--method", "bogus"],
    ):
        result = command("build-engine", checkpoint, *arguments)
        assert result.code == 2, result.out
        assert "exported" not in result.out


def test_ultimately_no_report_is_sent() -> None:
    program = "import os, edge_lsla; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    out = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "1"
