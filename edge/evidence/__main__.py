"""`python -m edge.evidence [--sysroot DIR] [--record DIR]`: a machine's state as JSON on stdout."""

import argparse
import json
from pathlib import Path

from edge.evidence.snapshot import snapshot


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edge.evidence", description=__doc__)
    parser.add_argument("--sysroot", type=Path, default=Path("/"), help="a recorded tree instead of this machine")
    parser.add_argument("--record", type=Path, help="copy what is read into this new folder")
    given = parser.parse_args()
    if not given.sysroot.is_dir():
        parser.error(f"{given.sysroot}: no folder; give a recorded tree, or nothing for this machine")
    if given.record is not None and given.record.exists():
        parser.error(f"{given.record}: exists already; give a folder that does not")
    print(json.dumps(snapshot(given.sysroot, record=given.record), indent=2, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main()
