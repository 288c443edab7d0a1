import copy
import json
import math
from typing import Any

import bundle_parts as parts
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_lsla.bundle import PRECISIONS, Artifact, Golden, Manifest, Tolerance, strict_json
from edge_lsla.errors import BundleError, CompatibilityError, EdgeLslaError
from edge_lsla.preprocessing import Preprocessing

# a busy machine is no reason to fail, hence no deadline and no health check of speed
quickly = settings(
    deadline=None, database=None, max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
printable = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
digest = st.text("0123456789abcdef", min_size=64, max_size=64)
finite = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63) + 1, 2**63 - 1)
json_value = st.recursive(
    st.none() | st.booleans() | whole | finite | st.just("") | printable,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(printable, inner, max_size=3),
    max_leaves=8,
)
json_object = st.dictionaries(printable, json_value, max_size=4)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    combinations = st.tuples(st.sampled_from(["onnxruntime", "tensorrt", "tensorrt-rtx"]), st.sampled_from(PRECISIONS))
    artifacts = tuple(
        Artifact(
            name=f"{index}-{backend}-{precision}",
            backend=backend,
            precision=precision,
            kind=draw(st.sampled_from(["onnx", "engine"])),
            versions=draw(st.dictionaries(printable, printable, max_size=3)),
            targets=tuple(draw(st.lists(printable, unique=True, max_size=3))),
            sha256=draw(digest),
            size=draw(st.integers(1, 2**32)),
        )
        for index, (backend, precision) in enumerate(draw(st.lists(combinations, min_size=1, max_size=4)))
    )
    entries = {"golden/inputs.npy": draw(digest)}
    entries |= {f"golden/{one.backend}-{one.precision}.npy": draw(digest) for one in artifacts}
    channel = st.tuples(*[st.floats(0.001, 10)] * 3)
    return Manifest(
        name=draw(printable),
        created=draw(st.datetimes()).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0"),
        edge_lsla=draw(printable),
        model=draw(json_object),
        labels=tuple(draw(st.lists(printable, unique=True, min_size=1, max_size=5))),
        preprocessing=Preprocessing(
            draw(st.integers(1, 4096)), draw(st.sampled_from(["crop", "stretch"])), draw(st.floats(0.1, 1)),
            draw(channel), draw(channel),
        ),
        digests=draw(st.dictionaries(printable, digest, max_size=3)),
        precisions={
            artifacts[0].precision: draw(st.dictionaries(printable, st.sampled_from(PRECISIONS), max_size=3)),
            artifacts[-1].name: {},
        },
        fidelity=draw(json_object),
        calibration=draw(st.none() | json_object.map(lambda more: {**more, "method": "minmax", "images": 8})),
        plugin=draw(st.none() | digest.map(lambda index: {"operator_version": "1", "cubin_index": index})),
        artifacts=artifacts,
        golden=Golden(
            draw(st.integers(1, 256)),
            entries,
            {one.precision: Tolerance(draw(st.floats(0, 100))) for one in artifacts},
        ),
    )  # fmt: skip


@quickly
@given(manifests())
def test_a_manifest_survives_its_text(manifest: Manifest) -> None:
    text = strict_json.dump(manifest.to_dict())
    again = Manifest.from_dict(strict_json.parse(text))
    assert again == manifest
    assert strict_json.dump(again.to_dict()) == text


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in inner for place in places(one, (*path, key)))]


def loaded_or_refusal(values: Any) -> Manifest | EdgeLslaError:
    try:
        return Manifest.from_dict(values)
    except EdgeLslaError as error:
        return error


@quickly
@given(manifests(), st.data())
def test_a_changed_manifest_is_refused_by_name_or_says_what_it_says(manifest: Manifest, data: st.DataObject) -> None:
    values = copy.deepcopy(manifest.to_dict())
    *path, last = data.draw(st.sampled_from(places(values)[1:]))
    holder = values
    for key in path:
        holder = holder[key]
    junk = st.sampled_from(
        [None, True, -1, 0, 2**70, 1.5, math.nan, math.inf, "", "\x1b[0m", "\ud800", [], {}, [[]], b""]
    )
    change = data.draw(st.sampled_from(["replace", "remove", "add"]))
    if change == "replace":
        holder[last] = data.draw(junk | json_value)
    elif change == "remove":
        del holder[last]
    elif isinstance(holder, list):
        holder.append(data.draw(junk))
    else:
        holder[data.draw(printable)] = data.draw(junk)
    loaded = loaded_or_refusal(values)
    if isinstance(loaded, Manifest):
        text = strict_json.dump(loaded.to_dict())
        assert Manifest.from_dict(strict_json.parse(text)) == loaded
    else:
        assert isinstance(loaded, (BundleError, CompatibilityError))
        assert loaded.where


