"""The proof on a CUDA GPU: `python -m plugins.gpu.check`; it needs torch and, where nothing was built yet, triton."""
