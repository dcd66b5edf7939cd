"""A user's module and the modules of its own that it imports: where they lie, and what their code is.

Import statements are read; nothing is executed. Standard library only.
"""

import ast
import contextlib
import hashlib
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.core import errors
from edge.core.errors import CompressError

#: The packages of this project, which are no user's.
OURS = {"compress", "export", "edge"}
#: Folders of installed packages: a module there is followed no further than its own package.
INSTALLED = ("site-packages", "dist-packages")
#: What makes names up while it runs: then all of a file may be meant.
NAMES_AT_WILL = {"globals", "locals", "vars", "dir", "eval", "exec", "getmembers"}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_UNSAID = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
#: The code that was imported from each file, by sha256.
_IMPORTED: dict[Path, str] = {}


@dataclass(frozen=True)
class UserSource:
    """A function's module and those it imports, `files` by name; `place`: the folder on the import path they lie in."""

    function: str
    place: Path
    files: Mapping[str, Path]

    def hashes(self) -> dict[str, str]:
        """sha256 of each file's code, by its path in `place`. Comments and blank lines are no code.

        Nor is, in the function's own file, what it does not name, nor what it names, in turn.
        """
        module, _, function = self.function.partition(":")
        return {
            file.relative_to(self.place).as_posix(): hashlib.sha256(
                _code(file, function if name == module else "")
            ).hexdigest()
            for name, file in sorted(self.files.items(), key=lambda entry: entry[1])
        }


def find_source(spec: str, *, code: "Mapping[str, str] | None" = None, place: "Path | None" = None) -> UserSource:
    """The source of the module in `spec`, `module:function`: in the working directory, else at `place`, else installed.

    `code`: the hashes that it must have; the first place where it has them is taken. CompressError where the module is
    nowhere, or nowhere with that code.
    """
    module = spec.partition(":")[0]
    here = Path.cwd()
    installed = _installed(module)
    sources = [_closure(spec, where) for where in (here, place, installed) if where and _file(module, where)]
    if not sources and installed:  # compiled, or a part of Python: of no source
        sources = [UserSource(spec, installed, {})]
    fitting = [source for source in sources if code is None or source.hashes() == code]
    if fitting and (file := fitting[0].files.get(module)):
        _check_defined(file, spec)
    if fitting:
        return fitting[0]
    if sources:
        assert code is not None
        raise CompressError(
            f"{spec}: its code in {sources[0].place} is not that of the stage "
            f"({_difference(code, sources[0].hashes())}); bring that code back, or make the stage again"
        )
    lay = f", in {place}, where it lay," if place and place != here else ""
    raise CompressError(
        f"{spec}: no module {module} in {here}{lay} or installed; run where {module.split('.')[0]}.py lies, or set "
        f"PYTHONPATH"
    )


def _check_defined(file: Path, spec: str) -> None:
    """Some statement gives the function's name a value; whether it is a function its call will show."""
    module, _, function = spec.partition(":")
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the import will say so
        return
    nodes = list(ast.walk(tree))
    words = {getattr(node, key, None) for node in nodes for key in ("id", "name", "asname")}
    if function in words or "*" in words or words & {*NAMES_AT_WILL, "setattr", "__getattr__"}:
        return
    names = [node.name for node in tree.body if isinstance(node, DEFINITIONS) and not node.name.startswith("_")]
    offered = f"it has {', '.join(names[:5])}" if names else "it has none"
    raise CompressError(
        f"{spec}: {module} has no function {function} ({offered}){errors.nearest_name(function, names)}"
    )


@contextlib.contextmanager
def importable(source: UserSource) -> Iterator[None]:
    """Inside, the source's modules are imported from its files, not from others of their names that were before."""
    hashes = {file: hashlib.sha256(_code(file)).hexdigest() for file in source.files.values()}
    if any(_is_other(name, file, hashes[file]) for name, file in source.files.items()):
        for name in source.files:
            sys.modules.pop(name, None)
    _IMPORTED.update(hashes)
    place, writes = str(source.place), sys.dont_write_bytecode
    sys.path.insert(0, place)
    sys.dont_write_bytecode = True  # of two edits within a second the compiled file would keep the first
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        with contextlib.suppress(ValueError):
            sys.path.remove(place)


