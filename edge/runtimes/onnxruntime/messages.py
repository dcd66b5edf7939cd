"""Why ONNX Runtime does not open a file, in words that say what to do."""

import re

from edge.core.errors import first_line
from edge.core.foreign_messages import disguise

TAKEN_IN = (
    "`compress export` takes both, or save it as one: python -c "
    '\'import onnx; onnx.save(onnx.load("model.onnx"), "whole.onnx")\''
)
#: What the runtime writes → what is said of it. `{version}` is the runtime's; {0}, {1} are what the pattern holds.
REASONS = (
    (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "IR version {0}, ONNX Runtime {version} reads up to {1}: upgrade it, or set ir_version",
    ),
    (
        r"Opset (\d+) is under development.*domain ai\.onnx is till opset (\d+)",
        "opset {0}, ONNX Runtime {version} reads up to {1}: upgrade it, or export with an opset that it reads",
    ),
    (
        r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)",
        "opset {0} of {1}, ONNX Runtime {version} reads up to {2}: upgrade it, or export with an opset that it reads",
    ),
    (
        r"Fatal error: ([\w.]+):(\w+)\(-?\d+\) is not a registered function/op",
        "operator {0}.{1} is unknown to ONNX Runtime {version}: export it with standard operators",
    ),
    (
        r"No opset import for domain '(.*?)'",
        "uses operators of {0}, which it does not import and ONNX Runtime {version} may not know: export it again",
    ),
    (
        r"No Op registered for (\w+) with domain_version of (\d+)",
        "operator {0} is not in opset {1}, as far as ONNX Runtime {version} knows: export with another opset",
    ),
    (
        r"Could not find an implementation for (\w+)\((\d+)\)(?: node with name '(.*?)')?",
        "operator {0} of opset {1} ({2}) has no implementation in ONNX Runtime {version} for its types: export it in "
        "others, float32 if nothing else",
    ),
    (
        r"xternal data.*?([^/\\\"' ]+\.[\w]+)\"",
        f"keeps weights in another file ({{0}}), which no hash of this one covers; {TAKEN_IN}",
    ),
    (r"xternal data", f"keeps weights in another file, which no hash of this one covers; {TAKEN_IN}"),
    (
        r"In Node, \(\"(.*?)\", (\w+), .*?Error:? (?:Node ?(?:\(.*?\) )?with )?(.+?)\.?$",
        "node {0} ({1}) is invalid, {2}; export it again",
    ),
    (r"graph is not acyclic", "its graph has a cycle: a node reads what is made of its own result; export it again"),
    (r"No graph was found in the protobuf", "holds no graph; export it again"),
)


def why_not_opened(content: bytes, fault: BaseException, version: str) -> str:
    """The runtime's refusal of the bytes `content`, of one line and without the file's name."""
    said = " ".join(str(fault).split())
    other = disguise(content)
    if other is not None:
        return other
    for pattern, words in REASONS:
        if (match := re.search(pattern, said)) is not None:
            return words.format(*(part or "unnamed" for part in match.groups()), version=version)
    if "protobuf parsing failed" in said:
        return f"is no ONNX file, or not the whole of one ({len(content):,} bytes); download or export it again"
    return f"ONNX Runtime {version} cannot open it ({first_line(said)}); export it again"


def why_it_failed(fault: BaseException) -> str:
    """A refusal to execute: the node, and its reason."""
    said = " ".join(str(fault).split())
    match = re.search(r"while running (\w+) node\. Name:'(.*?)' Status Message: (.*)", said)
    if match is None:
        return first_line(said)
    operator, name, reason = match.groups()
    return f"{operator} node {name or 'unnamed'}: {first_line(reason)}"
