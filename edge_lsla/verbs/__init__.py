"""Verbs of the command line, a file each; `edge_lsla.app` and `cli.py` register them."""
