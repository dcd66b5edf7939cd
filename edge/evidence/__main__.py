"""`python -m edge.evidence [--sysroot DIR] [--record DIR]`: a machine's state as JSON on stdout."""

import argparse
import json
from pathlib import Path

from edge.evidence.snapshot import snapshot


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m edge.evidence", description=__doc__)
    parser.add_argument("--sysroot", type=Path, default=Path("/"), help="a recorded tree instead of this machine")
    parser.add_argument("--record", type=Path, help="copy what is read into this new folder")
    options = parser.parse_args()
    if not options.sysroot.is_dir():
        parser.error(f"{options.sysroot}: no folder; give a recorded tree, or nothing for this machine")
    if options.record is not None and options.record.exists():
        parser.error(f"{options.record}: exists already; give a folder that does not")
    print(json.dumps(snapshot(options.sysroot, record=options.record), indent=2, ensure_ascii=False, allow_nan=False))


if __name__ == "__main__":
    main()
