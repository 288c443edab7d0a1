"""From a PyTorch module to an ONNX file whose numbers are proved; the verb is `onnx_export.export_onnx`."""
