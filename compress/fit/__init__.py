"""The one training loop: attack, update, validate, checkpoint, select.

Every random draw comes from (seed, epoch, step), so a run that is killed and resumed at its last checkpoint ends in
the same weights, bit for bit, on one machine with the same versions and thread count.
"""

from compress.fit.checkpoint import CHECKPOINT, KEEP, METRICS, kept
from compress.fit.loop import fit
from compress.fit.passes import Guide, Passes
from compress.fit.schedule import rate
from compress.fit.speed import device
from compress.fit.watch import collapsed

__all__ = ["CHECKPOINT", "KEEP", "METRICS", "Guide", "Passes", "collapsed", "device", "fit", "kept", "rate"]
