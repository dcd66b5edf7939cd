"""What is in a pickle that is not executed, and a command that gets the weights out of it where it is trusted.

The pickle is walked with every class and function replaced by a stand-in that does nothing: no code of it or of any
package runs. Whole networks, training states with objects in them, and plain pickles of arrays each need another way.
"""

import json
import pickle
import re
import shlex
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

MAGIC = 0x1950A86A20F9469CFC6C  # what torch.save began its files with before version 1.6
PREFERRED = ("state_dict", "model_state_dict", "model", "net", "network")
DEPTH = 4
#: What stands in every checkpoint, or names a container: not what a reader must trust.
_HARMLESS = re.compile(
    r"torch\._utils\.|torch\.\w+Storage$|numpy\b|(__builtin__|builtins|collections|copyreg|_codecs)\."
)


class StandIn:
    """In the place of an object: `kind` is the class or function that would make it, `state` what it would hold."""

    kind = ""
    state: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> "StandIn":
        self = super().__new__(cls)
        # what protocol 0 and 1 call to make an object names the class in its first argument
        rebuilt = cls.kind == "copyreg._reconstructor" and args and isinstance(args[0], type)
        self.kind = getattr(args[0], "kind", cls.kind) if rebuilt else cls.kind
        self.state = {}  # here, as pickles make most objects without __init__
        return self

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> "StandIn":
        return self

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        self.state = {str(k): v for part in parts if isinstance(part, Mapping) for k, v in part.items()}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.state[str(key)] = value

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    @property
    def is_network(self) -> bool:
        return {"_parameters", "_modules"} <= self.state.keys()

    @property
    def is_array(self) -> bool:
        return self.kind.endswith((".multiarray._reconstruct", "numpy.ndarray"))

    @property
    def is_tensor(self) -> bool:
        return self.kind.startswith("torch._utils._rebuild")


@dataclass(frozen=True)
class PickleContent:
    """`root` with stand-ins, the classes and functions by name, whether torch.save wrote it."""

    root: Any
    kinds: tuple[str, ...]
    of_torch: bool


class _Walker(pickle.Unpickler):
    def __init__(self, file: BinaryIO, kinds: "list[str]") -> None:
        super().__init__(file, encoding="latin1")
        self.kinds = kinds

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        self.kinds.append(f"{module}.{name}")
        return type(name.rpartition(".")[2], (StandIn,), {"kind": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        # of a storage nothing is needed; a network of before torch 1.6 comes with its class
        return pid[1] if isinstance(pid, tuple) and pid[0] == "module" else None


def walk_pickle(path: Path) -> "PickleContent | None":
    """What the file holds; None where it is no whole pickle."""
    kinds: list[str] = []
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
                with archive.open(name) as member:
                    return PickleContent(_Walker(member, kinds).load(), tuple(kinds), True)  # type: ignore[arg-type]
        with open(path, "rb") as file:
            root = _Walker(file, kinds).load()
            of_torch = root == MAGIC
            for _ in range(3 if of_torch else 0):  # version, machine, and what was saved
                root = _Walker(file, kinds).load()
            return PickleContent(root, tuple(kinds), of_torch)
    except Exception:  # whatever the pickle of a damaged file makes of stand-ins
        return None


def pickle_advice(path: Path) -> "str | None":
    """What the pickle needs and what to run where it is trusted; None where it is no pickle, or a damaged one."""
    content = walk_pickle(path)
    if content is None:
        return None
    kinds = [kind for kind in dict.fromkeys(content.kinds) if not _HARMLESS.match(kind)]
    own = [kind for kind in kinds if not kind.startswith("torch.")] or kinds
    own = own or [kind for kind in dict.fromkeys(content.kinds) if kind.startswith("collections.")]
    needs = f" ({', '.join(own[:3])}{', …' if len(own) > 3 else ''})" if own else ""
    head = f"its pickle needs code{needs} and is not executed"
    if not content.of_torch and not own:
        head = "is a plain pickle, not a file of torch.save, and is not executed"
    places = sorted(_places(content.root, "c", 0), key=lambda place: place[0])
    if not places:
        return f"{head}; no weights can be seen in it, take a file that holds a state_dict"
    return f"{head}; where you trust it{_where(own)}, run: {_command(path, places[0][1], content.of_torch, own)}"


def _where(own: "list[str]") -> str:
    """What must be importable for that."""
    packages = sorted({kind.partition(".")[0] for kind in own} - sys.stdlib_module_names - {"__main__", "torch"})
    return f" and {', '.join(packages)} can be imported" if packages else ""


def _places(value: Any, expression: str, depth: int) -> "Iterator[tuple[tuple[int, int], str]]":
    """Expressions over `c`, what was loaded, that give weights; the likelier, the smaller their rank."""
    if isinstance(value, StandIn) and value.is_network:
        yield (1, depth), f"{expression}.state_dict()"
        return
    if depth > DEPTH or not isinstance(value, Mapping | StandIn):
        return
    inside = value if isinstance(value, Mapping) else value.state
    held = [entry for entry in inside.values() if isinstance(entry, StandIn)]
    if isinstance(value, Mapping) and any(entry.is_tensor for entry in held):
        yield (0, depth), expression
        return
    if isinstance(value, Mapping) and any(entry.is_array for entry in held):
        yield (2, depth), f"{{k: torch.as_tensor(v) for k, v in {expression}.items()}}"
        return
    names = sorted(map(str, inside), key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))
    for name in names:
        if "optim" not in name.lower():
            step = f"[{json.dumps(name)}]" if isinstance(value, Mapping) else f".{name}"
            yield from _places(inside.get(name), expression + step, depth + 1)


def _command(path: Path, expression: str, of_torch: bool, own: "list[str]") -> str:
    """A line of the shell that loads the file, its code running, and saves the weights alone beside it."""
    file, out = json.dumps(str(path)), json.dumps(str(path.with_name(f"{path.stem}-weights.pt")))
    scripts = sorted(kind.partition(".")[2] for kind in own if kind.startswith("__main__."))
    imports = f"from THE_SCRIPT_THAT_SAVED_IT import {', '.join(scripts)}; " if scripts else ""
    load, modules = f'torch.load({file}, map_location="cpu", weights_only=False)', "torch"
    if not of_torch:
        load, modules = f"pickle.loads(pathlib.Path({file}).read_bytes())", "pathlib, pickle, torch"
    code = f"import {modules}; {imports}c = {load}; torch.save({expression}, {out})"
    return f"python -c {shlex.quote(code)}"
