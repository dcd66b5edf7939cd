"""`compress statement check`."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER, json_option
from edge.core.errors import CompressError


@click.command(
    cls=Verb,
    examples=[
        "compress statement check runs/exported-cpu-verified --key signing.key.pub",
        "compress statement check verified --artifact model.onnx --key signing.key.pub --json",
    ],
)
@click.argument("folder", type=FOLDER)
@click.option("--key", type=FOLDER, metavar="FILE", help="Public key of who signed, in PEM.")
@click.option("--identity", metavar="NAME", help="Who signed at Sigstore, e.g. an e-mail address; with --provider.")
@click.option("--provider", metavar="URL", help="OpenID provider that vouches for --identity.")
@click.option("--artifact", "shipped", type=FOLDER, metavar="PATH", help="The artifact: file or exported folder.")
@click.option("--attack-set", type=FOLDER, metavar="DIR", help="The attack set that was replayed.")
@json_option()
def check(
    folder: Path,
    key: "Path | None",
    identity: "str | None",
    provider: "str | None",
    shipped: "Path | None",
    attack_set: "Path | None",
    as_json: bool,
) -> None:
    """Compare a verified folder with all that states it; the first thing that differs is named, exit 3.

    Files against the manifest, statement against its schema, the artifact's bytes against the subject, verdicts
    against hash and figures, the attack set's files, and the signature.
    """
    from compress import signing, statement_check
    from compress.statement_check import CheckedPart

    if (identity is None) != (provider is None) or (key and identity):
        raise CompressError("a signer is given by --key FILE, or by --identity NAME with --provider URL")
    if identity and provider:  # the signature first: what it binds is named by it
        signature = CheckedPart("signature", signing.check_keyless(folder, identity, provider))
    elif key or signing.signed(folder):
        signature = CheckedPart("signature", signing.check(folder, key), skipped=key is None)
    else:
        signature = CheckedPart("signature", "none was made", skipped=True)
    _, found = statement_check.check_verified(folder, shipped=shipped, attack_set=attack_set)
    rows = [signature, *found]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "checked": [asdict(row) for row in rows]}, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{'not checked' if row.skipped else 'right      '}  {row.name:<10}  {row.found}")
