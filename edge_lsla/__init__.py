"""edge-lsla: a trained ViT-LSLA, from PyTorch to a verified bundle that runs in the field.

from edge_lsla import load

with load("pests.lsla") as model:
    for prediction in model("leaf.jpg"):
        print(prediction.label, prediction.probability)
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from edge_lsla.errors import EdgeLslaError

if TYPE_CHECKING:
    from edge_lsla.predictions import Prediction as Prediction
    from edge_lsla.preprocessing import Preprocessing as Preprocessing
    from edge_lsla.runner.model import Model as Model
    from edge_lsla.runner.model import load as load

__version__ = "0.1.0"

# A device in the field reports to nobody; ONNX Runtime's wheels do unless told so before they are imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["EdgeLslaError", "Model", "Prediction", "Preprocessing", "__version__", "load"]

_HOMES = {
    "Model": "edge_lsla.runner.model",
    "Prediction": "edge_lsla.predictions",
    "Preprocessing": "edge_lsla.preprocessing",
    "load": "edge_lsla.runner.model",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'edge_lsla' has no attribute {name!r}")
    import importlib  # late, so that `import edge_lsla` loads neither NumPy nor Pillow

    return getattr(importlib.import_module(_HOMES[name]), name)
