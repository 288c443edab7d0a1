"""INT8 calibration: which tensors, their ranges, and the Q/DQ nodes made from them.

| module | offers |
| --- | --- |
| `settings` | `CalibrationSettings`, `QdqSettings` |
| `measure` | `measure_folder`, `golden_pixels`: from a folder of pictures |
| `pictures` | which pictures are taken, and how they are streamed |
| `points` | `find_layers`: the layers that can run in INT8, and the tensors to measure |
| `ranges` | `collect_ranges` |
| `ranges_file` | `Ranges`: measured ranges, saved and loaded |
| `quantise` | scales, zero points and integer weights in NumPy |
| `qdq` | `insert_qdq`: a graph with Q/DQ nodes for one backend, and a `QdqReport` |
| `biases` | `split_biases`: biases as nodes of their own, as ONNX Runtime's integer kernels need them |
| `calibrators` | ONNX Runtime's calibrators, restricted to chosen tensors and to bounded memory |
| `identity` | `model_sha256`, `DataDigest` |

Each is imported by its full name; importing this package loads neither onnx nor onnxruntime.
"""
