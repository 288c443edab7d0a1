"""From a typed ONNX graph to artifacts, a file for each backend; imported by full name."""