@quickly
@given(st.binary(max_size=200) | st.text('{}[]",:\\0a.eE-ntu ', max_size=60).map(str.encode))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        value = strict_json.parse(data)
    except BundleError:
        return
    assert json.loads(data) == value


def manifest() -> dict[str, Any]:
    artifact = Artifact("a.onnx", "onnxruntime", "fp32", "onnx", {}, (), "0" * 64, 1)
    names = ("golden/inputs.npy", "golden/onnxruntime-fp32.npy")
    golden = Golden(1, dict.fromkeys(names, "0" * 64), {"fp32": Tolerance(0.1)})
    passport = parts.passport(precisions={"fp32": {"head": "fp32"}, "a.onnx": {}})
    return copy.deepcopy(Manifest(**vars(passport), artifacts=(artifact,), golden=golden).to_dict())


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("name",), "", "name"),
        (("name",), "x" * 257, "name"),
        (("name",), "a\nb", "name"),
        (("created",), "2025-02-30T00:00:00Z", "created"),
        (("created",), "2025-02-03 00:00:00", "created"),
        (("created",), "٢٠٢٥-02-03T00:00:00Z", "created"),
        (("edge_lsla",), 1, "edge_lsla"),
        (("model",), [], "model"),
        (("model", "x"), math.nan, "model.x"),
        (("model", "x"), [0, {"y": 2**63}], "model.x[1].y"),
        (("model", "x"), (1,), "model.x"),
        (("labels",), [], "labels"),
        (("labels",), "bee", "labels"),
        (("labels",), ["bee", "wasp", "bee"], "labels[2]"),
        (("labels",), ["bee", ""], "labels[1]"),
        (("labels",), ["bee", "\x9b31m"], "labels[1]"),
        (("labels",), ["bee", "\ud800"], "labels[1]"),
        (("labels",), [str(index) for index in range(100_001)], "labels"),
        (("preprocessing",), None, "preprocessing"),
        (("preprocessing", "image_size"), 0, "preprocessing.image_size"),
        (("preprocessing", "image_size"), True, "preprocessing.image_size"),
        (("preprocessing", "resize"), "pad", "preprocessing.resize"),
        (("preprocessing", "resize"), [], "preprocessing.resize"),
        (("preprocessing", "crop_fraction"), 0, "preprocessing.crop_fraction"),
        (("preprocessing", "crop_fraction"), True, "preprocessing.crop_fraction"),
        (("preprocessing", "mean"), [0, 0], "preprocessing.mean"),
        (("preprocessing", "mean"), [0, 0, 10**400], "preprocessing.mean[2]"),
        (("preprocessing", "std"), [1, 1, 0], "preprocessing.std"),
        (("preprocessing", "extra"), 1, "preprocessing.extra"),
        (("artifacts",), [], "artifacts"),
        (("artifacts",), {}, "artifacts"),
        (("artifacts",), [1], "artifacts[0]"),
        (("artifacts",), [{}] * 257, "artifacts"),
        (("artifacts", 0, "name"), "../x", "artifacts[0].name"),
        (("artifacts", 0, "name"), "manifest.json", "artifacts[0].name"),
        (("artifacts", 0, "backend"), "onnx", "artifacts[0].backend"),
        (("artifacts", 0, "backend"), ["tensorrt"], "artifacts[0].backend"),
        (("artifacts", 0, "precision"), "int4", "artifacts[0].precision"),
        (("artifacts", 0, "kind"), "pickle", "artifacts[0].kind"),
        (("artifacts", 0, "versions", "gpu"), 1, "artifacts[0].versions.gpu"),
        (("artifacts", 0, "targets"), ["sm87", "sm87"], "artifacts[0].targets[1]"),
        (("artifacts", 0, "sha256"), "0" * 63, "artifacts[0].sha256"),
        (("artifacts", 0, "sha256"), "A" * 64, "artifacts[0].sha256"),
        (("artifacts", 0, "sha256"), "0" * 64 + "\n", "artifacts[0].sha256"),
        (("artifacts", 0, "size"), 0, "artifacts[0].size"),
        (("artifacts", 0, "size"), 2**40, "artifacts[0].size"),
        (("artifacts", 0, "size"), 1.0, "artifacts[0].size"),
        (("digests", "onnx"), "x", "digests.onnx"),
        (("calibration",), {}, "calibration.method"),
        (("calibration", "images"), -1, "calibration.images"),
        (("plugin", "cubin_index"), "x", "plugin.cubin_index"),
        (("plugin", "operator_version"), 1, "plugin.operator_version"),
        (("precisions", "int8"), {}, "precisions.int8"),
        (("precisions", "fp32"), [], "precisions.fp32"),
        (("precisions", "fp32", "head"), "fp8", "precisions.fp32.head"),
        (("fidelity", "top1"), math.inf, "fidelity.top1"),
        (("golden", "images"), 0, "golden.images"),
        (("golden", "images"), 257, "golden.images"),
        (("golden", "entries", "golden/inputs.npy"), "0", "golden.entries.golden/inputs.npy"),
        (("golden", "entries", "extra.npy"), "0" * 64, "golden.entries.extra.npy"),
        (("golden", "tolerance", "fp32"), 0.1, "golden.tolerance.fp32"),
        (("golden", "tolerance", "fp32"), {"max_abs": -1}, "golden.tolerance.fp32.max_abs"),
        (("golden", "tolerance", "fp32"), {"max_abs": math.nan}, "golden.tolerance.fp32.max_abs"),
        (("golden", "tolerance", "int8"), {"max_abs": 1}, "golden.tolerance.int8"),
        (("golden", "tolerance"), {}, "golden.tolerance.fp32"),
        (("golden", "entries"), {}, "golden.entries.golden/inputs.npy"),
        (("\x1b[2J",), 1, "'\\x1b[2J'"),
    ],
)
def test_a_field_that_cannot_be_used_is_named(path: tuple[Any, ...], value: Any, named: str) -> None:
    values = manifest()
    holder = values
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    with pytest.raises(BundleError) as caught:
        Manifest.from_dict(values)
    assert str(caught.value.where) == named
    assert caught.value.remedy


