"""The device side: execute an exported classifier, attack it without gradients, time it, state what was found.

numpy and one runtime, Python 3.10 or newer; the runtime is imported when a runner is opened.
"""

from edge.runner import open_runner

__all__ = ["open_runner"]
