"""Names of layers that people know."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from calibration.migration import migrate_scales
from calibration.naming import module_names
from calibration.points import find_layers
from calibration.ranges import collect
from calibration.settings import CalibrationSettings


def test_layers_keep_their_names_when_scales_move_into_them(
    fused: onnx.ModelProto, images: NDArray[np.float32]
) -> None:
    names = module_names(fused)
    assert {"stem.conv1", "stages.0.0.expand", "head"} <= set(names.values())
    moved, _ = migrate_scales(fused, collect(fused, [images], CalibrationSettings()).peaks)
    renamed = {layer.name for layer in find_layers(moved) if layer.weight.endswith("_migrated")}
    assert len(renamed) > 2
    assert module_names(moved) == names
