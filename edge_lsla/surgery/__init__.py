"""From a graph of small operators to one node of domain `edge_lsla` an attention.

| verb | makes |
| --- | --- |
| `fuse.fuse` | `LslaAttention`; at level "residual" `LslaResidualAttention` where LayerNorm and Add are around it |
| `fuse.fuse_quantised` | `QLslaAttention`, from attention between symmetric int8 Q/DQ |
| `function.drop_function` | what TensorRT parses: the nodes without the functions that say what they mean |
"""
