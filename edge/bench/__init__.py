"""Latency by scenario: single-stream, offline, camera, batch sizes. Raw samples kept, warm-up apart, copies inside."""

from edge.bench.ask import Ask
from edge.bench.measure import Subject, Timed, check, compared, measure

__all__ = ["Ask", "Subject", "Timed", "check", "compared", "measure"]
