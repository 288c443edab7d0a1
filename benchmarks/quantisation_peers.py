"""INT8 of a trained model beside ONNX Runtime's `quantize_static` and Model-Optimizer's ONNX PTQ.

All quantise one checkpoint with the same calibration pictures, each in a process of its own, and are judged on pictures
that nobody calibrated on. The peers get each placement of Q/DQ that may suit them: what they choose themselves, all
Conv/MatMul/Gemm, and exactly the layers that we quantise; and both the exported graph and the fused one with its
functions inlined, of which the better counts. Ours is `build-engine`'s: `auto`, its default, chooses by 64 of the
calibration pictures, and corrects biases where that helps on TensorRT. What is for TensorRT is judged with ONNX
Runtime's Q/DQ fusions off, so that it computes what the graph says. Peers for TensorRT keep float32 around INT8.

`MODELOPT_PYTHON=… python -m benchmarks.quantisation_peers [--checkpoint FILE --model vit_lsla_t --images N …]`.
Model-Optimizer runs with the Python of MODELOPT_PYTHON and is left out without. Its pictures come decoded; the others'
seconds include decoding. `quantize_static`'s Entropy divides 128 bins into 128 levels, so that it takes the full range,
as MinMax does.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks.machine import keep
from benchmarks.quantisation_judge import Judged, judge, load_sets, logits, right, session
from calibration.costs import estimated_costs
from calibration.paired import difference
from calibration.pictures import CalibrationPictures
from calibration.points import find_layers
from calibration.settings import AUTO, BACKENDS, METHODS
from edge_lsla.description import describe
from edge_lsla.preprocessing import normalise
from edge_lsla.quantising import Calibrate, Quantiser

ROOT = Path(__file__).parents[1]
DEMO, DEMO_DATA = ROOT / "demo", ROOT / "output" / "demo-data"
MODELOPT = "MODELOPT_PYTHON"
GRAPHS = ("exported", "inlined")
PLACEMENTS = ("layers", "gemms", "default")
SHIPPED = Calibrate(Path()).method


@dataclass(frozen=True)
class Entrant:
    """Who quantises, and how; `placement` is which nodes a peer quantises, and what we do beside ranges."""

    side: str
    backend: str
    method: str
    placement: str
    graph: str = "fused"

    @property
    def label(self) -> str:
        return f"{self.side}, {self.backend}, {self.method}, {self.placement}"


def entrants() -> list[Entrant]:
    found = [Entrant("ours", backend, method, beside) for backend in BACKENDS for method in METHODS
             for beside in ("migrated", "migrated + biases")]  # fmt: skip
    found += [Entrant("ours", backend, AUTO, "migrated") for backend in BACKENDS]
    for graph in GRAPHS:
        for placement in PLACEMENTS:
            methods = ("MinMax", "Entropy", "Percentile") if placement != "default" else ("MinMax",)
            found += [Entrant("quantize_static", "onnxruntime", method, placement, graph) for method in methods]
            found += [Entrant("modelopt", "tensorrt", method, placement, graph) for method in ("max", "entropy")]
    return found


def write_graphs(folder: Path, checkpoint: Path, model: str | None, data: Path, calibrate: int) -> None:
    """Write the float graphs, and the calibration pictures for those who cannot read them."""
    from edge_lsla.export.onnx_export import export_onnx
    from edge_lsla.model.checkpoint import open_checkpoint
    from edge_lsla.surgery.fuse import fuse
    from edge_lsla.surgery.split import inline_functions

    loaded = open_checkpoint(checkpoint, model)
    export_onnx(loaded.model, loaded.image_size, folder / "exported.onnx", description=loaded.description)
    fused = fuse(onnx.load(folder / "exported.onnx"))[0]
    onnx.save(fused, folder / "fused.onnx")
    onnx.save(inline_functions(fused), folder / "inlined.onnx")
    preprocessing = loaded.description.preprocessing
    pictures = [normalise(pixels, preprocessing) for pixels in CalibrationPictures(data, calibrate, preprocessing)]
    np.save(folder / "pictures.npy", np.stack(pictures))


def quantise_ours(graph: Path, data: Path, images: int, entrant: Entrant, output: Path) -> None:
    model = onnx.load(graph)
    wanted = Calibrate(data, entrant.method, images, migrate=True, correct="biases" in entrant.placement)
    onnx.save(Quantiser(model, describe(model, graph), wanted).int8(entrant.backend)[0], output)


def quantise_static(graph: Path, data: Path, images: int, entrant: Entrant, output: Path) -> None:
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
    from onnxruntime.quantization import quantize_static as run

    model = onnx.load(graph)
    preprocessing = describe(model, graph).preprocessing

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.pictures = iter(CalibrationPictures(data, images, preprocessing))

        def get_next(self) -> dict[str, np.ndarray] | None:
            pixels = next(self.pictures, None)
            return None if pixels is None else {"images": normalise(pixels[None], preprocessing)}

    if entrant.placement == "default":
        run(graph, output, Reader())
        return
    run(
        graph,
        output,
        Reader(),
        op_types_to_quantize=["Conv", "MatMul", "Gemm"],
        nodes_to_quantize=[one.name for one in find_layers(model)] if entrant.placement == "layers" else None,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[entrant.method],
    )


def run_alone(command: list[str], log: Path) -> dict[str, Any]:
    """Run a process: its seconds and largest resident size, or why it failed."""
    begin = time.perf_counter()
    with log.open("w") as words:
        process = subprocess.Popen(command, stdout=words, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    said = log.read_text(errors="replace").strip().splitlines()[-1:]
    if process.returncode:
        return {"failed": f"{process.returncode}: {''.join(said)[:300]}"}
    return {"seconds": round(seconds, 1), "peak_mb": round(usage.ru_maxrss / 1024)}


def quantise(entrant: Entrant, folder: Path, data: Path, images: int, output: Path) -> dict[str, Any]:
    graph = folder / f"{entrant.graph}.onnx"
    if entrant.side == "modelopt":
        script = str(Path(__file__).with_name("quantisation_peers_modelopt.py"))
        names = [one.name for one in find_layers(onnx.load(graph))]
        layers = names if entrant.placement == "layers" else [entrant.placement]
        command = [os.environ[MODELOPT], script, str(graph), str(folder / "pictures.npy"), str(output), entrant.method]
        row = run_alone([*command, *layers], folder / "log")
        return row if "failed" in row else row | {"version": (folder / "log").read_text().split()[-1]}
    fields = [entrant.side, entrant.backend, entrant.method, entrant.placement, entrant.graph]
    command = [sys.executable, "-m", "benchmarks.quantisation_peers", "one", str(graph), str(data), str(images)]
    row = run_alone([*command, str(output), *fields], folder / "log")
    if entrant.method != AUTO or "failed" in row:
        return row
    return row | {"chosen": next(one for one in (folder / "log").read_text().splitlines() if "ranges by" in one)}


def mean(row: dict[str, Any], figure: str, sets: dict[str, Judged]) -> float:
    return float(np.mean([row[name][figure] for name in sets])) if "failed" not in row else -np.inf


def against(
    rows: dict[str, dict[str, Any]], answers: dict[str, dict[str, np.ndarray]], sets: dict[str, Judged]
) -> list[dict[str, Any]]:
    """Our shipped method and our best ones, beside the peers that have the most dB and the highest top-1."""
    found = []
    for backend in BACKENDS:
        here = {label: row for label, row in rows.items() if f", {backend}, " in label and "failed" not in row}
        ours, peers = ({n: r for n, r in here.items() if n.startswith("ours") == mine} for mine in (True, False))
        if not ours or not peers:
            continue
        pairs: dict[tuple[str, str], list[str]] = {}
        for figure in ("sqnr_db", "top1"):
            best, peer = (max(side, key=lambda n: mean(side[n], figure, sets)) for side in (ours, peers))
            for label in dict.fromkeys((f"ours, {backend}, {SHIPPED}, migrated", best)):
                pairs.setdefault((label, peer), []).append(figure)
        for (label, peer), figures in pairs.items():
            if label in ours:
                beside = {
                    name: {
                        "more_db": round(ours[label][name]["sqnr_db"] - peers[peer][name]["sqnr_db"], 2),
                        "drop": difference(answers[peer][name], answers[label][name], one.clusters).to_dict(),
                    }
                    for name, one in sets.items()
                }
                found.append({"ours": label, "peer": peer, "best_by": " and ".join(figures), **beside})
    return found


def show(rows: dict[str, dict[str, Any]], names: Sequence[str]) -> None:
    head = "".join(f" | {name + ': top-1':>14} {'drop [95 %]':>20} {'agree':>6} {'dB':>6}" for name in names)
    print(f"\n{'':54}{'s':>6} {'MB':>5} {'layers':>6} {'work %':>6} {'kernels':>7}{head}")
    for label, row in rows.items():
        if "failed" in row:
            print(f"{label:54}failed, {row['failed']}")
            continue
        cells = [f"{row['seconds']:6.1f} {row['peak_mb']:5} {row['layers_int8']:6} {row['multiply_adds_int8']:6.1f}",
                 f" {row['integer_kernels'] or '':>7}"]  # fmt: skip
        for name in names:
            one, low_high = row[name], row[name]["paired"]["interval"]
            drop = f"{one['paired']['drop']:.2f} [{low_high[0]:.2f}, {low_high[1]:.2f}]"
            cells.append(f" | {one['top1']:14.2f} {drop:>20} {one['agreement']:6.2f} {one['sqnr_db']:6.2f}")
        print(f"{label:54}{''.join(cells)}")


def show_against(found: list[dict[str, Any]], names: Sequence[str]) -> None:
    for one in found:
        print(f"\n{one['ours']}\n  beside {one['peer']}, of the peers the best by {one['best_by']}")
        for name in names:
            drop = one[name]["drop"]
            print(
                f"  {name}: {one[name]['more_db']:+.2f} dB, top-1 {0 - drop['drop']:+.2f}, drop in {drop['interval']}"
            )


def main(wanted: argparse.Namespace) -> None:
    chosen = [one for one in entrants() if re.search(wanted.entrants, f"{one.label}, {one.graph}")]
    absent = [one for one in chosen if one.side == "modelopt" and not os.environ.get(MODELOPT)]
    if absent:
        print(f"{len(absent)} entrants of Model-Optimizer left out: {MODELOPT} is not set")
    data = wanted.data / "calibration" if wanted.data == DEMO else wanted.data
    rows: dict[str, dict[str, Any]] = {}
    answers: dict[str, dict[str, np.ndarray]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = [str(wanted.checkpoint), wanted.model or "", str(data), str(wanted.calibrate)]
        begin = [sys.executable, "-m", "benchmarks.quantisation_peers", "graphs"]
        made = run_alone([*begin, name, *given], folder / "log")  # a child begins with the peak of what starts it
        if "failed" in made:
            raise SystemExit(made["failed"])
        done = []
        for one in (one for one in chosen if one not in absent):
            output = folder / f"{len(done)}.onnx"
            done.append((one, output, quantise(one, folder, data, wanted.calibrate, output)))
            print(f"{one.label}, {one.graph}: {done[-1][2]}", flush=True)
        fused = onnx.load(folder / "fused.onnx")
        costs = estimated_costs(fused, "onnxruntime").layers
        work = {layer.name: costs[layer.name].operations for layer in find_layers(fused)}
        places = {"test": (wanted.data, "test"), "val": (wanted.data, "val")}
        if wanted.data == DEMO:
            places = {"heldout": (DEMO, "heldout"), "val": (DEMO_DATA, "val")}
        sets = load_sets(places, wanted.images, describe(fused, folder))
        for judged in sets.values():
            judged.expected = logits(session(folder / "fused.onnx", True), judged.images)
        for one, output, row in done:
            row["graph"] = one.graph
            if "failed" not in row:
                found, verdict = judge(output, one.backend == "onnxruntime", sets, work)
                row.update(verdict)
            before = rows.get(one.label)
            if before is None or mean(row, "sqnr_db", sets) > mean(before, "sqnr_db", sets):
                rows[one.label] = row
                if "failed" not in row:
                    answers[one.label] = {name: right(found[name], judged) for name, judged in sets.items()}
    figures = {
        "calibration_pictures": wanted.calibrate,
        "layers": len(work),
        "float_top1": {n: round(100 * float(right(s.expected, s).mean()), 2) for n, s in sets.items()},
        "pictures": {n: len(s.labels) for n, s in sets.items()},
        "shipped": f"ours, …, {SHIPPED}, migrated",
        "rows": rows,
        "ours_against_the_best": against(rows, answers, sets),
    }
    if wanted.entrants == "" or wanted.model is not None:
        figures["entrants"] = wanted.entrants or "all"
        keep("quantisation_peers" if wanted.data == DEMO else f"quantisation_peers_{wanted.model}", figures)
    show(rows, list(sets))
    show_against(figures["ours_against_the_best"], list(sets))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO / "vit_lsla_demo.safetensors")
    parser.add_argument("--model", help="the checkpoint's configuration, where it does not name it")
    parser.add_argument("--data", type=Path, help="a data set; default: the demo's pictures, or its data set")
    parser.add_argument("--images", type=int, default=10**6, help="most pictures of each split to judge on")
    parser.add_argument("--calibrate", type=int, default=224, help="pictures to calibrate on")
    parser.add_argument("--entrants", default="", help="only those that this fits; kept for other models")
    wanted = parser.parse_args()
    wanted.data = wanted.data or (DEMO if wanted.model is None else DEMO_DATA)
    return wanted


if __name__ == "__main__":
    sides = {"ours": quantise_ours, "quantize_static": quantise_static}
    match sys.argv[1:]:
        case ["graphs", folder, checkpoint, model, data, calibrate]:
            write_graphs(Path(folder), Path(checkpoint), model or None, Path(data), int(calibrate))
        case ["one", graph, data, images, output, *fields]:
            sides[fields[0]](Path(graph), Path(data), int(images), Entrant(*fields), Path(output))
        case _:
            main(parsed())
