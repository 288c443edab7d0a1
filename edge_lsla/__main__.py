"""The console script `edge-lsla` and `python -m edge_lsla`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Run the field verbs, or say what is missing where only the library was installed."""
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if interruptible:  # while modules are imported there is nothing to tidy up
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        import rich  # noqa: F401  # only looked for
        import typer  # noqa: F401  # only looked for
    except ImportError as error:
        print(f"error: {error.name} is missing: the command line; pip install typer rich", file=sys.stderr)
        sys.exit(3)
    from edge_lsla import app
    from edge_lsla.verbs import engine

    engine.register(app.app)
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    app.main()


if __name__ == "__main__":
    main()
