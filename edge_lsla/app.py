"""The field verbs, for the console script `edge-lsla`; `cli.py` in a checkout adds the toolkit's.

One of the two files that compose stages. Heavy modules are imported inside the verbs, so that `--help` is quick.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.atomic import atomic_path, check_output, write_text
from edge_lsla.console import progress, run, say, verb
from edge_lsla.errors import AccuracyError, ImageError, MissingComponentError, SourceError, UsageError
from edge_lsla.verbs import opening
from edge_lsla.verbs.benchmark import benchmark
from edge_lsla.verbs.bundle import bundle_app
from edge_lsla.verbs.inspect import inspect
from edge_lsla.verbs.opening import Backend, Engine, Precision, Rebuild, Threads, opened
from edge_lsla.verbs.records import records_app
from edge_lsla.verbs.run import run as run_service
from edge_lsla.verbs.update import update
from edge_lsla.watching import say_drift, watch_source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edge_lsla.pipeline.pictures import PictureResult
    from edge_lsla.predictions import Prediction
    from edge_lsla.runner.model import Model

WALKING = 6  # insects of the synthetic source, where regions are sought
HELP = "Take a trained ViT-LSLA to the field: build, verify and run bundles."
app = typer.Typer(help=HELP, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
infer = typer.Typer(help="Name what is in a picture, a folder, a video or before a camera.", no_args_is_help=True)
app.add_typer(infer, name="infer")
app.add_typer(bundle_app, name="bundle")
app.add_typer(records_app, name="records")

Top = Annotated[int, typer.Option(min=1, help="How many classes to name.")]
Output = Annotated[Optional[Path], typer.Option("--output", "-o", help="Write an annotated copy here.")]
MinConfidence = Annotated[
    Optional[float],
    typer.Option(
        min=0, max=1, help="Below it the label is 'unknown'; default: the bundle's threshold where regions are sought."
    ),
]
Regions = Annotated[
    str,
    typer.Option(
        help="Where insects are: full (the frame), motion (what moves), or grid (tiles). Not full: counts them."
    ),
]
DriftEvery = Annotated[
    Optional[int],
    typer.Option("--drift", min=1, help="Count on every N-th picture whether values leave their INT8 ranges."),
]


@verb(infer, "infer image")
def infer_image(
    images: Annotated[list[Path], typer.Argument(help="Pictures, in any common format.")],
    engine: Engine = None,
    output: Output = None,
    top: Top = 3,
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Name what is in one or more pictures; with -o, write an annotated picture (a contact sheet for several)."""
    from edge_lsla.preprocessing import open_picture

    refuse_same(images, [output])
    predictions, shown = [], []
    with opened(engine, backend, precision, threads, rebuild=rebuild) as model:
        pictures = [open_picture(path) for path in images]  # all are read before any is answered
        for path, picture in zip(images, pictures):
            found = model(picture, top)
            predictions.append({"path": str(path), "predictions": [p.to_dict() for p in found]})
            names = ", ".join(f"{p.label} {p.probability:.1%}" for p in found)
            say().print(f"{path}: {names}")
            shown.append((picture, found))
    if output is not None:
        import numpy as np

        from edge_lsla.sinks.annotate import annotate, contact_sheet

        arrays = [(np.asarray(picture), found) for picture, found in shown]
        if len(arrays) == 1:
            write_picture(output, annotate(arrays[0][0], arrays[0][1], note=None))
        else:
            write_picture(output, contact_sheet([(a, f"{f[0].label} {f[0].probability:.0%}", None) for a, f in arrays]))
    return {"predictions": predictions, "output": str(output) if output else None}


