"""What does importing a 46 M-parameter checkpoint cost, beyond starting torch?

    python benchmarks/import_teacher.py

Saves a WRN-34-10 as TRADES publishes it (`module.` prefixes, an unused group: 48 M tensors, 193 MB) and runs `compress
teacher import … --no-check` five times, each beside a process that only imports the same modules. Appends a row to
benchmarks/results/import_teacher.jsonl: seconds (median) and peak memory over that baseline, and that memory over the
file's size.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.machine import where

RESULTS = Path(__file__).parent / "results" / "import_teacher.jsonl"
BASELINE = ["-c", "import torch, compress.cli.teacher, compress.cli.stage, compress.stages.teacher_import"]
MAKE = """
import sys, torch
from compress import networks
net = networks.build_network("wrn-34-10+sub_block1", channels=3, classes=10)
torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, sys.argv[1])
"""


def cost(args: list[str]) -> tuple[float, int]:
    """Seconds and peak resident bytes of a Python process."""
    began = time.monotonic()
    child = subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"failed: {args}")
    return time.monotonic() - began, usage.ru_maxrss * 1024


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "teacher.pt"
        subprocess.run([sys.executable, "-c", MAKE, str(file)], check=True)
        rounds = []
        for number in range(5):
            base = cost(BASELINE)
            out = str(Path(folder) / f"t{number}")
            full = cost(["-m", "compress", "teacher", "import", str(file), "--no-check", "--out", out])
            rounds.append((full[0] - base[0], full[1] - base[1]))
        row = {
            "file_bytes": file.stat().st_size,
            "seconds_beyond_import": round(statistics.median(seconds for seconds, _ in rounds), 2),
            "seconds_range": [round(min(s for s, _ in rounds), 2), round(max(s for s, _ in rounds), 2)],
            "peak_bytes_beyond_import": max(peak for _, peak in rounds),
            "peak_over_file": round(max(peak for _, peak in rounds) / file.stat().st_size, 2),
            "runs": len(rounds),
        }
    print(json.dumps(row))
    with open(RESULTS, "a") as rows:
        rows.write(json.dumps({**row, **where()}) + "\n")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
