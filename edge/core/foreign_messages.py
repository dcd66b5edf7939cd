"""What foreign libraries say, without the C++ around it, and what foreign files are whose names say something else.

Of a message, sources, line numbers and signatures stand before the reason; of a file, its first bytes give it away: a
downloaded error page, a pointer in a file's place, an archive.
"""

import re

#: `file.cc:256 ` and what may follow it: a function's bare name.
_PLACE = re.compile(
    r"[\w./\\-]*\w\.(?:cc|cpp|cxx|cu|cuh|h|hpp)(?::|\()\d+\)?:?\s*(?:[A-Z]\w*[a-z]\w*\s(?=[A-Z])|In function \w+:\s*)?"
)
#: `[file.cpp::function::256] ` of TensorRT, `[file.cc:256] ` of torch, the code of ONNX Runtime.
_BRACKETS = re.compile(r"\[[\w./-]+\.(?:cc|cpp|cu|h):(?::[^\]]*::)?\d+\]\s*|\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_QUALIFIERS = re.compile(r"^\s*(?:(?:const|noexcept)\b\s*|\[with [^\]]*\]\s*)*")


def told(text: str, most: int) -> str:
    """The line or two of `text` that give the reason, as one, at most `most` characters long; "" where it says nothing.

    A first line that only announces is followed by the next, or by the last of a traceback. What is too long loses its
    middle: libraries name the place first and the reason last.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next(iter(lines), "")
    if said.startswith("Traceback") or "failed in the TorchScript interpreter" in said:
        said = lines[-1]
    elif said.endswith(":") and len(lines) > 1:
        said = f"{said} {lines[1]}"
    said = without_source(said)
    if len(said) <= most:
        return said
    ahead = most // 3
    return f"{said[:ahead].rstrip()} … {said[len(said) - (most - ahead - 3) :].lstrip()}"


def without_source(text: str) -> str:
    """Without the places in C++ sources, and without the signature behind such a place."""
    text = _BRACKETS.sub("", text)
    while (place := _PLACE.search(text)) is not None:
        text = text[: place.start()] + _without_signature(text[place.end() :])
    return text.strip()


def _without_signature(text: str) -> str:
    """`void space::name(const T&) const [with T = int] reason` → `reason`; text that begins otherwise as it is."""
    head, bracket, _ = text.partition("(")
    if not bracket or "::" not in head or re.search(r"[.!?]\s", head):
        return text
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        # `(anonymous namespace)::name(…)` goes on
        if letter == ")" and depth == 0 and not text.startswith("::", place + 1):
            return text[place + 1 + len(_QUALIFIERS.match(text[place + 1 :])[0]) :]  # type: ignore[index]
    return text


#: How such files begin, letters in lower case and blanks before them left out → what they are, and what to do.
BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file; run: git lfs pull"),
    (b"<!doctype", "is an HTML page, as a download service answers with in place of the file; download it again"),
    (b"<html", "is an HTML page, as a download service answers with in place of the file; download it again"),
    (b"<?xml", "is an XML page, as a download service answers with in place of the file; download it again"),
    (b"{", "is text (JSON), as a download service answers with in place of the file; download it again"),
    (b"pk\x03\x04", "is a zip archive or a PyTorch checkpoint; give the file that is meant"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it (gunzip)"),
    (b"\xfd7zxz", "is xz-compressed; unpack it (unxz)"),
    (b"7z\xbc\xaf", "is 7-zip-compressed; unpack it (7z x)"),
    (b"bzh", "is bzip2-compressed; unpack it (bunzip2)"),
    (b"\x28\xb5\x2f\xfd", "is zstd-compressed; unpack it (unzstd)"),
    (b"rar!", "is RAR-compressed; unpack it (unrar x)"),
    (b"\x89hdf", "is an HDF5 file; give the file that is meant"),
)


def disguise(content: bytes) -> "str | None":
    """What the file is instead, in words that begin with a verb; None where nothing speaks of another kind."""
    if not content:
        return "is empty (0 bytes); download or export it again"
    start = content[:512].lstrip().lower()
    return next((what for beginning, what in BEGINNINGS if start.startswith(beginning)), None)
