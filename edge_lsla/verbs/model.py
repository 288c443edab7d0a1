"""The verbs `model info` and `train`: what needs PyTorch and no bundle."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.console import progress, say
from edge_lsla.errors import DatasetError, UsageError


def model_info(
    name: Annotated[str, typer.Argument(help="vit_lsla_t, vit_lsla_demo, a configuration file, or module:factory.")],
    classes: Annotated[Optional[int], typer.Option(min=1, help="Count with so many classes.")] = None,
) -> dict[str, Any]:
    """Print parameters, multiply-adds and a table of the stages, beside Swin-T's."""
    from edge_lsla.model.checkpoint import call_factory
    from edge_lsla.model.config import find_config
    from edge_lsla.model.profile import count
    from edge_lsla.model.tables import comparison, stage_rows, stages
    from edge_lsla.model.vit_lsla import VitLsla

    if ":" in name:
        module = call_factory(name)
        size = int(getattr(module, "image_size", 224))
        whole = count(module, size)[""]
        say().print(f"{name}: {whole.parameters:,} parameters, {whole.multiply_adds:,} multiply-adds at {size} px")
        return {"model": name, "parameters": whole.parameters, "multiply_adds": whole.multiply_adds}
    config = find_config(name)
    config = config.with_(classes=classes) if classes else config
    counts = count(VitLsla(config), config.image_size)
    rows = stage_rows(config, counts)
    say().print(stages(config, rows))
    say().print(comparison(config, counts[""]))
    return {
        "model": config.name,
        "classes": config.classes,
        "parameters": counts[""].parameters,
        "multiply_adds": counts[""].multiply_adds,
        "stages": [dataclasses.asdict(row) for row in rows],
    }


def train(
    data: Annotated[Path, typer.Argument(help="IP102 layout, or a folder per class below train/ and val/.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run; a run found there goes on.")],
    model: Annotated[
        str, typer.Option("--model", help="A shipped model or a configuration file (.json).")
    ] = "vit_lsla_t",
    recipe: Annotated[str, typer.Option(help="ip102 (never run to its end here) or demo.")] = "ip102",
    settings: Annotated[
        Optional[list[str]], typer.Option("--set", help="Change the recipe: NAME=VALUE, such as epochs=10.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> dict[str, Any]:
    """Train a ViT-LSLA; run it again to go on where it stopped."""
    import torch

    from edge_lsla.data.folders import load_split
    from edge_lsla.model.config import find_config
    from edge_lsla.pipeline.signals import stop_on_signals
    from edge_lsla.preprocessing import Preprocessing
    from edge_lsla.training.loop import train as run
    from edge_lsla.training.settings import RECIPES, changed

    if recipe not in RECIPES:
        raise UsageError(f"no such recipe {recipe!r}", "--recipe", f"use one of {', '.join(RECIPES)}")
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no such device {device!r}", "--device", "use auto, cpu or cuda")
    chosen = changed(RECIPES[recipe], settings or [])
    training, validation = load_split(data, "train"), load_split(data, "val")
    if not training.divided:
        raise DatasetError(
            "data set is not divided, so nothing would be left to validate on",
            data,
            "put the class folders below train/ and val/",
        )
    config = find_config(model).with_(classes=len(training.classes))
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    output.mkdir(parents=True, exist_ok=True)
    say().print(
        f"{config.name}: {len(training)} pictures, {config.classes} classes, {chosen.epochs} epochs on {device}"
    )
    say().print(f"going on from {output / 'state.pt'}" if (output / "state.pt").exists() else f"new run in {output}")
    with stop_on_signals() as stop, progress("training") as step:
        result = run(
            config,
            training,
            validation,
            Preprocessing(config.image_size),
            chosen,
            output,
            device=device,
            progress=step,
            report=lambda row: say().print(
                f"epoch {row['epoch']}: loss {row['loss']:.3f}, top-1 {row['top1']:.2f} %, {row['seconds']:.0f} s"
            ),
            stop=stop.is_set,
        )
    if not result["finished"]:
        say().print(f"stopped at step {result['steps']}; the same command goes on from there")
    else:
        say().print(f"best: {output / 'best.safetensors'}, validation top-1 {result['best_top1']:.2f} %")
    return {"output": str(output), **result}
