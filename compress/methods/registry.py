"""Every method by name: what it is, its options in full, its objective. No torch before an objective is built."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from compress import names
from compress.methods.base import Classifier, Method, MethodOptions, Preparation, Tensor
from compress.methods.objective import Combined, Objective
from edge.core import errors, plugins
from edge.core.errors import CompressError


def find_method(name: str) -> Method:
    """The method of that name; one that no package here adds: CompressError."""
    if name not in names.METHODS:
        return plugins.load("methods", errors.known_name("method", name, names.method_names()), Method)
    method: Method = importlib.import_module(f"compress.methods.{name.replace('-', '_')}").METHOD
    return method


def every_method() -> tuple[Method, ...]:
    """Ours, then those of installed packages; of these a broken one is left out with a line."""
    names.method_names()  # refuses what has a name of ours
    return (*map(find_method, names.METHODS), *plugins.loaded("methods", Method))


def options_of(name: str) -> type[MethodOptions]:
    """The options of a method, which know their defaults."""
    return find_method(name).options


def hosts() -> tuple[str, ...]:
    """The methods that stand alone."""
    return tuple(method.name for method in every_method() if method.host is None)


def teacher_methods() -> tuple[str, ...]:
    """The methods that a teacher is trained by: they stand alone and ask none themselves."""
    return tuple(name for name in hosts() if find_method(name).teachers == 0)


def additions() -> dict[str, str]:
    """The methods that add to another one, their host: the one beside them in a list, the one that their option names,
    or the one here."""
    return {method.name: method.host for method in every_method() if method.host is not None}


def checked_method(written: Any) -> str | list[str]:
    """A method as it is written, a name or several; of several at most one stands without a host."""
    several = written if isinstance(written, list | tuple) else [written]
    for name in several:
        if not isinstance(name, str):
            raise CompressError(f"method {name!r} is no name; write vgap, or [adaad, vgap]")
        errors.known_name("method", name, names.method_names())
    alone = [name for name in several if find_method(name).host is None]
    if not several or len(alone) > 1 or len(set(several)) < len(several):
        raise CompressError(
            f"method [{', '.join(several)}]: one method, or one and what is added to it ({', '.join(additions())}), "
            f"each once"
        )
    return several[0] if len(several) == 1 else list(several)


def method_parts(method: str | Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """A method's host, then what is added to it; of one that names no host, the host that its options do."""
    several = [method] if isinstance(method, str) else list(method)
    default_hosts = {name: find_method(name).host for name in several}
    host = [name for name in several if default_hosts[name] is None]
    if not host:
        own = options if isinstance(method, str) else options.get(several[0], {})
        host = [own.get("host", default_hosts[several[0]])]
    return [*host, *(name for name in several if default_hosts[name] is not None)]


def reads_features(method: str | Sequence[str]) -> bool:
    """Whether any part of a method compares features."""
    return any(find_method(name).reads_features for name in ([method] if isinstance(method, str) else method))


def needs_teacher(method: str | Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether a method, the host that it is built on or what is added to it asks a teacher."""
    return any(find_method(name).teachers > 0 for name in method_parts(method, options))


def needs_clean_teacher(method: str | Sequence[str], options: Mapping[str, Any]) -> bool:
    """Whether a method, or the host that it is built on, asks a second teacher, trained on clean images."""
    return any(find_method(name).teachers > 1 for name in method_parts(method, options))


def options_in_full(method: str | Sequence[str], options: Mapping[str, Any]) -> dict[str, Any]:
    """A method's options in full, defaults filled in; of several methods by name, with the host that they share.

    pydantic's ValidationError for options that are wrong, CompressError for names that are.
    """
    if isinstance(method, str):
        return options_of(method)(**options).model_dump()
    for name in options:
        errors.known_name(f"method in the options of {', '.join(method)}:", name, tuple(method))
    by_name = {name: dict(options.get(name) or {}) for name in method}
    default_hosts = {name: host for name in method if (host := find_method(name).host) is not None}
    named = {name: by_name[name]["host"] for name in default_hosts if "host" in by_name[name]}
    host = next(
        (name for name in method if name not in default_hosts), next(iter((named or default_hosts).values()), None)
    )
    for name, other in named.items():
        if other != host:
            raise CompressError(f"{name}.host: {other}, but the method is built on {host}; leave it out")
    return {
        name: options_of(name)(
            **by_name[name], **({"host": host} if name in default_hosts and name not in named else {})
        ).model_dump()
        for name in method
    }


def build_objective(
    method: str | Sequence[str],
    options: Mapping[str, Any],
    student: Classifier,
    teacher: Classifier | None = None,
    clean: Iterable[Tensor] = (),
    *,
    images: int = 0,
) -> Objective:
    """The objective of that name, or of several: a host and what is added to it, `options` then by name.

    `clean` is read only by methods that prepare themselves on training images; `images` is how many there are, for
    those that remember each.
    """
    preparation = Preparation(student, teacher, clean, images)

    by_name = {method: options} if isinstance(method, str) else options

    def built(name: str) -> Any:
        part = find_method(name)
        return part.objective(part.options(**by_name.get(name, {})), preparation)

    host_name, *names_added = method_parts(method, options)
    host: Objective = built(host_name)
    if not names_added:
        return host
    from compress.networks.undisturbed import without_trace

    with without_trace(student):  # what an addition draws for its own weights is no draw of the host's
        return Combined(host, [built(name) for name in names_added])
