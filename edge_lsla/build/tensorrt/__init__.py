"""The TensorRT builder, both flavours; imported by full name: `builder.build_engine` is the way in.

| module | what it holds |
| --- | --- |
| `settings` | what a caller may ask for |
| `builder` | `build_engine`, `describe_runtime`: the caller's process, which never loads TensorRT |
| `worker` | the process that does |
| `network` | parse, configure, compile, and what the parsed network says of its types |
| `memory` | the forecast, and what is free |
| `outline` | an ONNX file's inputs, outputs and operators, read without the onnx package |
| `nodes`, `weights` | its nodes with what they read, and its weights, for `inspect` |
| `protobuf` | the encoding that these read |
"""
