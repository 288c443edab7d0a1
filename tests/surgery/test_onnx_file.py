"""A file that is not a usable ONNX model is refused in one sentence."""

from __future__ import annotations

import onnx
import pytest

from edge_lsla.errors import GraphError
from edge_lsla.surgery import onnx_file
from edge_lsla.surgery.onnx_file import read_onnx


def refused(path, reason):
    with pytest.raises(GraphError, match=reason) as caught:
        read_onnx(path)
    assert caught.value.exit_code == 2
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_good_file_is_read(tiny_onnx):
    assert read_onnx(tiny_onnx) == onnx.load(tiny_onnx)


@pytest.mark.parametrize("content", [b"", b"not onnx at all", bytes(range(256)) * 10, b"\x08\x0a"])
def test_what_is_not_onnx(content, tmp_path):
    (tmp_path / "m.onnx").write_bytes(content)
    refused(tmp_path / "m.onnx", "not an ONNX file")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short(tiny_onnx, share, tmp_path):
    data = tiny_onnx.read_bytes()
    (tmp_path / "m.onnx").write_bytes(data[: int(len(data) * share)])
    refused(tmp_path / "m.onnx", "ONNX")


def test_absent_and_folder(tmp_path):
    refused(tmp_path / "absent.onnx", "cannot be read")
    refused(tmp_path, "folder")


def test_an_invalid_graph(tiny_onnx, tmp_path):
    model = onnx.load(tiny_onnx)
    model.graph.node[3].input[0] = "nowhere"
    onnx.save(model, tmp_path / "m.onnx")
    refused(tmp_path / "m.onnx", "not a valid ONNX graph")


def test_weights_beside_the_file(tiny_onnx, tmp_path):
    onnx.save(onnx.load(tiny_onnx), tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0)
    assert read_onnx(tmp_path / "m.onnx").graph.initializer[0].raw_data
    (tmp_path / "m.bin").unlink()
    refused(tmp_path / "m.onnx", "weights kept outside the file cannot be read")


def test_a_file_too_large(tiny_onnx, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 1000)
    refused(tiny_onnx, "larger than an ONNX file can be")
