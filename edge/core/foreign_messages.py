"""What libraries say, without the C++ around it: sources, line numbers and signatures stand before the reason."""

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
