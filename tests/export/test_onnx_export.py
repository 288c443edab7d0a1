"""Export writes one clean, repeatable file that agrees with PyTorch at any batch, or nothing at all."""

from __future__ import annotations

import hashlib
import logging

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

from edge_lsla.errors import AccuracyError, GraphError, UsageError
from edge_lsla.export.onnx_export import ExportReport, ExportSettings, export_onnx
from edge_lsla.model.config import VitLslaConfig
from edge_lsla.model.vit_lsla import VitLsla

CONFIG = VitLslaConfig(
    name="tiny", classes=5, image_size=32, widths=(32, 64), depths=(1, 1), windows=(4, 2), head_width=16
)


@pytest.fixture(scope="module")
def model() -> VitLsla:
    torch.manual_seed(0)
    model = VitLsla(CONFIG).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "tiny.onnx"
    return path, export_onnx(model, 32, path)


def test_the_report_describes_the_file(exported):
    path, report = exported
    data = path.read_bytes()
    graph = onnx.load(path).graph
    assert report == ExportReport(
        opset=20,
        nodes=len(graph.node),
        max_abs_difference=report.max_abs_difference,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
    )
    assert 0 < report.max_abs_difference < 1e-4


def test_the_graph_keeps_the_contract(exported):
    graph = onnx.load(exported[0])
    onnx.checker.check_model(graph, full_check=True)
    (images,), (logits,) = graph.graph.input, graph.graph.output
    sides = [d.dim_param or d.dim_value for d in images.type.tensor_type.shape.dim]
    assert (images.name, sides) == ("images", ["batch", 3, 32, 32])
    sides = [d.dim_param or d.dim_value for d in logits.type.tensor_type.shape.dim]
    assert (logits.name, sides) == ("logits", ["batch", 5])
    assert images.type.tensor_type.elem_type == logits.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 20)]


def test_any_batch_gives_the_numbers_of_pytorch(model, exported):
    session = ort.InferenceSession(exported[0], providers=["CPUExecutionProvider"])
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        expected = model(images).numpy()
    (logits,) = session.run(None, {"images": images.numpy()})
    # float32 rounding of some 30 layers, relative to the largest logit
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_one_file_that_names_nothing_of_this_machine(exported):
    path = exported[0]
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    graph = onnx.load(path, load_external_data=False)
    assert not any(tensor.data_location for tensor in graph.graph.initializer)
    assert not any(node.metadata_props or node.doc_string for node in graph.graph.node)
    for trace in (b"stack_trace", b"site-packages", b".py", b"/home", b"/root"):
        assert trace not in path.read_bytes()
    assert {entry.key: entry.value for entry in graph.metadata_props} == {
        "edge_lsla.stage": "export",
        "edge_lsla.opset": "20",
        "edge_lsla.image_size": "32",
        "edge_lsla.producer": f"torch {torch.__version__}",
    }


def test_two_exports_are_the_same_bytes(model, exported, tmp_path):
    again = VitLsla(CONFIG)
    again.load_state_dict(model.state_dict())
    export_onnx(again, 32, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported[0].read_bytes()


def test_the_training_mode_is_restored(model, tmp_path):
    model.train()
    try:
        export_onnx(model, 32, tmp_path / "m.onnx")
        assert model.training
        assert model.norm.training
    finally:
        model.eval()


def test_nothing_is_printed(model, tmp_path, capfd, caplog):
    export_onnx(model, 32, tmp_path / "m.onnx")
    printed = capfd.readouterr()
    loud = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (printed.out, printed.err, loud) == ("", "", [])


class Pooled(nn.Module):
    """A classifier of two lines, to be spoilt in a chosen way."""

    def __init__(self, spoilt: str = "") -> None:
        super().__init__()
        self.spoilt = spoilt
        self.head = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.head(images.mean((2, 3)))
        if self.spoilt == "random":
            logits = nn.functional.dropout(logits, 0.5, training=True)
        if self.spoilt == "nan":
            logits = logits * float("nan")
        if self.spoilt == "decides by value" and logits.sum() > 0:
            logits = -logits
        if self.spoilt == "half":
            logits = logits.half()
        return logits[0] if self.spoilt == "one row" else logits


@pytest.mark.parametrize("spoilt", ["random", "nan"])
def test_different_numbers_are_refused_and_nothing_is_written(spoilt, tmp_path):
    torch.manual_seed(0)
    with pytest.raises(AccuracyError, match="differ by") as caught:
        export_onnx(Pooled(spoilt), 8, tmp_path / "m.onnx")
    assert caught.value.exit_code == 4
    assert list(tmp_path.iterdir()) == []


def test_the_tolerance_is_the_gate(model, tmp_path):
    with pytest.raises(AccuracyError, match="1e-12 is allowed"):
        export_onnx(model, 32, tmp_path / "m.onnx", ExportSettings(tolerance=1e-12))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("spoilt", "reason"),
    [
        ("decides by value", "cannot express the model"),
        ("half", "not float32"),
        ("one row", r"does not give logits \[N, classes\]"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_a_sentence(spoilt, reason, tmp_path):
    with pytest.raises(GraphError, match=reason) as caught:
        export_onnx(Pooled(spoilt), 8, tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_image_size_is_refused(model, tmp_path):
    with pytest.raises(GraphError, match="does not run on images of this size: 40 px"):
        export_onnx(model, 40, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="image_size"):
        export_onnx(model, 0, tmp_path / "m.onnx")


def test_a_missing_folder_is_bad_usage(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        export_onnx(Pooled(), 8, tmp_path / "absent" / "m.onnx")


@pytest.mark.parametrize(
    ("field", "value"), [("opset", 17), ("opset", True), ("tolerance", 0), ("tolerance", "x"), ("seed", -1)]
)
def test_settings_name_the_offending_field(field, value):
    with pytest.raises(UsageError, match=field):
        ExportSettings(**{field: value})
