"""The TensorRT plugin: Triton kernels, their ahead-of-time build, the C++ library around them, and its verbs."""
