"""Run with a TensorRT runtime on PYTHONPATH: load the plugin library into NVIDIA's own registry and create plugins.

Prints one JSON object. Arguments: the module of the runtime, the library.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np

OPERATORS = ("LslaAttention", "LslaResidualAttention", "QLslaAttention")


def main(module: str, library: str) -> None:
    trt: Any = importlib.import_module(module)
    registry = trt.get_plugin_registry()
    handle = registry.load_library(library)
    found: dict[str, Any] = {"version": trt.__version__, "loaded": handle is not None, "operators": {}}
    for name in OPERATORS if handle is not None else ():
        creator = registry.get_creator(name, "1", "")
        if creator is None:
            continue
        found["operators"][name] = {
            "listed": sum(one.name == name for one in registry.all_creators),
            "fields": [field.name for field in creator.field_names],
            "good": create(trt, creator, num_heads=3, window=7),
            "missing": create(trt, creator, window=7),
            "out_of_range": create(trt, creator, num_heads=3, window=17),
        }
    if handle is not None:
        registry.deregister_library(handle)
        found["after_deregistering"] = sum(one.name in OPERATORS for one in registry.all_creators)
    print(json.dumps(found))


def create(trt: Any, creator: Any, **integers: int) -> Any:
    kept = [np.array([value], np.int32) for value in integers.values()]  # TensorRT keeps pointers, not copies
    fields = [trt.PluginField(name, value, trt.PluginFieldType.INT32) for name, value in zip(integers, kept)]
    if creator.name == "LslaResidualAttention":
        kept.append(np.array([1e-5], np.float32))
        fields.append(trt.PluginField("epsilon", kept[-1], trt.PluginFieldType.FLOAT32))
    plugin = creator.create_plugin("probe", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD)
    if plugin is None:
        return None
    core = plugin.get_capability_interface(trt.PluginCapabilityType.CORE)
    return [core.plugin_name, core.plugin_version, core.plugin_namespace]


if __name__ == "__main__":
    main(*sys.argv[1:])
