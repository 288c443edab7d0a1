"""The Triton kernels of the plugin, a file for each operator; `plugins.variants` lists what is compiled of them."""
