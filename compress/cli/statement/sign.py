"""`compress statement sign`."""

from pathlib import Path

import click

from compress.cli.lazy import Verb
from compress.cli.options import FOLDER
from edge.core.errors import CompressError


@click.command(cls=Verb, examples=["compress statement sign runs/exported-cpu-verified --key signing.key"])
@click.argument("folder", type=FOLDER)
@click.option(
    "--key", type=FOLDER, metavar="FILE", help="Private key in PEM: Ed25519, or a NIST curve (model-signing)."
)
@click.option("--keyless", is_flag=True, help="By your identity at Sigstore, through model-signing; needs a network.")
@click.option("--artifact", "shipped", type=FOLDER, metavar="PATH", help="The artifact, where it was moved since.")
@click.option("--attack-set", type=FOLDER, metavar="DIR", help="The attack set, where it was moved since.")
def sign(folder: Path, key: "Path | None", keyless: bool, shipped: "Path | None", attack_set: "Path | None") -> None:
    """Check a verified folder, then sign its statement and all its files."""
    from compress import signing, statement_check

    if (key is None) == (not keyless):
        raise CompressError(
            "a signature needs one of --key FILE and --keyless; `compress statement keygen` makes a key"
        )
    statement_check.check_verified(folder, shipped=shipped, attack_set=attack_set)
    made = signing.sign(folder, key) if key else signing.sign_keyless(folder)
    click.echo("\n".join(map(str, made)))
