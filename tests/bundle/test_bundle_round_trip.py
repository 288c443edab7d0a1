import hashlib
import io
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import bundle_parts as parts
import numpy as np
import pytest

import edge_lsla.bundle
from edge_lsla.bundle import GoldenSet, NewArtifact, Tolerance, open_bundle, write_bundle
from edge_lsla.bundle.archive import write_archive
from edge_lsla.errors import BundleError, CompatibilityError, UsageError
from edge_lsla.preprocessing import Preprocessing


def test_everything_written_is_read(bundle_file: Path) -> None:
    passport, artifacts, golden = parts.passport(), parts.artifacts(), parts.golden()
    with open_bundle(bundle_file) as bundle:
        for name in vars(passport):
            assert getattr(bundle.manifest, name) == getattr(passport, name)
        assert bundle.path == bundle_file
        assert [bundle.read(one) for one in bundle.manifest.artifacts] == [one.data for one in artifacts]
        assert bundle.manifest.artifacts[2].targets == ("sm87",)
        assert bundle.manifest.artifacts[2].versions == {"gpu": "Orin"}
        assert bundle.manifest.golden.tolerance == {"fp32": Tolerance(1e-4), "int8": Tolerance(0.5)}
        inputs = bundle.golden_inputs()
        assert inputs.dtype == np.uint8
        np.testing.assert_array_equal(inputs, golden.pixels)
        for one in bundle.manifest.artifacts:
            logits = bundle.golden_logits(one)
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(logits, golden.logits[one.backend, one.precision])


def test_the_writer_returns_the_manifest_that_is_read(tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "a.lsla", parts.passport(), parts.artifacts(), parts.golden())
    with open_bundle(str(tmp_path / "a.lsla")) as bundle:
        assert bundle.manifest == written


