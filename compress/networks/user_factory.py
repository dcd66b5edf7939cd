"""A network that a user's function makes, `module:function`, called with what it takes of channels, classes, size."""

from collections.abc import Callable, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Any

from torch import nn

from compress.networks.base import Classifier
from compress.networks.foreign_network import Foreign, guarded
from edge.core.errors import CompressError
from edge.core.user_code import load_function, named_arguments, required_arguments, user_code
from edge.core.user_source import find_source, importable

#: What people call these in the code of networks. Other arguments keep their defaults, whatever `**kwargs` would take.
CLASSES = (
    "num_classes",
    "n_classes",
    "nb_classes",
    "class_num",
    "num_class",
    "n_class",
    "nclasses",
    "classes",
    "num_labels",
    "n_labels",
    "out_classes",
)
CHANNELS = (
    "in_chans",
    "in_channels",
    "in_channel",
    "input_channels",
    "image_channels",
    "img_channels",
    "in_ch",
)
MAYBE_CHANNELS = ("num_channels", "n_channels", "nchannels", "channels")
SIZES = (
    "img_size",
    "image_size",
    "input_size",
    "size",
    "image_dim",
    "img_dim",
    "input_resolution",
    "resolution",
    "imsize",
    "im_size",
)
SHAPES = ("input_shape", "in_shape", "image_shape", "img_shape")
SIDES = (
    ("img_height", "img_width"),
    ("image_height", "image_width"),
    ("input_height", "input_width"),
    ("height", "width"),
)
#: Of images under a name that is used for layers too: a default above it, as in `channels=64`, is a layer's.
MOST_CHANNELS = 4


def build_factory(
    spec: str,
    *,
    channels: int,
    classes: int,
    size: "tuple[int, int] | None",
    code: "Mapping[str, str] | None" = None,
    place: "Path | None" = None,
) -> Classifier:
    """The network that `module:function` makes; 0 and None: not known, so not passed.

    `code` and `place`: what its module's source must be, and where it lay.
    """
    net = _call(spec, channels, classes, size, code, place)
    return guarded(net, spec) if isinstance(net, Classifier) else Foreign(net, spec, classes)


def _call(
    spec: str,
    channels: int,
    classes: int,
    size: "tuple[int, int] | None",
    code: "Mapping[str, str] | None",
    place: "Path | None",
) -> nn.Module:
    source = find_source(spec, code=code, place=place)
    _, function = load_function(spec, spec, source)
    if isinstance(function, nn.Module):
        raise CompressError(f"{spec}: is a network, not a function; write a function that makes one and returns it")
    passed = arguments_of(function, channels, classes, size)
    if wanted := [name for name in required_arguments(function) if name not in passed]:
        known = all(name in arguments_of(function, 1, 1, (1, 1)) for name in wanted)
        fix = (
            "give --data, which says them"
            if known
            else "give a function that needs none beside classes, channels and size of its images, by names like "
            "num_classes, in_chans, img_size"
        )
        raise CompressError(f"{spec}: needs arguments ({', '.join(wanted)}); {fix}")
    with user_code(f"{spec}: called with {in_words(passed)}" if passed else spec, "mend it"), importable(source):
        network = function(**passed)
    if isinstance(network, type):
        raise CompressError(f"{spec}: returned the class {network.__name__}; return an object of it")
    if not isinstance(network, nn.Module):
        raise CompressError(f"{spec}: returned a {type(network).__name__}; a torch.nn.Module is needed")
    return network


def passed_arguments(spec: str, channels: int, classes: int, size: "tuple[int, int] | None") -> str:
    """What the function is called with, in words; "" where it takes none of it."""
    _, function = load_function(spec, spec, find_source(spec))
    return in_words(arguments_of(function, channels, classes, size))


def in_words(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items())


def arguments_of(
    function: Callable[..., Any], channels: int, classes: int, size: "tuple[int, int] | None"
) -> dict[str, Any]:
    """What of the images' channels, classes and size a function takes by name, with the values that it is given.

    A default that could be no such value, as a string or `channels=64`, is another argument's and stays.
    """
    known = named_arguments(function)
    values: dict[str, Any] = {}
    if classes:
        values |= {name: classes for name in CLASSES if _is_count(known.get(name))}
    if channels:
        values |= {name: channels for name in CHANNELS if _is_count(known.get(name))}
        values |= {name: channels for name in MAYBE_CHANNELS if _is_count(known.get(name), MOST_CHANNELS)}
    if size is not None:
        values |= {name: _sized(known[name], channels, size) for name in SIZES if _is_size(known.get(name))}
        for sides in SIDES:
            if all(_is_count(known.get(name)) for name in sides):
                values |= dict(zip(sides, size, strict=True))
    if size is not None and channels:
        values |= {name: (channels, *size) for name in SHAPES if _is_size(known.get(name))}
    return {name: values[name] for name in known if name in values}


def _is_count(parameter: "Parameter | None", most: "int | None" = None) -> bool:
    """Whether there is such an argument, and its default, if any, is a whole number that may be one."""
    if parameter is None:
        return False
    default = parameter.default
    if default is None or default is Parameter.empty:
        return True
    return isinstance(default, int) and not isinstance(default, bool) and (most is None or default <= most)


def _is_size(parameter: "Parameter | None") -> bool:
    """Whether there is such an argument, and its default, if any, is a side, or sides."""
    return _is_count(parameter) or (parameter is not None and isinstance(parameter.default, tuple | list))


def _sized(parameter: Parameter, channels: int, size: tuple[int, int]) -> "int | tuple[int, ...]":
    """The size as the argument has it: one number where images are square, unless it asks for several."""
    default = parameter.default
    if isinstance(default, tuple | list):
        return (channels, *size) if len(default) == 3 else size
    several = any(word in str(parameter.annotation).lower() for word in ("tuple", "list", "sequence"))
    return size[0] if size[0] == size[1] and not several else size
