"""Signatures of a verified folder: DSSE envelopes by a local Ed25519 key, or sigstore's model-signing.

`statement.dsse.json` holds the statement itself, for whoever gets it without the folder; `files.dsse.json` binds every
file of the folder, the manifest and the first envelope among them. The only module that imports `cryptography`, which
the extra `signing` installs, and `model_signing`.
"""

import base64
import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.core import artifact, streams
from edge.core.errors import CheckFailed, CompressError
from edge.statement.statement import STATEMENT

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

ENVELOPE, FILES = "statement.dsse.json", "files.dsse.json"
SIGSTORE = "model.sig"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
FILES_TYPE = "urn:robust-compress:files:1"


def pae(kind: str, body: bytes) -> bytes:
    """What is signed (DSSE 1.0.2, protocol.md): type and body, each with its length in bytes, unambiguous."""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(body), body)


# ------------------------------------------------------------------------------------------- keys


def keygen(private: Path) -> Path:
    """Write a new Ed25519 key as PEM, for its owner alone, and the public one to `private` + `.pub`, which returns."""
    serialization, ed25519 = _cryptography()
    public = private.with_name(private.name + ".pub")
    for file in (private, public):
        if file.exists():
            raise CompressError(f"{file}: exists; choose another name, a key is not overwritten")
    if not private.parent.is_dir():
        raise CompressError(f"{private.parent}: no folder; make it first")
    key = ed25519.Ed25519PrivateKey.generate()
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(secret)
        artifact.write_atomic(
            public, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    except OSError as fault:
        private.unlink()  # half a pair is no key, and would be in the way of the next attempt
        fault.filename = fault.filename or str(private)
        raise
    return public


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise CompressError(
            "cryptography is not installed, keys need it; pip install 'robust-compress[signing]'"
        ) from None
    return serialization, ed25519


def _load(path: Path, kind: str) -> Any:
    """A key of any type from PEM; `kind` is private or public."""
    serialization, _ = _cryptography()
    try:
        content = path.read_bytes()
        if kind == "private":
            return serialization.load_pem_private_key(content, None)
        return serialization.load_pem_public_key(content)
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read ({fault.strerror}); give a {kind} key in PEM") from None
    except (ValueError, TypeError) as fault:
        why = "it is encrypted" if isinstance(fault, TypeError) else "no PEM of one"
        raise CompressError(
            f"{path}: not readable as a {kind} key ({why}); `compress statement keygen` makes one"
        ) from None


def _is_ed25519(key: Any) -> bool:
    _, ed25519 = _cryptography()
    return isinstance(key, ed25519.Ed25519PrivateKey | ed25519.Ed25519PublicKey)


def keyid(key: "Ed25519PublicKey") -> str:
    """sha256 of the public key in DER (SubjectPublicKeyInfo)."""
    serialization, _ = _cryptography()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return artifact.bytes_sha256(der)


# ------------------------------------------------------------------------------------------- envelopes


def seal(body: bytes, key: "Ed25519PrivateKey") -> str:
    """The envelope of `body`, as JSON."""
    signature = {"keyid": keyid(key.public_key()), "sig": _text(key.sign(pae(PAYLOAD_TYPE, body)))}
    envelope = {"payload": _text(body), "payloadType": PAYLOAD_TYPE, "signatures": [signature]}
    return json.dumps(envelope, indent=2) + "\n"


def unseal(file: Path, key: "Ed25519PublicKey | None") -> bytes:
    """The body of an envelope, its signature checked by `key` where one is given; anything wrong: CheckFailed."""
    try:
        envelope = json.loads(file.read_bytes())
        (signature,) = envelope["signatures"]
        if set(envelope) != {"payload", "payloadType", "signatures"} or set(signature) != {"keyid", "sig"}:
            raise ValueError
        body, signed = _bytes(envelope["payload"]), _bytes(signature["sig"])
        kind, signer = envelope["payloadType"], signature["keyid"]
    except FileNotFoundError:
        raise CheckFailed(
            f"{file}: is not there, so the folder is not signed; `compress statement sign` does it"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise CheckFailed(f"{file}: not readable as a DSSE envelope of one signature; sign the folder again") from None
    if kind != PAYLOAD_TYPE:
        raise CheckFailed(f"{file}: holds {kind!r}, not {PAYLOAD_TYPE}; sign the folder again")
    if key is not None:
        from cryptography.exceptions import InvalidSignature

        if signer != keyid(key):
            raise CheckFailed(f"{file}: signed by the key {signer:.12}, given {keyid(key):.12}; give its signer's key")
        try:
            key.verify(signed, pae(PAYLOAD_TYPE, body))
        except InvalidSignature:
            raise CheckFailed(
                f"{file}: the signature does not fit what it signs; it was changed, or sign it again"
            ) from None
    return body


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _bytes(text: str) -> bytes:
    """Strict: one text for one value, so that no bit of it is without meaning."""
    try:
        content = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError from None
    if _text(content) != text:
        raise ValueError
    return content


# ------------------------------------------------------------------------------------------- folders


def sign(folder: Path, key_file: Path) -> list[Path]:
    """Sign a verified folder by a private key, the files returned: Ed25519 here, a NIST curve through model-signing."""
    key = _load(key_file, "private")
    if not _is_ed25519(key):
        return [_sigstore_sign(folder, lambda config: config.use_elliptic_key_signer(private_key=key_file))]
    artifact.write_atomic(folder / ENVELOPE, seal((folder / STATEMENT).read_bytes(), key))
    # An in-toto statement whose subjects are the folder's files
    manifest = json.loads((folder / artifact.MANIFEST).read_bytes())
    names = [artifact.MANIFEST, *manifest["payload"], *manifest["records"], ENVELOPE]
    listing = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": artifact.file_sha256(folder / name)}} for name in names],
        "predicateType": FILES_TYPE,
        "predicate": {},
    }
    body = streams.text_bytes(json.dumps(listing, indent=2, ensure_ascii=False))
    try:
        artifact.write_atomic(folder / FILES, seal(body, key))
    except OSError:
        (folder / ENVELOPE).unlink()  # signed is all of the folder or nothing
        raise
    return [folder / ENVELOPE, folder / FILES]


def sign_keyless(folder: Path) -> list[Path]:
    """Sign by an identity at Sigstore, which needs a network and a login."""
    return [_sigstore_sign(folder, lambda config: config.use_sigstore_signer())]


def signed(folder: Path) -> bool:
    return (folder / ENVELOPE).exists() or (folder / FILES).exists()


def check(folder: Path, key_file: "Path | None") -> str:
    """What signs a folder, every signed file compared; without a key the envelopes alone. A difference: CheckFailed."""
    key = _load(key_file, "public") if key_file else None
    if key is not None and not _is_ed25519(key):
        _sigstore_check(folder, lambda config: config.use_elliptic_key_verifier(public_key=key_file))
        return f"{SIGSTORE} is the given key's, by model-signing"
    listing = json.loads(unseal(folder / FILES, key))
    for entry in listing["subject"]:
        file, want = folder / entry["name"], entry["digest"]["sha256"]
        got = artifact.file_sha256(file) if file.is_file() else "nothing"
        if got != want:
            raise CheckFailed(f"{file}: has sha256 {got:.12}, {FILES} was signed for {want:.12}; verify and sign again")
    if unseal(folder / ENVELOPE, key) != (folder / STATEMENT).read_bytes():
        raise CheckFailed(f"{folder / STATEMENT}: is not the statement that {ENVELOPE} holds; verify and sign again")
    if key is None:
        return f"{ENVELOPE} and {FILES} fit the folder; whose they are was not checked, give --key"
    return f"{ENVELOPE} and {FILES} are signed by {keyid(key):.12}"


def check_keyless(folder: Path, identity: str, provider: str) -> str:
    """Whether an identity at Sigstore signed the folder."""
    _sigstore_check(folder, lambda config: config.use_sigstore_verifier(identity=identity, oidc_issuer=provider))
    return f"{SIGSTORE} is signed by {identity}, by model-signing"


# ------------------------------------------------------------------------------------------- model-signing


def _model_signing(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"model_signing.{name}")
    except ImportError as fault:
        raise CompressError(
            f"model-signing cannot be used ({fault}), other keys than Ed25519 and identities need it; "
            "pip install 'robust-compress[sigstore]'"
        ) from None


def _sigstore_sign(folder: Path, use: Any) -> Path:
    hashing, signing = _model_signing("hashing"), _model_signing("signing")
    kept = hashing.Config().set_ignored_paths(paths=[folder / SIGSTORE], ignore_git_paths=False)
    try:
        use(signing.Config().set_hashing_config(kept)).sign(folder, folder / SIGSTORE)
    except Exception as fault:  # it raises what the libraries below it raise
        raise CompressError(f"{folder}: model-signing could not sign it ({_line(fault)}); see its own help") from None
    return folder / SIGSTORE


def _sigstore_check(folder: Path, use: Any) -> None:
    if not (folder / SIGSTORE).is_file():
        raise CheckFailed(f"{folder / SIGSTORE}: is not there, so model-signing did not sign the folder; sign it")
    config = _model_signing("verifying").Config().set_ignore_unsigned_files(True)
    try:
        use(config).verify(folder, folder / SIGSTORE)
    except Exception as fault:  # it raises what the libraries below it raise
        raise CheckFailed(f"{folder / SIGSTORE}: model-signing refuses it ({_line(fault)}); sign it again") from None


def _line(fault: Exception) -> str:
    text = " ".join(f"{type(fault).__name__} {fault}".split())
    return text if len(text) <= 160 else f"{text[:159]}…"
