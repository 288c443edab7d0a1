from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_lsla import load
from edge_lsla.errors import AccuracyError, CompatibilityError, ImageError, UsageError
from edge_lsla.preprocessing import to_tensor


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny model, put together from its parts."""
    from edge_lsla.bundle import GoldenSet, NewArtifact, Passport, Tolerance, write_bundle
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import load_checkpoint
    from edge_lsla.preprocessing import normalise
    from edge_lsla.runner.onnxruntime import OnnxRuntimeRunner

    folder = tmp_path_factory.mktemp("embedding")
    loaded = load_checkpoint(checkpoint)
    export_onnx(loaded.model, 32, folder / "m.onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    with OnnxRuntimeRunner((folder / "m.onnx").read_bytes()) as runner:
        logits = runner.run(normalise(pixels, loaded.description.preprocessing))
    passport = Passport(
        name="tiny", created="2026-01-01T00:00:00Z", edge_lsla="0", model=loaded.description.model,
        labels=loaded.description.labels,
        preprocessing=loaded.description.preprocessing, digests={}, precisions={}, fidelity={},
    )  # fmt: skip
    golden = GoldenSet(pixels, {("onnxruntime", "fp32"): logits}, {"fp32": Tolerance(1e-4)})
    write_bundle(folder / "x.lsla", passport, [NewArtifact(folder / "m.onnx", "onnxruntime", "fp32")], golden)
    return folder / "x.lsla"


def test_every_kind_of_picture_gives_the_same_answer(bundle: Path, pictures: Path) -> None:
    path = next((pictures / "test").rglob("*.jpg"))
    with Image.open(path) as opened, load(bundle) as model:
        image = opened.convert("RGB")
        kinds = [path, str(path), path.read_bytes(), image, np.asarray(image)]
        answers = [model(kind) for kind in kinds]
        together = model(kinds)
    assert all(answer[0].label == answers[0][0].label for answer in answers)
    for one, other in zip(answers, together):
        assert one[0].probability == pytest.approx(
            other[0].probability, abs=1e-5
        )  # another batch sums in another order
    assert sum(p.probability for p in answers[0]) == pytest.approx(1.0, abs=1e-6)


def test_threads_rest_between_pictures_where_asked(bundle: Path) -> None:
    for spinning, said in ((True, ""), (False, "0")):
        with load(bundle, threads=2, spinning=spinning) as model:
            options = model._runner._session.get_session_options()  # type: ignore[attr-defined]
            try:
                entry = options.get_session_config_entry("session.intra_op.allow_spinning")
            except RuntimeError:  # none was set
                entry = ""
            assert entry == said
            assert model(np.zeros((32, 32, 3), np.uint8))


def test_batches_and_tops(bundle: Path, pictures: Path) -> None:
    paths = sorted((pictures / "test").rglob("*.jpg"))
    with load(bundle) as model:
        assert model([]) == ()
        assert len(model(paths)) == len(paths)
        assert [len(model(paths[0], top)) for top in (1, 2, 3, 9)] == [1, 2, 3, 3]
        for top in (0, -1):
            with pytest.raises(UsageError, match="top"):
                model(paths[0], top)
        with pytest.raises(ImageError):
            model([paths[0], "no.jpg"])


def test_threads_share_a_model(bundle: Path, pictures: Path) -> None:
    paths = sorted((pictures / "test").rglob("*.jpg"))
    with load(bundle, threads=1) as model:
        expected = {path: model(path) for path in paths}
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(model, paths * 8))
    assert answers == [expected[path] for path in paths * 8]


def test_the_wrong_questions(bundle: Path) -> None:
    with load(bundle) as model:
        with pytest.raises(UsageError, match="images are"):
            model.logits(np.zeros((1, 3, 31, 31), np.float32))
        with pytest.raises(UsageError, match="images are"):
            model.logits(np.zeros((1, 3, 32, 32)))
    with pytest.raises(UsageError, match="closed"):
        model.logits(np.zeros((1, 3, 32, 32), np.float32))
    with pytest.raises(CompatibilityError, match=r"onnxruntime-fp32\.onnx"):
        load(bundle, precision="int8")
    with pytest.raises(UsageError, match="no such backend"):
        load(bundle, backend="openvino")
    with pytest.raises(CompatibilityError, match=r"no artifact for tensorrt.*onnxruntime-fp32\.onnx"):
        load(bundle, backend="tensorrt")


def test_the_product_that_is_tried_is_what_its_comment_says() -> None:
    from onnx import TensorProto, helper

    from edge_lsla.runner.onnxruntime import PRODUCT

    tensors = [helper.make_tensor_value_info(name, kind, None) for name, kind in
               (("a", TensorProto.UINT8), ("b", TensorProto.INT8), ("y", TensorProto.INT32))]  # fmt: skip
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["a", "b"], ["y"])], "probe", tensors[:2], tensors[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8, producer_name="")
    assert model.SerializeToString(deterministic=True) == PRODUCT


@pytest.mark.parametrize(("operator", "saturates"), [("MatMulInteger", False), ("Broken", True)])
def test_a_cpu_that_multiplies_wrongly_is_told_by_its_product(
    monkeypatch: pytest.MonkeyPatch, operator: str, saturates: bool
) -> None:
    """The trial against ONNX Runtime's exact product, and against one that is clipped as without VNNI."""
    from edge_lsla.runner import onnxruntime as module

    class Session:
        def __init__(self, *arguments: object, **options: object) -> None:
            pass

        def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            pairs = inputs["a"].astype(np.int32)[:, :, None] * inputs["b"].astype(np.int32)[None]
            sums = pairs.reshape(4, 32, 2, 16).sum(2)
            return [(np.clip(sums, -32768, 32767) if operator == "Broken" else sums).sum(1)]

    class Runtime:
        SessionOptions = module.import_onnxruntime().SessionOptions
        InferenceSession = Session

    monkeypatch.setattr(module, "import_onnxruntime", lambda: Runtime)
    assert module.integer_products_saturate.__wrapped__() is saturates


def test_verify_refuses_other_numbers(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_lsla.runner import onnxruntime as module

    with load(bundle, verify=True) as model:
        assert model.selftest().passed
    run = module.OnnxRuntimeRunner.run
    for broken in (lambda s, x: run(s, x) + np.float32(0.01), lambda s, x: run(s, x) * np.float32(np.nan)):
        monkeypatch.setattr(module.OnnxRuntimeRunner, "run", broken)
        with pytest.raises(AccuracyError, match="logits differ"):
            load(bundle, verify=True)


def test_the_answers_are_the_likeliest_first(bundle: Path, pictures: Path) -> None:
    path = next((pictures / "test").rglob("*.jpg"))
    with load(bundle) as model:
        logits = model.logits(to_tensor(path, model.preprocessing)[None])[0]
        answer = model(path)
    order = np.argsort(-logits)
    assert [p.index for p in answer] == list(order)
    assert [p.label for p in answer] == [model.labels[i] for i in order]
