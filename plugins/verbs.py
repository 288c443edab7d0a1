"""The verbs `plugin build` and `plugin info`. Compilers and ELF readers are imported where they are used."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from edge_lsla.atomic import atomic_path, check_output
from edge_lsla.console import progress, say, verb
from edge_lsla.errors import MissingComponentError, UsageError

if TYPE_CHECKING:
    from plugins.variants import Variant

plugin_app = typer.Typer(help="Build the TensorRT plugin, and look into it.", no_args_is_help=True)

OUTPUT = Path(__file__).resolve().parents[1] / "build" / "plugin"
HEADER = "NvInferRuntime.h"  # as in library.py, for --help
CUDA_CAPABILITY_MAJOR, CUDA_CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…


@verb(plugin_app, "plugin build")
def plugin_build(
    arch: Annotated[
        Optional[str],
        typer.Option(help="86,87,… or all; default: this machine's GPU; all without one or for another machine."),
    ] = None,
    variants: Annotated[
        Optional[str],
        typer.Option(help="Kernels to compile beside the shipped ones: attention-w10-d16-fp16,…"),
    ] = None,
    only: Annotated[Optional[str], typer.Option(help="Kernels to compile instead of the shipped ones.")] = None,
    package: Annotated[
        Optional[Path],
        typer.Option(help="Write the compiled kernels to this .tar.gz and build no library."),
    ] = None,
    kernels: Annotated[
        Optional[Path],
        typer.Option(help="Compile nothing: build the library from a file that --package wrote."),
    ] = None,
    tensorrt_include: Annotated[
        Optional[Path], typer.Option(help=f"Folder with TensorRT's {HEADER}; default: the usual places.")
    ] = None,
    cuda_include: Annotated[
        Optional[Path], typer.Option(help="Folder with cuda_runtime_api.h; default: the usual places.")
    ] = None,
    target: Annotated[
        Optional[str], typer.Option(help="Machine that the library is for: x86_64 or aarch64; default: this one.")
    ] = None,
    toolchain: Annotated[
        Optional[Path], typer.Option(help="CMake toolchain file, for a cross build with other compilers.")
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The build folder.")] = OUTPUT,
    jobs: Annotated[Optional[int], typer.Option(min=1, help="Compilers at a time; default: all cores.")] = None,
) -> dict[str, Any]:
    """Compile the kernels for GPUs, which need not be there, and build the plugin library around them."""
    from plugins.folder import check_folder

    if kernels and (arch or variants or only or package):
        raise UsageError("--kernels compiles nothing", kernels, "leave --arch, --variants, --only and --package out")
    if variants and only:
        raise UsageError("--variants adds, --only replaces", "--variants", "give one of them")
    if package:
        check_output(package)
    if tensorrt_include and not (tensorrt_include / HEADER).is_file():
        raise UsageError(f"there is no {HEADER} in the folder", tensorrt_include, "correct --tensorrt-include")
    cross = _toolchain(target, toolchain)
    check_folder(output)
    if not package:
        _check_paths(output, cross, (tensorrt_include, cuda_include))
    if kernels:
        facts = _unpack(kernels, output)
    else:
        elsewhere = package is not None or cross is not None
        facts = _compile(arch, variants, only, output, jobs, elsewhere=elsewhere, package=package)
    if package:
        say().print(f"{package}: {package.stat().st_size / 1e6:.2f} MB, for `plugin build --kernels`")
        return facts
    library = _build_library(output, tensorrt_include, cuda_include, cross, facts)
    say().print(f"{library}: {library.stat().st_size / 1e6:.2f} MB")
    return {**facts, "library": str(library), "package": None}


@verb(plugin_app, "plugin info")
def plugin_info(
    library: Annotated[
        Optional[Path], typer.Argument(help="A libedge_lsla_plugin.so; default: the one that this machine would use.")
    ] = None,
) -> dict[str, Any]:
    """Print what is in a plugin library: kernels, registers, spills, architectures, digests. It is not loaded."""
    from plugins.info import find_library, read_library, table

    found = read_library(library or find_library())
    say().print(table(found))
    return found.to_dict()


def _check_paths(output: Path, cross: tuple[str, Path] | None, others: tuple[Path | None, ...]) -> None:
    """Refuse, before any work, what CMake would fail on after it."""
    from plugins.folder import CMAKE, OWN
    from plugins.library import check_environment, check_path

    name, toolchain = cross or ("", None)
    for path in filter(None, (output, toolchain, *others)):
        check_path(path)
    if name in OWN or name.startswith(f"{CMAKE}-"):
        raise UsageError(f"the library's folder would be {name!r}, a name of the build's own", toolchain, "rename it")
    check_environment()


def _compile(
    arch: str | None,
    added: str | None,
    only: str | None,
    output: Path,
    jobs: int | None,
    *,
    elsewhere: bool,
    package: Path | None,
) -> dict[str, Any]:
    """Compile for named architectures, or for those of where it will run; into the build folder, or into a package."""
    from plugins.build import BuildSettings, build_kernels, build_package

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = BuildSettings(_variants(added, only), _architectures(arch, elsewhere), jobs or cores)
    packed: dict[str, Any] = {}
    with progress("compiling") as step:
        report = functools.partial(say().print, style="yellow")
        if package:
            built, sha256 = build_package(settings, output, package, step, report)
            packed = {"library": None, "package": str(package), "package_sha256": sha256}
        else:
            built = build_kernels(settings, output, step, report)
    size = sum(entry.bytes for entry in built.index.entries)
    say().print(
        f"{package or built.folder}: {len(built.index.entries)} kernels, {size / 1e6:.2f} MB, "
        f"{built.compiled} compiled and {built.cached} from the cache in {built.seconds:.0f} s"
    )
    return {
        "output": str(output),
        "architectures": list(built.index.architectures),
        "kernels": len(built.index.entries),
        "bytes": size,
        "index_digest": built.digest,
        "compiled": built.compiled,
        "cached": built.cached,
        "seconds": round(built.seconds, 2),
        "spilling": [entry.file for entry in built.index.entries if entry.spills],
        **packed,
    }


def _unpack(package: Path, output: Path) -> dict[str, Any]:
    from plugins.folder import KERNELS, exclusive, put_kernels
    from plugins.index import parse
    from plugins.package import unpack

    raw, files = unpack(package)
    index = parse(raw, package)
    with exclusive(output) as work:
        digest = put_kernels(output / KERNELS, raw, files, work)
    architectures = ", ".join(f"sm_{arch}" for arch in index.architectures)
    say().print(f"{output / KERNELS}: {len(files)} kernels for {architectures}, from {package}")
    return {
        "output": str(output),
        "architectures": list(index.architectures),
        "kernels": len(files),
        "bytes": sum(map(len, files.values())),
        "index_digest": digest,
    }


def _build_library(
    output: Path, tensorrt: Path | None, cuda: Path | None, cross: tuple[str, Path] | None, facts: dict[str, Any]
) -> Path:
    """Build the library around the kernels; return its path, which for another machine is a folder further down."""
    from edge_lsla.plugin_library import LIBRARY
    from plugins.folder import CMAKE, KERNELS, exclusive
    from plugins.library import REGISTER, build_library

    name, toolchain = cross or ("", None)
    place = output / name / LIBRARY
    work = output / (f"{CMAKE}-{name}" if name else CMAKE)
    with exclusive(output), progress("building the library"):
        # CMake keeps what it once found, and does not notice a moved checkout or another toolchain. It takes seconds.
        shutil.rmtree(work, ignore_errors=True)
        try:
            built = build_library(
                output / KERNELS, work, tensorrt_include=tensorrt, cuda_include=cuda, toolchain=toolchain
            )
        except MissingComponentError as error:
            remedy = (error.remedy or "").replace("-DTENSORRT_INCLUDE_DIR=", "--tensorrt-include ")
            remedy = remedy.replace("-DCUDA_INCLUDE_DIR=", "--cuda-include ")
            done = f"the kernels are done, in {output / KERNELS}"
            raise MissingComponentError(error.what, error.where, f"{remedy}; {done}", facts) from error
        place.parent.mkdir(exist_ok=True)
        for file in (REGISTER, LIBRARY):
            with atomic_path(place.with_name(file)) as temporary:
                shutil.copyfile(built.with_name(file), temporary)
                temporary.chmod(0o755)
    return place


def _variants(added: str | None, only: str | None) -> tuple[Variant, ...]:
    from plugins.variants import parse, shipped

    named = tuple(parse(name.strip()) for name in (added or only or "").split(",") if name.strip())
    return named if only is not None else tuple(dict.fromkeys((*shipped(), *named)))


def _architectures(text: str | None, elsewhere: bool) -> tuple[int, ...]:
    """Read --arch, or choose: this machine's GPUs; all shipped ones where there is none, or it is for elsewhere."""
    from plugins.ptxas import NEEDS, SHIPPED

    every = ", ".join(f"sm_{arch}" for arch in SHIPPED)
    if text is None and elsewhere:
        say().print(f"for {every}: this is for other machines, of which --arch can name some")
        return SHIPPED
    if text is None:
        local = local_architectures()
        known = tuple(arch for arch in local if arch in NEEDS)
        if known:
            say().print(f"for {', '.join(f'sm_{arch}' for arch in known)}, this machine's; --arch all takes {every}")
            return known
        other = ", ".join(f"sm_{arch}" for arch in local)
        why = f"kernels of their own are not made for {other}" if local else "this machine has no GPU with a driver"
        say().print(f"for {every}: {why}")
        return SHIPPED
    if text.strip() == "all":
        return SHIPPED
    names = [name.strip().removeprefix("sm").removeprefix("_").replace(".", "") for name in text.split(",")]
    for name in names:
        if not name.isdecimal() or int(name) not in NEEDS:
            known_ones = ", ".join(map(str, NEEDS))
            raise UsageError(f"no such architecture {name!r}", "--arch", f"give some of {known_ones}, or all")
    return tuple(dict.fromkeys(map(int, names)))


