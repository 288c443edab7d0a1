"""INT8 calibration: which tensors, their ranges, and the Q/DQ nodes made from them.

| module | offers |
| --- | --- |
| `settings` | `CalibrationSettings`, `QdqSettings` |
| `measure` | `measure_data`, `data_sha256`, `golden_pixels`: from a folder of pictures or a video |
| `migration`, `bias_correction` | outlier channels into weights; what INT8 shifts on average into biases |
| `choices` | LayerNorm, softmax and attention in INT8, to see the damage |
| `switches`, `evaluations` | one graph whose layers switch between float and INT8; what assignments do, remembered |
| `sensitivity`, `costs`, `search` | layers by damage; what they cost; the cheapest assignment within a budget |
| `splits`, `paired`, `gate` | pictures that search and judge; paired intervals; the verdict |
| `tensors`, `differences`, `comparison`, `compare` | two models layer by layer |
| `naming`, `report/` | names that people know; the HTML page |
| `pictures` | `CalibrationPictures`: which pictures are taken, and how they are streamed |
| `duplicates` | pictures that show the same as another one |
| `likeness` | `check_pictures`: whether pictures are enough, differ, and are like those that will come |
| `points` | `find_layers`: the layers that can run in INT8, and the tensors to measure |
| `ranges` | `collect`: ranges, histograms and peaks of channels; `collect_ranges` |
| `activations` | `Activations`: running a float graph and seeing its inner tensors |
| `histograms` | histograms in bounded memory |
| `calibrators` | the methods: from a histogram to a range |
| `ranges_file` | `Ranges`: measured ranges, saved and loaded |
| `method_choice` | `choose_ranges`: the method that keeps the logits best, tried on a few images |
| `trial_images` | `TrialImages`: a few images that graphs are tried on |
| `quantise` | scales, zero points and integer weights in NumPy |
| `qdq` | `insert_qdq`: a graph with Q/DQ nodes for one backend, and a `QdqReport` |
| `biases` | `split_biases`: biases as nodes of their own, as ONNX Runtime's integer kernels need them |
| `identity` | `model_sha256`, `DataDigest` |

Each is imported by its full name; importing this package loads neither onnx nor onnxruntime.
"""