@verb(infer, "infer dir")
def infer_dir(
    folder: Annotated[Path, typer.Argument(help="A folder; pictures below it are taken too.")],
    engine: Engine = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="Write a CSV table here.")] = None,
    top: Top = 1,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Pictures classified at once.")] = 1,
    drift: DriftEvery = None,
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Name what is in every picture of a folder; pictures that cannot be read are counted, the rest goes on."""
    import time

    from edge_lsla.pipeline.pictures import PicturesSettings, classify_pictures
    from edge_lsla.preprocessing import find_pictures, to_tensor

    paths = find_pictures(folder)
    refuse_same(paths, [output])
    if not paths:
        raise ImageError("no picture in the folder", folder, "the files must end like pictures, such as .jpg or .png")
    results: list[PictureResult] = []
    counts: dict[str, int] = {}
    with (
        opened(engine, backend, precision, threads, rebuild=rebuild, batch=batch) as model,
        progress("classifying") as step,
    ):
        counter = model.drift_counter(drift) if drift else None

        def classify(images: NDArray[np.float32]) -> tuple[tuple[Prediction, ...], ...]:
            if counter is not None:
                counter.look(list(images), lambda image: image)
            return model.classify(images, top)

        started = time.perf_counter()
        for result in classify_pictures(
            paths,
            lambda path: to_tensor(path, model.preprocessing),
            classify,
            PicturesSettings(batch_size=batch),
        ):
            results.append(result)
            step(len(results), len(paths), "")
            name = str(result.path.relative_to(folder))
            if result.error is not None:
                say().print(f"{name}: skipped, {result.error}", style="yellow")
                continue
            counts[result.predictions[0].label] = counts.get(result.predictions[0].label, 0) + 1
            names = ", ".join(f"{p.label} {p.probability:.1%}" for p in result.predictions)
            say().print(f"{name}: {names}")
        seconds = time.perf_counter() - started
    skipped = sum(result.error is not None for result in results)
    say().print(f"{len(results) - skipped} pictures, {skipped} skipped, {len(results) / seconds:.1f} pictures/s")
    if skipped == len(results):
        raise ImageError("no picture of the folder can be read", folder, "see the lines above")
    if output is not None:
        _write_table(output, results)
    return {
        "predictions": [result.to_dict() for result in results],
        "images": len(results) - skipped,
        "skipped": skipped,
        "counts": counts,
        "images_per_second": round(len(results) / seconds, 2),
        **say_drift(counter),
    }


@verb(infer, "infer video")
def infer_video(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    engine: Engine = None,
    output: Annotated[Optional[Path], typer.Option("--output", "-o", help="Write an annotated video (.mp4).")] = None,
    events: Annotated[Optional[Path], typer.Option(help="Write one JSON line a frame.")] = None,
    min_confidence: MinConfidence = None,
    regions: Regions = "full",
    batch: Annotated[int, typer.Option(min=1, help="Frames classified at once.")] = 1,
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Name what is in every frame of a video file."""
    from edge_lsla.pipeline.settings import SourceSettings

    if not video.exists():
        raise SourceError("no such video", video, "check the path")
    refuse_same([video, *([engine] if engine else [])], [output, events])
    with opened(engine, backend, precision, threads, rebuild=rebuild, batch=batch) as model:
        return watch_source(
            model,
            str(video),
            SourceSettings(),
            save=output,
            events=events,
            min_confidence=min_confidence,
            regions=regions,
            batch=batch,
            whole=True,
        )


