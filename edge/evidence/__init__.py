"""The state of the machine that measured, before, during and after: what figures of latency and energy stand on."""

from edge.evidence.samples import Samples
from edge.evidence.snapshot import snapshot
from edge.evidence.watch import Sampler, Watch

__all__ = ["Sampler", "Samples", "Watch", "snapshot"]
