"""Peak memory of `infer` with the demo bundle, each verb in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.machine import keep

DEMO = Path(__file__).parents[1] / "demo"


def peak_mb(*arguments: str) -> float:
    """Run a verb and return the largest resident size it had, MB."""
    process = subprocess.Popen([sys.executable, "cli.py", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed with {process.returncode}")
    return round(usage.ru_maxrss / 1024, 1)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = f"{folder}/demo.lsla"
        weights, data = str(DEMO / "vit_lsla_demo.safetensors"), str(DEMO / "calibration")
        build = ["build-engine", weights, "-o", bundle, "--precision", "int8,fp32", "--data", data]
        figures = {"build_engine_peak_mb": peak_mb(*build)}
        engine = ("--engine", bundle)
        sample = str(DEMO / "samples" / "ant_1.jpg")
        figures["infer_image_peak_mb"] = peak_mb("infer", "image", sample, *engine)
        figures["infer_image_fp32_peak_mb"] = peak_mb("infer", "image", sample, *engine, "--precision", "fp32")
        figures["infer_dir_peak_mb"] = peak_mb("infer", "dir", str(DEMO / "heldout"), *engine)
        figures["infer_video_peak_mb"] = peak_mb("infer", "video", str(DEMO / "pests.mp4"), *engine)
        figures["infer_video_saved_peak_mb"] = peak_mb(
            "infer", "video", str(DEMO / "pests.mp4"), *engine, "-o", f"{folder}/v.mp4"
        )
        camera = ("infer", "camera", "synthetic", *engine, "--max-frames", "100", "--no-window")
        figures["infer_camera_peak_mb"] = peak_mb(*camera)
    keep("memory", figures)


if __name__ == "__main__":
    main()
