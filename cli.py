"""The whole toolkit on the command line: the field verbs of `edge_lsla.app`, and all that leads to a bundle.

One of the two files that compose stages. Heavy modules are imported inside the verbs, so that `--help` is quick.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # while modules are imported there is nothing to tidy up

try:
    import numpy  # noqa: F401  # only looked for
    import typer
except ImportError as missing:
    sys.exit(f"error: {missing.name} is missing: this Python; run make demo once, then use .venv/bin/python")

from edge_lsla.app import app, main
from edge_lsla.console import verb
from edge_lsla.verbs import opening
from edge_lsla.verbs.build import build_engine
from edge_lsla.verbs.calibrate import calibrate
from edge_lsla.verbs.compare import compare
from edge_lsla.verbs.demo import demo, demo_engine
from edge_lsla.verbs.evaluate import evaluate
from edge_lsla.verbs.graphs import export, fuse
from edge_lsla.verbs.model import model_info, train
from plugins.verbs import plugin_app

model_app = typer.Typer(help="Look at model architectures.", no_args_is_help=True)
app.add_typer(model_app, name="model")
app.add_typer(plugin_app, name="plugin")
verb(model_app, "model info")(model_info)
verb(app, "demo")(demo)
verb(app, "train")(train)
verb(app, "export")(export)
verb(app, "fuse")(fuse)
verb(app, "calibrate")(calibrate)
verb(app, "build-engine")(build_engine)
verb(app, "evaluate")(evaluate)
verb(app, "compare")(compare)
opening.demo_engine = demo_engine

if __name__ == "__main__":
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
