"""The network and the dataset by name. Configurations read this file, so it imports neither torch nor numpy."""

from compress.data import DatasetSource
from compress.networks import Network

PEBBLE = Network(
    "pebble",
    "stranger.pebble:build_pebble",
    {"pebble-8": "two convolutions, 8 and 16 channels", "pebble-16": "two convolutions, 16 and 32 channels"},
    pattern=r"pebble-([1-9]\d*)",
    editor=(r"pebble-[1-9]\d*",),
)

STRIPES = DatasetSource(
    "stripes",
    "striped images, 8×8, one channel, 3 classes",
    "stranger.stripes:load_stripes",
    path="none",
    eps="32/255",
)
