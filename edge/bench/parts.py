"""Where a query's time goes, by runners that can tell: copy in, computation, copy out, and the host's rest."""

from typing import Any

import numpy as np

from edge.bench.stream import Stream
from edge.runtimes.runner import FULL_SCALE

MOST = 200
DEVICE = ("h2d_ms", "compute_ms", "d2h_ms")


def measure(stream: Stream) -> "dict[str, Any] | None":
    """Medians over queries of their own, since looking inside costs time; None of a runner that cannot tell.

    A runner that can has `timed_call(batch) -> (logits, {"h2d_ms", "compute_ms", "d2h_ms"})`, float32 in [0, 1].
    """
    call = getattr(stream.runner, "timed_call", None)
    if call is None:
        return None
    rows, batches, clock = [], stream.queries.batches, stream.clock
    for i in range(min(MOST, len(stream.samples_ns))):
        began = clock.now()
        images = stream.queries.images(batches[i % len(batches)])
        unit = images if images.dtype == np.float32 else images.astype(np.float32) / FULL_SCALE
        _, found = call(unit)
        total = (clock.now() - began) / 1e6
        device = [float(found[name]) for name in DEVICE]
        rows.append([*device, total - sum(device), total])
    medians = np.median(np.array(rows), 0)
    return {"n": len(rows), **dict(zip((*DEVICE, "host_ms", "total_ms"), map(float, medians), strict=True))}
