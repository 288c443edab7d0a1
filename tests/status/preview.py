"""To look at the page without a device: `python tests/status/preview.py [PORT]` serves made-up data until Ctrl-C."""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from status_parts import FieldView, served

if __name__ == "__main__":
    with served(FieldView(), port=int(sys.argv[1]) if len(sys.argv) > 1 else 0) as port:
        print(f"http://127.0.0.1:{port}/")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