def test_absent_calibration_and_plugin_stay_absent(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a.lsla", parts.passport(calibration=None, plugin=None), parts.artifacts(), parts.golden())
    with open_bundle(tmp_path / "a.lsla") as bundle:
        assert bundle.manifest.calibration is None
        assert bundle.manifest.plugin is None


def test_the_same_parts_give_the_same_bytes(tmp_path: Path, bundle_bytes: bytes) -> None:
    sources = []
    for index, one in enumerate(parts.artifacts()):
        (tmp_path / f"{index}").write_bytes(bytes(one.data))  # from files this time
        sources.append(
            NewArtifact(tmp_path / f"{index}", one.backend, one.precision, one.kind, one.versions, one.targets)
        )
    write_bundle(tmp_path / "other-name.lsla", parts.passport(), sources, parts.golden())
    assert (tmp_path / "other-name.lsla").read_bytes() == bundle_bytes


def test_other_zip_readers_and_numpy_agree(bundle_file: Path, bundle_bytes: bytes) -> None:
    with zipfile.ZipFile(bundle_file) as archive, open_bundle(bundle_file) as bundle:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "manifest.json"
        assert archive.comment.decode() == hashlib.sha256(bundle_bytes[:-64]).hexdigest() == bundle.digest
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
        array = np.load(io.BytesIO(archive.read("golden/onnxruntime-fp32.npy")), allow_pickle=False)
        np.testing.assert_array_equal(array, bundle.golden_logits(bundle.manifest.artifacts[0]))
        pixels = np.load(io.BytesIO(archive.read("golden/inputs.npy")), allow_pickle=False)
        np.testing.assert_array_equal(pixels, bundle.golden_inputs())


@pytest.mark.parametrize(
    ("sought", "name"),
    [
        ({"backend": "onnxruntime"}, "onnxruntime-fp32.onnx"),
        ({"backend": "onnxruntime", "precision": "int8"}, "onnxruntime-int8.onnx"),
        ({"backend": "onnxruntime", "target": "sm120"}, "onnxruntime-fp32.onnx"),
        ({"backend": "tensorrt", "kind": "engine", "target": "sm87"}, "tensorrt-int8-sm87.engine"),
    ],
)
def test_the_first_artifact_that_fits_is_chosen(bundle_file: Path, sought: dict[str, str], name: str) -> None:
    with open_bundle(bundle_file) as bundle:
        assert bundle.artifact(**sought).name == name


@pytest.mark.parametrize(
    "sought",
    [
        {"backend": "tensorrt-rtx"},
        {"backend": "onnxruntime", "precision": "fp16"},
        {"backend": "tensorrt", "target": "sm86"},
        {"backend": "tensorrt", "kind": "onnx"},
    ],
)
def test_an_absent_artifact_is_refused_with_what_there_is(bundle_file: Path, sought: dict[str, str]) -> None:
    with open_bundle(bundle_file) as bundle, pytest.raises(CompatibilityError) as caught:
        bundle.artifact(**sought)
    assert caught.value.exit_code == 4
    assert "onnxruntime-fp32.onnx, onnxruntime-int8.onnx, tensorrt-int8-sm87.engine" in str(caught.value)
    assert all(value in str(caught.value) for value in sought.values())


def test_an_open_bundle_survives_its_replacement(tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    parts.write(path)
    with open_bundle(path) as bundle:
        write_bundle(path, parts.passport(name="other"), parts.artifacts(), parts.golden())
        assert bundle.read(bundle.manifest.artifacts[0]) == parts.artifacts()[0].data


def test_a_file_changed_under_an_open_bundle_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    data = parts.write(path)
    with open_bundle(path) as bundle:
        artifact = bundle.manifest.artifacts[0]
        position = data.index(bytes(parts.artifacts()[0].data))
        with path.open("r+b") as file:
            file.seek(position)
            file.write(b"changed")
        with pytest.raises(BundleError, match="checksum"):
            bundle.read(artifact)
        with path.open("r+b") as file:
            file.truncate(position)
        with pytest.raises(BundleError, match="cut short"):
            bundle.read(artifact)


def test_a_change_that_keeps_the_crc_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.lsla"
    data = parts.write(path)
    original = bytes(parts.artifacts()[0].data)
    polynomial = (0x1DB710641).to_bytes(5, "little")  # CRC-32's own, which it divides without a remainder
    changed = bytes(one ^ other for one, other in zip(original, polynomial)) + original[5:]
    assert zlib.crc32(changed) == zlib.crc32(original)
    with open_bundle(path) as bundle:
        with path.open("r+b") as file:
            file.seek(data.index(original))
            file.write(changed)
        with pytest.raises(BundleError, match="not the one that the manifest names"):
            bundle.read(bundle.manifest.artifacts[0])


def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^manifest is larger than 8,388,608 bytes: manifest;"):
        write_bundle(
            tmp_path / "a.lsla", parts.passport(fidelity={"x": ["x" * 60_000] * 150}), parts.artifacts(), parts.golden()
        )
    assert not list(tmp_path.iterdir())


def test_a_closed_bundle_and_a_foreign_artifact_are_refused(bundle_file: Path, tmp_path: Path) -> None:
    other = write_bundle(
        tmp_path / "o.lsla",
        parts.passport(precisions={}),
        [NewArtifact(b"x", "tensorrt", "int8")],
        parts.golden(),
    )
    with open_bundle(bundle_file) as bundle, pytest.raises(BundleError, match="not of this bundle"):
        bundle.read(other.artifacts[0])
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read(bundle.manifest.artifacts[0])
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.golden_inputs()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"pixels": np.zeros((2, 5, 4, 3), np.uint8)}, "golden.pixels"),
        ({"pixels": np.zeros((0, 4, 4, 3), np.uint8)}, "golden.pixels"),
        ({"pixels": np.zeros((2, 4, 4, 3), np.float32)}, "golden.pixels"),
        ({"logits": {}}, r"golden.logits\[onnxruntime, fp32\]"),
        ({"logits": {("onnxruntime", "fp32"): np.zeros((2, 4), np.float32)}}, r"golden.logits\[onnxruntime, fp32\]"),
        ({"logits": {("onnxruntime", "fp32"): np.zeros((2, 3))}}, r"golden.logits\[onnxruntime, fp32\]"),
        ({"logits": {("onnxruntime", "fp32"): np.full((2, 3), np.nan, np.float32)}}, r"golden.logits"),
        ({"tolerance": {}}, "golden.tolerance.fp32"),
    ],
)
def test_a_golden_set_that_does_not_fit_is_not_written(tmp_path: Path, changes: dict[str, object], field: str) -> None:
    with pytest.raises(BundleError, match=field):
        write_bundle(tmp_path / "a.lsla", parts.passport(), parts.artifacts(), parts.golden(**changes))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("artifact", "match"),
    [
        (NewArtifact(b"", "onnxruntime", "fp32"), r"artifacts\[0\]\.size"),
        (NewArtifact(b"x", "cuda", "fp32"), r"artifacts\[0\]\.backend"),
        (NewArtifact(b"x", "onnxruntime", "fp8"), r"artifacts\[0\]\.precision"),
        (NewArtifact(b"x", "onnxruntime", "fp32", name="../x"), r"artifacts\[0\]\.name"),
        (NewArtifact(b"x", "onnxruntime", "fp32", name="signature.json"), r"artifacts\[0\]\.name"),
        (NewArtifact(b"x", "onnxruntime", "fp32", name="golden/x"), r"artifacts\[0\]\.name"),
        (NewArtifact(Path("missing.onnx"), "onnxruntime", "fp32"), "cannot be read: missing.onnx"),
        (NewArtifact(Path("/dev/zero"), "onnxruntime", "fp32"), "not a regular file"),
    ],
)
def test_an_artifact_that_cannot_be_used_is_named(tmp_path: Path, artifact: NewArtifact, match: str) -> None:
    with pytest.raises(BundleError, match=match):
        write_bundle(tmp_path / "a.lsla", parts.passport(precisions={}), [artifact], parts.golden())
    assert not list(tmp_path.iterdir())


