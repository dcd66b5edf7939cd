"""How this program starts itself again: the bundle it runs from, else the package."""

import sys
from pathlib import Path

import edge


def command(*args: str) -> list[str]:
    """The command line of another process of this program with these arguments."""
    home = Path(edge.__file__).parent.parent
    return [sys.executable, *([str(home)] if home.is_file() else ["-m", "edge"]), *args]