@verb(infer, "infer camera")
def infer_camera(
    source: Annotated[
        str, typer.Argument(help="A V4L2 index or device, an rtsp:// or http:// URL, a file, or 'synthetic'.")
    ] = "0",
    engine: Engine = None,
    save: Annotated[Optional[Path], typer.Option(help="Write an annotated video (.mp4).")] = None,
    events: Annotated[Optional[Path], typer.Option(help="Append one JSON line a frame.")] = None,
    window: Annotated[bool, typer.Option(help="Show a window where there is a display.")] = True,
    size: Annotated[Optional[str], typer.Option(help="Ask the camera for this size, such as 1280x720.")] = None,
    rate: Annotated[Optional[float], typer.Option(help="Ask the camera for this frame rate.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds without a frame after which a stream counts as lost.")] = 5.0,
    max_frames: Annotated[Optional[int], typer.Option(help="Stop after so many frames.")] = None,
    max_seconds: Annotated[Optional[float], typer.Option(help="Stop after so long.")] = None,
    drift: DriftEvery = None,
    reservoir: Annotated[
        Optional[Path], typer.Option(help="Keep a random sample of all frames in this folder, for calibrate --update.")
    ] = None,
    reservoir_size: Annotated[int, typer.Option(min=1, help="Pictures in the sample.")] = 256,
    min_confidence: MinConfidence = None,
    regions: Regions = "full",
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Name what is before a camera, always on its newest frame, until Ctrl-C."""
    from edge_lsla.pipeline.reservoir import Reservoir, ReservoirSettings
    from edge_lsla.pipeline.settings import SourceSettings

    refuse_same([Path(source), *([engine] if engine else [])], [save, events])
    kept = [Reservoir(reservoir, ReservoirSettings(reservoir_size))] if reservoir is not None else []
    walking = WALKING if source == "synthetic" and regions != "full" else 0
    settings = SourceSettings(
        size=_size(size), rate=rate, read_timeout=timeout, pictures=_synthetic_pictures(source), insects=walking
    )
    with opened(engine, backend, precision, threads, rebuild=rebuild, spinning=False) as model:
        return watch_source(
            model,
            source,
            settings,
            save=save,
            events=events,
            min_confidence=min_confidence,
            regions=regions,
            window=window,
            max_frames=max_frames,
            max_seconds=max_seconds,
            drift=drift,
            also=kept,
        )


@verb(app, "selftest")
def selftest(
    engine: Annotated[Optional[Path], typer.Argument(help="A bundle; default: the demo bundle.")] = None,
    backend: Backend = "auto",
    precision: Precision = None,
    threads: Threads = None,
    rebuild: Rebuild = True,
) -> dict[str, Any]:
    """Run a bundle's golden set and check that this device gives the recorded numbers."""
    with opened(engine, backend, precision, threads, rebuild=rebuild) as model:
        test = model.selftest()
        where = model.artifact.name
    figures = f"largest difference {test.max_abs_difference:.3g}, allowed {test.tolerance:.3g}, {test.images} images"
    if not test.passed:
        raise AccuracyError(
            f"self-test failed, {figures}", where, "use another precision, or rebuild the bundle on this device"
        )
    say().print(f"self-test passed: {figures}")
    return {
        "images": test.images,
        "max_abs_difference": test.max_abs_difference,
        "tolerance": test.tolerance,
        "artifact": where,
    }


verb(app, "benchmark")(benchmark)
verb(app, "inspect")(inspect)
verb(app, "run")(run_service)
verb(app, "update")(update)


@verb(app, "doctor")
def doctor() -> dict[str, Any]:
    """Check what this machine has, and say what to do about what it lacks."""
    from edge_lsla.doctor import examine
    from edge_lsla.tables import checks

    found = examine()
    say().print(checks(found))
    broken = [check for check in found if check.needed and not check.found]
    if broken:
        raise MissingComponentError(f"{broken[0].name} is missing", "this machine", broken[0].remedy)
    return {"checks": [check.to_dict() for check in found]}


def refuse_same(inputs: Sequence[Path], outputs: Sequence[Path | None]) -> None:
    """Refuse outputs that cannot be written, or that would overwrite what is read."""
    for output in outputs:
        if output is None:
            continue
        check_output(output)
        if output.exists() and any(one.exists() and one.samefile(output) for one in inputs):
            raise UsageError("the output would overwrite what is read", output, "choose another name")


def classify_all(model: Model, paths: Sequence[Path], batch: int = 1) -> list[tuple[Prediction, ...]]:
    """Return the five likeliest classes of each picture, none where it cannot be read."""
    from edge_lsla.pipeline.pictures import PicturesSettings, classify_pictures
    from edge_lsla.preprocessing import to_tensor

    answers: list[tuple[Prediction, ...]] = []
    settings = PicturesSettings(batch_size=batch)
    with progress("evaluating") as step:
        for result in classify_pictures(
            paths, lambda path: to_tensor(path, model.preprocessing), model.classify, settings
        ):
            answers.append(result.predictions)
            step(len(answers), len(paths), "")
    return answers


def write_picture(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] as JPEG, PNG or WebP, by the name's ending, atomically."""
    from PIL import Image

    if path.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
        raise UsageError("unknown picture format", path, "let the name end in .jpg, .png or .webp")
    with atomic_path(path) as temporary:
        try:
            Image.fromarray(pixels).save(temporary, quality=92)
        except ValueError as error:  # WebP and JPEG have largest sizes of their own
            raise UsageError("picture does not fit the format", path, f"choose .png ({error})") from error
    say().print(f"written: {path}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch("([0-9]{1,5})[xX]([0-9]{1,5})", text)
    if found is None:
        raise UsageError("not a size", f"--size {text}", "write it like 1280x720")
    return int(found[1]), int(found[2])


def _synthetic_pictures(source: str) -> tuple[Path, ...]:
    samples = Path(__file__).resolve().parent.parent / "demo" / "samples"
    return tuple(sorted(samples.glob("*.jpg"))) if source == "synthetic" else ()


def _write_table(path: Path, results: list[Any]) -> None:
    import csv
    import io

    table = io.StringIO()
    writer = csv.writer(table)
    writer.writerow(["path", "rank", "label", "probability", "error"])
    for result in results:
        if result.error is not None:
            writer.writerow([result.path, "", "", "", result.error])
        for place, prediction in enumerate(result.predictions, start=1):
            writer.writerow([result.path, place, prediction.label, f"{prediction.probability:.6f}", ""])
    write_text(path, table.getvalue())
    say().print(f"written: {path}")


def main() -> None:
    """Run the console script."""
    run(app, "" if opening.demo_engine else "; training and building are in a checkout: python cli.py")