def test_two_artifacts_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"repeats.*artifacts\[1\]\.name"):
        write_bundle(tmp_path / "a.lsla", parts.passport(precisions={}), parts.artifacts()[:1] * 2, parts.golden())


def test_a_bundle_needs_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no artifact: artifacts"):
        write_bundle(tmp_path / "a.lsla", parts.passport(precisions={}), [], parts.golden(tolerance={}))


@pytest.mark.parametrize("destination", ["missing/a.lsla", "."])
def test_an_output_that_cannot_be_written_is_a_usage_error(
    tmp_path: Path, destination: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        write_bundle(destination, parts.passport(), parts.artifacts(), parts.golden())


def test_a_large_artifact_is_streamed_in_and_held_once_out(tmp_path: Path) -> None:
    size = 48 << 20
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    source = [NewArtifact(tmp_path / "large", "onnxruntime", "fp32")]
    logits = {("onnxruntime", "fp32"): np.zeros((2, 3), np.float32)}
    tracemalloc.start()
    try:
        write_bundle(tmp_path / "a.lsla", parts.passport(precisions={}), source, parts.golden(logits=logits))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20  # a few pieces of 1 MiB
        with open_bundle(tmp_path / "a.lsla") as bundle:
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
            data = bundle.read(bundle.artifact("onnxruntime"))
        assert len(data) == size
        assert tracemalloc.get_traced_memory()[1] < size + (8 << 20)
    finally:
        tracemalloc.stop()


def test_a_hundred_thousand_labels_fit(tmp_path: Path) -> None:
    labels = tuple(f"species {index}" for index in range(100_000))
    passport = parts.passport(labels=labels, precisions={}, preprocessing=Preprocessing(image_size=2))
    golden = GoldenSet(
        np.zeros((1, 2, 2, 3), np.uint8),
        {("onnxruntime", "fp32"): np.zeros((1, 100_000), np.float32)},
        {"fp32": Tolerance(0)},
    )
    write_bundle(tmp_path / "a.lsla", passport, parts.artifacts()[:1], golden)
    with open_bundle(tmp_path / "a.lsla") as bundle:
        assert bundle.manifest.labels == labels


def test_archives_refuse_names_that_bundles_cannot_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("../x", "/x", "a/b/c", "A", "a\\b", "a\n", "é", "a" * 129, ".hidden", "a/.b", "a..b", "a/", ""):
        with pytest.raises(BundleError, match="entry name is not allowed") as caught:
            write_archive(tmp_path / "a.lsla", {"manifest.json": b"{}", name: b""})
        assert "\n" not in str(caught.value)
    with pytest.raises(BundleError, match="more than 256 entries"):
        write_archive(tmp_path / "a.lsla", {"manifest.json": b"", **{f"{index}": b"" for index in range(256)}})
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(3 << 20)
    monkeypatch.setattr("edge_lsla.bundle.archive.MAX_BUNDLE_BYTES", 3 << 20)
    with pytest.raises(BundleError, match="larger than"):
        write_archive(tmp_path / "a.lsla", {"manifest.json": b"", "large": tmp_path / "sparse"})
    assert not (tmp_path / "a.lsla").exists()


def test_the_folder_offers_what_it_lists() -> None:
    names = edge_lsla.bundle.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(edge_lsla.bundle, name) for name in names)


def test_importing_it_loads_no_framework() -> None:
    program = "import sys, edge_lsla.bundle; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "onnx", "onnxruntime", "cv2", "tensorrt", "pycuda"} & {
        name.partition(".")[0] for name in loaded
    }
    allowed = ("edge_lsla.bundle", "edge_lsla.errors", "edge_lsla.atomic", "edge_lsla.preprocessing")
    assert all(name.startswith(allowed) for name in loaded if name.startswith("edge_lsla."))
