"""`infer dir` with vit_lsla_t on 200 JPEGs of 640x480, beside a bare session fed ready arrays, in turn."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import keep
from benchmarks.models import build_t
from edge_lsla import load
from edge_lsla.preprocessing import to_tensor

PICTURES, ROUNDS = 200, 3
SAMPLES = Path(__file__).parents[1] / "demo" / "samples"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures = folder / "pictures"
        pictures.mkdir()
        samples = sorted(SAMPLES.glob("*.jpg"))
        for index in range(PICTURES):
            with Image.open(samples[index % len(samples)]) as sample:
                sample.resize((640, 480), Image.Resampling.BICUBIC).save(pictures / f"{index:03}.jpg", quality=90)
        _, bundle = build_t(folder)
        bare, verb = [], []
        with load(bundle) as model:
            arrays = [to_tensor(p, model.preprocessing)[None] for p in sorted(pictures.iterdir())]
            for array in arrays[:5]:
                model.logits(array)
            for _ in range(ROUNDS):
                started = time.perf_counter()
                for array in arrays:
                    model.logits(array)
                bare.append(PICTURES / (time.perf_counter() - started))
                command = [sys.executable, "cli.py", "infer", "dir", str(pictures), "--engine", str(bundle), "--json"]
                out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
                verb.append(float(json.loads(out.splitlines()[-1])["images_per_second"]))
    shares = [mine / theirs for mine, theirs in zip(verb, bare)]
    keep(
        "folder_speed",
        {
            "pictures": PICTURES,
            "bare_session_images_per_second": [round(value, 2) for value in bare],
            "infer_dir_images_per_second": [round(value, 2) for value in verb],
            "share": round(float(np.median(shares)), 3),
        },
    )


if __name__ == "__main__":
    main()
