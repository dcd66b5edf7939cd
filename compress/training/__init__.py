"""The one training loop: attack, update, validate, checkpoint, select.

Every random draw comes from (seed, epoch, step), so a run that is killed and resumed at its last checkpoint ends in
the same weights, bit for bit, on one machine with the same versions and thread count.
"""

from compress.training.checkpoint import CHECKPOINT, KEEP, METRICS, kept
from compress.training.loop import fit
from compress.training.passes import Guide, Passes, device
from compress.training.schedule import rate
from compress.training.watch import collapsed

__all__ = ["CHECKPOINT", "KEEP", "METRICS", "Guide", "Passes", "collapsed", "device", "fit", "kept", "rate"]