def _is_other(name: str, file: Path, code: str) -> bool:
    """Whether a module of that name is imported already, from another file or from other code in it."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    return loaded is not None and (Path(loaded).resolve() != file.resolve() or _IMPORTED.get(file, code) != code)


def _closure(spec: str, place: Path) -> UserSource:
    """The module in that folder, the packages it is in, and what these import from there, in turn."""
    files: dict[str, Path] = {}
    module = spec.partition(":")[0]
    wanted, own = [module], module.partition(".")[0]
    installed = place.name in INSTALLED or place == Path(os.__file__).parent
    while wanted:
        name = wanted.pop()
        top = name.partition(".")[0]
        file = _file(name, place)
        if name in files or file is None or (top != own and (installed or top in OURS)):
            continue
        files[name] = file
        wanted += [name.rpartition(".")[0]] if "." in name else []
        wanted += _imports(file, name if file.name == "__init__.py" else name.rpartition(".")[0])
    return UserSource(spec, place, files)


def _file(module: str, place: Path) -> "Path | None":
    base = place.joinpath(*module.split("."))
    return next((file for file in (base / "__init__.py", base.with_name(f"{base.name}.py")) if file.is_file()), None)


def _installed(module: str) -> "Path | None":
    """The folder on the import path that the module lies in."""
    # not importlib.util.find_spec, which finds what is imported already, and may be gone
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    specs = (finder.find_spec(module.partition(".")[0], None) for finder in finders)
    spec = next((spec for spec in specs if spec is not None), None)
    if spec is None:
        return None
    roots = [Path(where).parent.resolve() for where in (spec.submodule_search_locations or [spec.origin or ""])]
    return next((root for root in roots if _file(module, root)), roots[0])


def _imports(file: Path, package: str) -> Iterator[str]:
    """The modules that the statements of a file may name; `package` is what its relative ones start from."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):  # the import will say so
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            yield from filter(None, [base, *(f"{base}.{alias.name}".lstrip(".") for alias in node.names)])


def _code(file: Path, function: str = "") -> bytes:
    """The file without comments and blank lines, and without what `function` has no use for; as it is where that
    cannot be told."""
    content = file.read_bytes()
    try:
        tokens = list(tokenize.tokenize(io.BytesIO(content).readline))
        lines = re.split("\r\n|\r|\n", content.decode(tokens[0].string))  # as Python counts them
        beside = _beside(ast.parse(content), function) if function else set()
    except (SyntaxError, ValueError, tokenize.TokenError):
        return content
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column].rstrip()
    said = [token for token in tokens[1:] if token.type not in _UNSAID]
    rows = {row for token in said for row in range(token.start[0], token.end[0] + 1)} - beside
    return "\n".join(line for row, line in enumerate(lines, 1) if row in rows).encode()


def _beside(tree: ast.Module, function: str) -> set[int]:
    """The lines of functions and classes that nothing names which `function` needs; none where names are made up.

    All else at the file's top level runs when it is imported, and counts, as do decorated ones, which may register.
    """
    apart = {part.name: part for part in tree.body if isinstance(part, DEFINITIONS) and not part.decorator_list}
    kept: list[ast.AST] = [part for part in tree.body if apart.get(getattr(part, "name", "")) is not part]
    needed = {function, *_named(kept)}
    while more := needed & apart.keys():
        kept += (parts := [apart.pop(name) for name in sorted(more)])
        needed |= _named(parts)
    if any(isinstance(node, ast.Name) and node.id in NAMES_AT_WILL for part in kept for node in ast.walk(part)):
        return set()
    return {row for part in apart.values() for row in range(part.lineno, (part.end_lineno or part.lineno) + 1)}


def _named(parts: Sequence[ast.AST]) -> set[str]:
    """Every name, attribute and string in them."""
    nodes = [node for part in parts for node in ast.walk(part)]
    words = [getattr(node, key, None) for node in nodes for key in ("id", "attr", "value", "name")]
    return {word for word in words if isinstance(word, str)}


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    changed: Sequence[str] = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    words = [
        f"{name} {'changed' if name in old and name in new else 'is new' if name in new else 'is gone'}"
        for name in changed
    ]
    return ", ".join(words[:3]) + (", …" if len(words) > 3 else "")
