"""`compress statement`: what a verified folder states, and whether that can be trusted."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from compress.cli.main import LazyGroup, Verb
from compress.cli.options import FOLDER, json_option
from edge.core.errors import CompressError


@click.group(
    cls=LazyGroup,
    verbs={
        "show": "Print a statement as text.",
        "check": "Compare a folder with its statement, the artifact's bytes and a signature.",
        "sign": "Sign a verified folder.",
        "keygen": "Make a key to sign with.",
    },
    module="compress.cli.statement",
    invoke_without_command=True,
    examples=[
        "compress statement show runs/exported-cpu-verified",
        "compress statement check runs/exported-cpu-verified --key signing.key.pub",
    ],
)
@click.pass_context
def statement(context: click.Context) -> None:
    """Read, sign and check the robustness statement of a verified folder."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command(cls=Verb, examples=["compress statement show runs/exported-cpu-verified"])
@click.argument("where", type=FOLDER, metavar="FILE|FOLDER")
@json_option()
def show(where: Path, as_json: bool) -> None:
    """Print a statement as text: figures, attacks, protocol, alarms, machine, lineage, bound files."""
    from edge.statement import statement
    from edge.statement.wording import statement_details

    stated = statement.read_statement(where)
    click.echo(json.dumps(stated.as_json(), ensure_ascii=False) if as_json else statement_details(stated))


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
    _, parts = statement_check.check_verified(folder, shipped=shipped, attack_set=attack_set)
    rows = [signature, *parts]
    if as_json:
        click.echo(json.dumps({"folder": str(folder), "checked": [asdict(row) for row in rows]}, ensure_ascii=False))
        return
    for row in rows:
        click.echo(f"{'not checked' if row.skipped else 'right      '}  {row.name:<10}  {row.found}")


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
    written = signing.sign(folder, key) if key else signing.sign_keyless(folder)
    click.echo("\n".join(map(str, written)))


@click.command(cls=Verb, examples=["compress statement keygen signing.key"])
@click.argument("key", type=FOLDER)
def keygen(key: Path) -> None:
    """Make an Ed25519 key: KEY, readable by its owner alone, and KEY.pub for everybody who checks."""
    from compress import signing

    click.echo(f"{key}\n{signing.keygen(key)}")
