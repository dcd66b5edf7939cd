"""An ONNX file of another tool, read: its graph in one piece, whatever lies in files beside it taken in."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from onnx import TensorProto

from compress.networks.graph.dataflow import standard_opset
from edge.core import artifact
from edge.core.errors import CompressError
from edge.core.foreign_messages import disguise
from edge.runtimes.onnxruntime.runner import open_session
from export.targets.onnx.layers import tensor_bytes

LARGEST = 2**31 - 1  # bytes of one protobuf message


@dataclass(frozen=True)
class ForeignFile:
    """`content`: the graph in one piece, the file's very bytes where nothing lies beside it. `sha256` is of the file,
    `external` of each file beside it by its name."""

    path: Path
    proto: onnx.ModelProto
    content: bytes
    sha256: str
    external: dict[str, str] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        return standard_opset(self.proto)


def read_foreign(path: Path) -> ForeignFile:
    """The file at `path`, an error of one line where it cannot be read or is not what it says it is."""
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise CompressError(f"{path}: cannot be read ({fault.strerror}); give an .onnx file") from None
    sha256 = artifact.bytes_sha256(content)
    try:
        proto = onnx.load_model_from_string(content)
    except Exception:  # protobuf's exceptions share no base class; the runtime knows best what is wrong
        open_session(content, str(path))
        raise CompressError(f"{path}: is no ONNX file that the onnx package reads; export it again") from None
    external = [tensor for tensor in stored_tensors(proto) if tensor.data_location == TensorProto.EXTERNAL]
    if not external:
        return ForeignFile(path, proto, content, sha256)
    check_types(external, path)
    total = len(content) + sum(tensor_bytes(tensor) for tensor in external)
    if total > LARGEST:
        raise CompressError(
            f"{path}: with the weights beside it {total / 1e9:.1f} GB; an ONNX file in one piece ends at 2.1 GB"
        )
    names = sorted({_external(tensor).get("location", "") for tensor in external})
    files = {name: _file_beside(path, name) for name in names}
    for tensor in external:
        tensor.raw_data = _stored_elsewhere(tensor, files, path)
        del tensor.external_data[:]
        tensor.ClearField("data_location")
    hashes = {name: artifact.file_sha256(file) for name, file in files.items()}
    return ForeignFile(path, proto, proto.SerializeToString(deterministic=True), sha256, hashes)


def check_types(tensors: Iterable[TensorProto], path: Path) -> None:
    """CompressError where one is of a type that the onnx package does not know."""
    known = TensorProto.DataType.values()
    if unknown := next((each for each in tensors if each.data_type not in known), None):
        raise CompressError(
            f"{path}: tensor {unknown.name!r} is of type {unknown.data_type}, which onnx {onnx.__version__} does not "
            f"know; upgrade it, or export the file again"
        )


def stored_tensors(proto: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor that the file stores, in bodies and functions too."""

    def of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[TensorProto]:
        for entry in (entry for node in nodes for entry in node.attribute):
            yield from [entry.t] if entry.HasField("t") else entry.tensors
            for graph in [entry.g] if entry.HasField("g") else entry.graphs:
                yield from of_graph(graph)

    def of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from of_nodes(graph.node)

    yield from of_graph(proto.graph)
    for function in proto.functions:
        yield from of_nodes(function.node)


def _external(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _file_beside(path: Path, name: str) -> Path:
    """The file of that name inside the folder of `path`: an ordinary one, reached through no link."""
    parts = PurePosixPath(name).parts
    outside = PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name or PureWindowsPath(name).drive
    if not parts or outside:
        raise CompressError(
            f"{path}: keeps weights in {name!r}, outside its folder, where nothing is read; export it again with both "
            f"files in one folder, or in one piece (torch.onnx.export(…, external_data=False))"
        )
    steps = [path.parent.joinpath(*parts[: number + 1]) for number in range(len(parts))]
    if link := next((step for step in steps if step.is_symlink()), None):
        raise CompressError(f"{path}: keeps weights in {link}, which is a link; put the file itself there")
    if not steps[-1].is_file():
        raise CompressError(
            f"{path}: keeps weights in {name}, which is not there; put it beside the file, as it was exported, or "
            f"export again in one piece (torch.onnx.export(…, external_data=False))"
        )
    return steps[-1]


def _stored_elsewhere(tensor: TensorProto, files: Mapping[str, Path], path: Path) -> bytes:
    """The bytes of a tensor; CompressError where the file does not hold as many as its shape takes."""
    entries = _external(tensor)
    name, want = entries["location"], tensor_bytes(tensor)
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or want)
    except ValueError:
        offset, length = -1, want
    if offset < 0 or length != want:
        raise CompressError(
            f"{path}: tensor {tensor.name!r} of shape {list(tensor.dims)} takes {want:,} bytes, the file says "
            f"{entries.get('length')} from {entries.get('offset', 0)} of {name}; export it again"
        )
    size = files[name].stat().st_size
    if offset + length > size:
        with open(files[name], "rb") as file:
            other = disguise(file.read(512))
        if other is not None:
            raise CompressError(f"{path}: keeps weights in {name}, which {other}")
        raise CompressError(
            f"{path}: {name} ends after {size:,} bytes, tensor {tensor.name!r} lies in {offset:,} to "
            f"{offset + length:,}; copy or download both files again"
        )
    with open(files[name], "rb") as file:
        file.seek(offset)
        return file.read(length)
