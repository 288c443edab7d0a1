"""Files that systemd hands to the service alone: what of them can be looked at from outside the unit."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from edge_lsla.errors import UsageError

CREDENTIALS = Path("/run/credentials")  # below it a folder for each unit
UNITS = tuple(map(Path, ("/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system")))
KINDS = ("LoadCredential", "LoadCredentialEncrypted", "SetCredential", "SetCredentialEncrypted")
DRAWN = "status-token"  # by edge-lsla-token.service, before the service's first start


class Credentials:
    """Finds the files of which the unit's credentials are made.

    Args:
        folders: where units are, the one that counts first.
        credentials: where systemd puts credentials.

    Attributes:
        unseen: paths that were asked for and cannot be looked at here.
    """

    def __init__(self, folders: tuple[Path, ...] = UNITS, credentials: Path = CREDENTIALS) -> None:
        self._folders, self._credentials = folders, credentials
        self.unseen: list[Path] = []

    def see(self, path: Path | None) -> Path | None:
        """Return the file to look at for this one: itself, or what a credential is made of; None where it is unseen.

        Raises:
            UsageError: the unit makes no such credential, or of a file that is not there.
        """
        if path is None or not path.is_relative_to(self._credentials) or self._inside(path):
            return path
        unit, name = path.parent.name, path.name
        sources = self._sources(unit)
        if sources is not None and name not in sources:
            remedy = f"add LoadCredential={name}:FILE to it: systemctl edit {unit}"
            raise UsageError(f"{unit} hands over no such credential", path, remedy)
        source = (sources or {}).get(name)
        try:
            if source is not None and _filled(source):
                return source
        except FileNotFoundError:
            raise UsageError(f"the file that {unit} hands over as {name} is missing", source, "make it") from None
        except OSError:  # only root may look there, but the service may be running, and this be its user
            if os.access(path, os.R_OK):
                return path
        self.unseen.append(path)
        return None

    def _inside(self, path: Path) -> bool:
        return os.environ.get("CREDENTIALS_DIRECTORY") == str(path.parent)

    def _sources(self, unit: str) -> dict[str, Path | None] | None:
        """Return each credential's name with its file, None for one that is not made of a file we can name.

        None where the unit is not installed here, or takes credentials by patterns.
        """
        found: dict[str, Path | None] = {}
        files = list(self._files(unit))
        for file in files:
            try:
                lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                return None
            for line in lines:
                key, _, value = map(str.strip, line.partition("="))
                if key == "ImportCredential":
                    return None
                if key not in KINDS:
                    continue
                if not value:  # as systemd has it: what came before does not count
                    found.clear()
                    continue
                name, _, source = value.partition(":")
                found[name] = Path(source) if key == "LoadCredential" and source.startswith("/") else None
        return found if files else None

    def _files(self, unit: str) -> Iterator[Path]:
        """Name the unit's file, then what was added to it by `systemctl edit`."""
        main = next((folder / unit for folder in self._folders if (folder / unit).is_file()), None)
        if main is not None:
            yield main
            added = {file.name: file for folder in reversed(self._folders) for file in folder.glob(f"{unit}.d/*.conf")}
            yield from (added[name] for name in sorted(added))


def _filled(source: Path) -> bool:
    """Whether a file can be read and holds what is to be looked at: the token may be drawn later.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    status = source.stat()
    if not os.access(source, os.R_OK):
        raise PermissionError
    return bool(status.st_size) or source.name != DRAWN or not stat.S_ISREG(status.st_mode)
