"""TensorRT for RTX under the name of TensorRT, whose builder needs a GPU to start; see build_parts.STAND_IN."""

from tensorrt_rtx import *  # noqa: F403

__version__ = "10.13.3.9"