def local_architectures() -> tuple[int, ...]:
    """Return the compute capabilities of this machine's GPUs, 87 for 8.7; empty without a driver or a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return ()
    count = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
        return ()
    found = set()
    for number in range(count.value):
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        if driver.cuDeviceGet(ctypes.byref(device), number):
            continue
        failed = driver.cuDeviceGetAttribute(ctypes.byref(major), CUDA_CAPABILITY_MAJOR, device)
        if not failed and not driver.cuDeviceGetAttribute(ctypes.byref(minor), CUDA_CAPABILITY_MINOR, device):
            found.add(10 * major.value + minor.value)
    return tuple(sorted(found))


def _toolchain(target: str | None, toolchain: Path | None) -> tuple[str, Path] | None:
    """Return the name and CMake toolchain file of a cross build, or None where this machine's compiler does."""
    from plugins.library import TOOLCHAIN_AARCH64

    if target not in (None, "x86_64", "aarch64"):
        raise UsageError(f"no such machine {target!r}", "--target", "give x86_64 or aarch64")
    if toolchain is not None:
        if not toolchain.is_file():
            raise UsageError("no such file", toolchain, "correct --toolchain")
        return target or toolchain.stem, toolchain
    if target in (None, platform.machine()):
        return None
    if target == "aarch64":
        return target, TOOLCHAIN_AARCH64
    raise UsageError(f"no toolchain for {target} is shipped", "--target", "give its CMake file with --toolchain")
