"""Plans that a build has finished, each under a key of everything that decides it, so that a killed run goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

from edge_lsla.atomic import atomic_path, write_text
from edge_lsla.build.tensorrt.facts import EngineFacts
from edge_lsla.build.tensorrt.memory import workspace_bytes
from edge_lsla.build.tensorrt.settings import BuildSettings

FORMAT = 1
WORK = "building-"
LEFTOVER_SECONDS = 24 * 3600.0


def plan_key(onnx_sha256: str, settings: BuildSettings, version: str) -> str:
    """Return the SHA-256 of all that decides a plan: graph, settings, TensorRT, the plugin's bytes, the device."""
    plugin = settings.plugin_library
    decides = {
        "format": FORMAT,
        "onnx": onnx_sha256,
        "backend": settings.backend,
        "version": version,
        "targets": settings.targets,
        "profiles": settings.profiles,
        "workspace": workspace_bytes(settings),
        "level": settings.optimisation_level,
        "plugin": hashlib.sha256(plugin.read_bytes()).hexdigest() if plugin else "",
        "device": settings.device,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class FinishedPlans:
    """A folder of finished plans: KEY.plan, and KEY.json with its facts.

    The plans are native code: the folder must be writable by its owner only; it is the caller's to choose and empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, key: str) -> tuple[bytes, EngineFacts] | None:
        """Return a plan and its facts; None if it was not finished, or is not what was written."""
        try:
            facts = json.loads((self.folder / f"{key}.json").read_text(encoding="utf-8"))
            data = (self.folder / f"{key}.plan").read_bytes()
            whole = facts["plan_sha256"] == hashlib.sha256(data).hexdigest()
            return (data, EngineFacts.from_json(facts)) if whole else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, key: str, plan: Path, facts: dict[str, Any]) -> None:
        """Move a plan in, which lies on the same disk; the facts come last, and without them there is no plan."""
        with atomic_path(self.folder / f"{key}.plan") as temporary:
            plan.replace(temporary)
        write_text(self.folder / f"{key}.json", json.dumps(facts, indent=1) + "\n")

    def sweep(self) -> None:
        """Remove the work folders of builds that a power cut ended."""
        for folder in self.folder.glob(f"{WORK}*"):
            with contextlib.suppress(OSError):
                if time.time() - folder.stat().st_mtime > LEFTOVER_SECONDS:
                    shutil.rmtree(folder, ignore_errors=True)