@pytest.mark.parametrize(
    "path", [(), ("preprocessing",), ("artifacts", 0), ("golden",), ("golden", "tolerance", "fp32")]
)
def test_no_field_may_be_missing_or_added(path: tuple[Any, ...]) -> None:
    dotted = {0: "", 1: "preprocessing.", 2: "artifacts[0].", 3: "golden.tolerance.fp32."}[len(path)]
    dotted = "golden." if path == ("golden",) else dotted
    untouched = manifest()
    for key in path:
        untouched = untouched[key]
    for name in untouched:
        values = holder = manifest()
        for key in path:
            holder = holder[key]
        del holder[name]
        with pytest.raises(BundleError) as caught:
            Manifest.from_dict(values)
        assert caught.value.where == f"{dotted}{name}"
    values = holder = manifest()
    for key in path:
        holder = holder[key]
    holder["colour"] = 1
    with pytest.raises(BundleError, match="unknown") as caught:
        Manifest.from_dict(values)
    assert caught.value.where == f"{dotted}colour"


def test_a_deep_model_is_refused() -> None:
    deep: Any = 1
    for _ in range(17):
        deep = [deep]
    with pytest.raises(BundleError, match="nested too deep: model"):
        parts.passport(model={"x": deep})
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(BundleError, match="nested too deep: model"):
        parts.passport(model={"x": endless})


def test_a_newer_version_is_refused_before_its_fields() -> None:
    with pytest.raises(CompatibilityError, match=r"newer edge-lsla.*format_version 7.*update edge-lsla"):
        Manifest.from_dict({"format_version": 7, "colour": 1})
