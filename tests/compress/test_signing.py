"""Signatures: the envelope of the DSSE specification, keys, and that no bit of a signed folder can change unseen."""

import base64
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from compress import signing, statement_check
from compress.stages import verify
from edge.core.errors import CheckFailed, CompressError
from tests.edge.stages import World, config


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a verified folder that `key` signed."""
    root = tmp_path_factory.mktemp("signed")
    world = World.make(root)
    world.export("onnx", world.twin)
    attacks = world.attack_set({"onnx": world.twin})
    verify.run(config(), verify.VerifyInputs(exported=root / "onnx", attack_set=attacks.path), root / "verified")
    signing.keygen(root / "key")
    signing.sign(root / "verified", root / "key")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def check(root: Path, key: str = "key.pub") -> str:
    """As `compress statement check` does it: the signature first, then everything that it binds."""
    found = signing.check(root / "verified", root / key)
    statement_check.check_verified(root / "verified")
    return found


def test_what_is_signed_is_as_the_specification_encodes_it() -> None:
    kind, body = "http://example.com/HelloWorld", b"hello world"
    assert signing.pae(kind, body) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert signing.pae("é", b"") == b"DSSEv1 2 \xc3\xa9 0 "


def test_the_envelope_holds_the_statement_and_its_signature_is_ed25519(root: Path) -> None:
    envelope = json.loads((root / "verified" / "statement.dsse.json").read_text())
    body = base64.b64decode(envelope["payload"])
    assert body == (root / "verified" / "statement.json").read_bytes()
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    public = serialization.load_pem_public_key((root / "key.pub").read_bytes())
    (signature,) = envelope["signatures"]
    message = b"DSSEv1 28 application/vnd.in-toto+json %d %b" % (len(body), body)
    public.verify(base64.b64decode(signature["sig"]), message)  # type: ignore[union-attr, call-arg, arg-type]


def test_what_was_signed_is_right(root: Path) -> None:
    assert "are signed by" in check(root)
    assert "whose they are was not checked" in signing.check(root / "verified", None)


def test_every_file_of_the_folder_is_signed(root: Path) -> None:
    envelope = json.loads((root / "verified" / "files.dsse.json").read_text())
    listed = {entry["name"] for entry in json.loads(base64.b64decode(envelope["payload"]))["subject"]}
    assert listed | {"files.dsse.json"} == {file.name for file in (root / "verified").iterdir()}


def test_one_flipped_bit_anywhere_is_caught_and_named(root: Path) -> None:
    rng = np.random.default_rng(0)
    for file in sorted((root / "verified").iterdir()):
        content = file.read_bytes()
        places = {0, len(content) - 1, *rng.integers(0, len(content), 25).tolist()}
        for place in sorted(places):
            changed = bytearray(content)
            changed[place] ^= 1 << int(rng.integers(8))
            file.write_bytes(changed)
            with pytest.raises(CheckFailed, match=file.name) as fault:
                check(root)
            assert "\n" not in str(fault.value)
        file.write_bytes(content)
    check(root)


def test_what_another_key_signed_is_refused(root: Path) -> None:
    signing.keygen(root / "other")
    with pytest.raises(CheckFailed, match=r"signed by the key .*; give its signer's key"):
        check(root, "other.pub")
    signing.sign(root / "verified", root / "other")
    assert check(root, "other.pub")


def test_a_signature_of_other_bytes_does_not_fit(root: Path) -> None:
    file = root / "verified" / "statement.dsse.json"
    envelope = json.loads(file.read_text())
    envelope["signatures"][0]["sig"] = base64.b64encode(bytes(64)).decode()
    key = signing._load(root / "key.pub", "public")
    file.write_text(json.dumps(envelope))
    with pytest.raises(CheckFailed, match="the signature does not fit"):
        signing.unseal(file, key)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"payload": "AA", "payloadType": "x", "signatures": []}'])
def test_what_is_no_envelope_is_refused(root: Path, content: str) -> None:
    (root / "verified" / "files.dsse.json").write_text(content)
    with pytest.raises(CheckFailed, match="not readable as a DSSE envelope"):
        check(root)


def test_an_unsigned_folder_is_refused_where_a_key_is_given(root: Path) -> None:
    for name in ("files.dsse.json", "statement.dsse.json"):
        (root / "verified" / name).unlink()
    assert not signing.signed(root / "verified")
    with pytest.raises(CheckFailed, match="is not there, so the folder is not signed"):
        check(root)


def test_a_key_is_for_its_owner_and_never_overwritten(tmp_path: Path) -> None:
    public = signing.keygen(tmp_path / "key")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600 and public == tmp_path / "key.pub"
    before = (tmp_path / "key").read_bytes()
    with pytest.raises(CompressError, match="exists; choose another name"):
        signing.keygen(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before
    with pytest.raises(CompressError, match="no folder; make it first"):
        signing.keygen(tmp_path / "nowhere" / "key")


def test_keys_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    signing.keygen(tmp_path / "key")
    private = serialization.load_pem_private_key((tmp_path / "key").read_bytes(), None)
    locked = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked").write_bytes(locked)
    (tmp_path / "text").write_text("no key")
    for name, message in (
        ("locked", "not readable as a private key .it is encrypted"),
        ("text", "not readable as a private key .no PEM"),
        ("key.pub", "not readable as a private key"),
        ("nowhere", "cannot be read"),
    ):
        with pytest.raises(CompressError, match=message) as fault:
            signing.sign(tmp_path, tmp_path / name)
        assert "\n" not in str(fault.value)
    assert not (tmp_path / "statement.dsse.json").exists()


def test_a_key_of_a_nist_curve_goes_to_model_signing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (root / "ec").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (root / "ec.pub").write_bytes(public)
    with pytest.raises(CheckFailed, match=r"model\.sig: is not there"):
        signing.check(root / "verified", root / "ec.pub")
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(
        CompressError, match=r"model-signing cannot be used .*pip install 'robust-compress\[sigstore\]'"
    ):
        signing.sign(root / "verified", root / "ec")


def test_model_signing_itself_signs_and_checks_the_folder(root: Path) -> None:
    pytest.importorskip("model_signing.signing")
    key = ec.generate_private_key(ec.SECP256R1())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (root / "ec").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (root / "ec.pub").write_bytes(public)
    assert signing.sign(root / "verified", root / "ec") == [root / "verified" / "model.sig"]
    assert "by model-signing" in signing.check(root / "verified", root / "ec.pub")
    with open(root / "verified" / "report.html", "a") as page:
        page.write(" ")
    with pytest.raises(CheckFailed, match="model-signing refuses it"):
        signing.check(root / "verified", root / "ec.pub")


def test_without_cryptography_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['cryptography.hazmat.primitives'] = None\n"
        f"from pathlib import Path\nfrom compress import signing\nsigning.keygen(Path({str(tmp_path / 'key')!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith("keys need it; pip install 'robust-compress[signing]'")
    assert list(tmp_path.iterdir()) == []
