"""robust-compress: from an adversarially robust teacher to a verified model on the device."""

__version__ = "0.1.0"
