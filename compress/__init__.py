"""robust-compress: from an adversarially robust teacher to a verified model on the device."""

from edge import __version__ as __version__
