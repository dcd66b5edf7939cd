"""The device side: runners, attacks without gradients, latency, evidence, statement. numpy and a runtime, no torch."""

from edge.runner import open_runner

__all__ = ["open_runner"]
