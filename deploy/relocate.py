"""Gives an environment of Python another place and interpreter: relocate.py ENVIRONMENT PLACE PYTHON.

It lies in the folder ENVIRONMENT of this machine and will lie in PLACE of another, whose PYTHON it will use; with its
own folder as PLACE, and this machine's PYTHON, it can be used here again. Both are of one minor version.
"""

import re
import sys
from pathlib import Path


def main() -> None:
    """Do what the module says."""
    environment, place, python = sys.argv[1:]
    folder = Path(environment)
    whole = re.compile(re.escape(environment.encode()) + rb"(?![\w.-])")
    for script in sorted((folder / "bin").iterdir()):
        if not script.is_symlink() and whole.search(content := script.read_bytes()):
            script.write_bytes(whole.sub(lambda _: place.encode(), content))  # its mode stays
    (folder / "bin" / "python").unlink(missing_ok=True)
    (folder / "bin" / "python").symlink_to(python)
    for name in ("python3", f"python3.{sys.version_info.minor}"):
        (folder / "bin" / name).unlink(missing_ok=True)
        (folder / "bin" / name).symlink_to("python")
    values = {"home": str(Path(python).parent), "executable": python, "command": f"{python} -m venv {place}"}
    lines = []
    for line in (folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
        key = line.partition("=")[0].strip()
        lines.append(f"{key} = {values[key]}" if key in values else line)
    (folder / "pyvenv.cfg").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
