"""From a graph of small operators to one `edge_lsla::LslaAttention` node an attention; the verb is `fuse.fuse`."""
