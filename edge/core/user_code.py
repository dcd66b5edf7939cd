"""Code of users and of other packages: found by `module:function`, called at a seam that tells its faults from ours.

Standard library only.
"""

import contextlib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NoReturn

from edge.core import errors
from edge.core.errors import CompressError
from edge.core.foreign_messages import told
from edge.core.progress import say
from edge.core.user_source import UserSource, importable

#: Frames below these are not the user's: this package's own, the standard library's, those of installed packages.
_OWN = tuple(
    os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), name) + os.sep
    for name in ("compress", "export", "edge")
)
_INSTALLED = ("site-packages", "dist-packages", os.path.dirname(os.__file__) + os.sep, "<frozen ")


@contextlib.contextmanager
def user_code(what: str, fix: str, on: str = "") -> Iterator[None]:
    """Around a call of a user's code: whatever it raises is one line, and what it prints goes to stderr.

    The working directory is on the path, for what the code imports while it runs.
    """
    try:
        with working_directory(), contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as fault:
        raise_user_fault(fault, what, fix, on)


def raise_user_fault(fault: BaseException, what: str, fix: str, on: str = "") -> NoReturn:
    """`WHAT: raised ValueError: … ON at net.py:12; FIX`, from whatever a user's code raised, a script's exit too.

    A CompressError and memory at its end are raised as they are.
    """
    if isinstance(fault, CompressError) or (not isinstance(fault, OSError) and errors.machine_fault(fault)):
        raise fault
    raise CompressError(f"{what}: raised {in_words(fault)}{on}{place_of(fault)}; {fix}") from fault


@contextlib.contextmanager
def working_directory() -> Iterator[None]:
    """The working directory first on the path. Code that leaves it is brought back: a command's paths begin there."""
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise errors.MachineFault("the working directory was deleted; change to one that is there") from None
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the code may have taken it off itself
            sys.path.remove(here)
        with contextlib.suppress(OSError):
            if (there := os.getcwd()) != here:
                os.chdir(here)
                say(f"the working directory is {here} again; code of yours had changed it to {there}")


def load_function(spec: str, what: str, source: "UserSource | None" = None) -> "tuple[ModuleType, Callable[..., Any]]":
    """The module and the function written `module:function`, imported with the working directory on the path.

    `what` is how a fault calls it; `source`: what it must be imported from.
    """
    module_name, _, name = spec.partition(":")
    if not all(part.isidentifier() for part in [*module_name.split("."), name]):
        raise CompressError(f"{what}: not of the form module:function, like my_module:make")
    importlib.invalidate_caches()
    try:
        with (
            user_code(f"{what}: importing {module_name}", "mend the module"),
            importable(source) if source else contextlib.nullcontext(),
        ):
            module = importlib.import_module(module_name)
    except CompressError as fault:
        missing = fault.__cause__.name if isinstance(fault.__cause__, ModuleNotFoundError) else None
        if missing and f"{module_name}.".startswith(f"{missing}."):
            raise CompressError(
                f"{what}: no module {missing} in {os.getcwd()} or installed; "
                f"run where {missing.split('.')[0]}.py lies, or set PYTHONPATH"
            ) from None
        raise
    function = getattr(module, name, None)
    if not callable(function):
        here = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        offered = f"it has {', '.join(sorted(here)[:5])}" if here else "it has none"
        raise CompressError(
            f"{what}: {module_name} has no function {name} ({offered}){errors.nearest_name(name, here)}"
        )
    return module, function


def required_arguments(function: Callable[..., Any]) -> "list[str]":
    """The names of the arguments that a call must give."""
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        parameter.name
        for parameter in _parameters(function)
        if parameter.default is inspect.Parameter.empty and parameter.kind not in optional
    ]


def named_arguments(function: Callable[..., Any]) -> "dict[str, inspect.Parameter]":
    """What a call may give by name; `**kwargs` takes any and names none."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {parameter.name: parameter for parameter in _parameters(function) if parameter.kind in kinds}


def _parameters(function: Callable[..., Any]) -> "list[inspect.Parameter]":
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # of some built-in ones nothing is known
        return []


def in_words(fault: BaseException) -> str:
    """The exception's type and message on one line."""
    message = told(" ".join(str(fault).split()), 200)
    return f"{type(fault).__name__}: {message}" if message else type(fault).__name__


def place_of(fault: BaseException) -> str:
    """` at net.py:12`, the last line of the user's own on the way to the fault; empty where there is none."""
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if not frame.filename.startswith(_OWN)]
    own = [frame for frame in frames if not any(part in frame.filename for part in _INSTALLED)]
    return f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
