"""The verbs `bundle keygen`, `bundle sign` and `bundle verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from edge_lsla.console import say, verb
from edge_lsla.errors import UsageError

bundle_app = typer.Typer(help="Sign bundles, and verify signatures.", no_args_is_help=True)
LARGEST_PASSPHRASE = 4096

PassphraseFile = Annotated[
    Optional[Path], typer.Option(help="A file whose first line is the private key's passphrase; default: none.")
]
TrustedKeys = Annotated[
    Optional[Path],
    typer.Option(help="Folder of trusted *.pub files; default: ~/.config/edge-lsla/trusted-keys."),
]


@verb(bundle_app, "bundle keygen")
def bundle_keygen(
    key: Annotated[
        Path, typer.Argument(help="The private key to write, such as release.pem; release.pub goes beside it.")
    ],
    passphrase_file: PassphraseFile = None,
) -> dict[str, Any]:
    """Make an Ed25519 key pair. Keep the private one secret; give devices the public one."""
    from edge_lsla.bundle import generate_key

    public = generate_key(key, _passphrase(passphrase_file))
    say().print(f"private key: {key}\npublic key:  {public.path}\nkey id:      {public.key_id}")
    say().print(
        "a device trusts bundles signed with it once the public key lies in its ~/.config/edge-lsla/trusted-keys"
    )
    return {"private_key": str(key), "public_key": str(public.path), "key_id": public.key_id}


@verb(bundle_app, "bundle sign")
def bundle_sign(
    bundle: Annotated[Path, typer.Argument(help="A bundle, NAME.lsla.")],
    key: Annotated[Path, typer.Option(help="The private key, from `bundle keygen`.")],
    output: Annotated[
        Optional[Path], typer.Option("--output", "-o", help="Write here; default: sign in place.")
    ] = None,
    passphrase_file: PassphraseFile = None,
) -> dict[str, Any]:
    """Sign a bundle's manifest, and through its digests everything in it."""
    from edge_lsla.bundle import read_private_key, sign_bundle

    signature = sign_bundle(bundle, read_private_key(key, _passphrase(passphrase_file)), output)
    say().print(f"{output or bundle}: signed by {signature.key_id}")
    return {"output": str(output or bundle), "key_id": signature.key_id}


@verb(bundle_app, "bundle verify")
def bundle_verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle, NAME.lsla.")], trusted: TrustedKeys = None
) -> dict[str, Any]:
    """Check that a bundle is whole and signed by a trusted key; exit code 4 where it is not."""
    from edge_lsla.bundle import open_bundle, trusted_keys, verify_signature

    with open_bundle(bundle) as opened:
        signature = verify_signature(opened, trusted_keys(trusted))
        say().print(f"{bundle}: whole, and signed by the trusted key {signature.key_id}")
        return {"bundle": str(bundle), "digest": opened.digest, "key_id": signature.key_id}


def _passphrase(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        with path.open(encoding="utf-8") as file:
            line = file.read(LARGEST_PASSPHRASE).split("\n")[0]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the passphrase cannot be read", path, "give a text file with it in the first line") from error
    return line.rstrip("\r")
