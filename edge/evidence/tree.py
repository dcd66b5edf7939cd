"""Reading a machine's own files and commands, live or as recorded, and keeping a list of what could not be read."""

import errno
import re
import shutil
import subprocess
from pathlib import Path

LIVE = Path("/")
COMMANDS = "commands"  # folder of a recorded tree: NAME.txt is what the command NAME printed
AS_ROOT = "run it as root (sudo), or leave it out"
OFF = "a sensor of a part that is switched off; read it again under load"
PATIENCE_S = 5.0
NUMBERS = re.compile("([0-9]+)")


class Tree:
    """The files below `root`, relative paths; `unreadable` collects {what, why, how} of everything not got.

    Below any other root than `/` the tree is a recording: commands are read from `commands/NAME.txt`, none is run.
    `record`: a folder to which everything that is read is copied, which makes such a recording.
    """

    def __init__(self, root: "Path | str" = LIVE, record: "Path | None" = None) -> None:
        self.root, self._record = Path(root), record
        self.live = self.root == LIVE
        self.unreadable: list[dict[str, str]] = []

    def text(self, path: str, what: str = "", how: str = "") -> "str | None":
        """A file's text without surrounding blanks; None where there is none.

        What is refused or faulty is always noted, what is absent only with `what`, its name for a person.
        """
        try:
            content = (self.root / path).read_text(errors="replace")
        except FileNotFoundError:
            if what:
                self.lacks(what, f"{path} is not there", how or "nothing to do: this machine has none")
        except PermissionError:
            self.lacks(what or path, f"{path} is readable for root alone", how or AS_ROOT)
        except OSError as fault:
            off = fault.errno in (errno.EAGAIN, errno.EINVAL, errno.EIO, errno.ENODATA)
            why = f"{path}: {fault.strerror or fault}"
            self.lacks(what or path, why, OFF if off else how or "look at what the kernel says: dmesg")
        else:
            self.keep(path, content)
            return content.strip("\n\0 \t") or None
        return None

    def keep(self, path: str, text: str) -> None:
        """Copy a text that was read into the recording, where one is made; the first reading of a file stays."""
        if self._record is not None and not (self._record / path).exists():
            place = self._record / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def number(self, path: str, what: str = "", how: str = "") -> "int | None":
        """A file that holds one integer; anything else is noted as unreadable."""
        text = self.text(path, what, how)
        if text is None:
            return None
        if not re.fullmatch(r"-?[0-9]{1,20}", text):
            self.lacks(what or path, f"{path} holds {text[:40]!r}, no number", "look at what the kernel says: dmesg")
            return None
        return int(text)

    def has(self, path: str) -> bool:
        """Whether the file is there, readable or not; what an unreadable folder hides is not."""
        try:
            return (self.root / path).exists()
        except OSError:
            return False

    def glob(self, pattern: str) -> list[str]:
        """Paths that match, in the order of the numbers in them: hwmon2 before hwmon10."""
        try:
            paths = [str(path.relative_to(self.root)) for path in self.root.glob(pattern)]
        except OSError as fault:
            self.lacks(pattern, str(fault.strerror), AS_ROOT)
            return []
        return sorted(paths, key=lambda path: [int(part) if part.isdigit() else part for part in NUMBERS.split(path)])

    def command(
        self, name: str, argv: "list[str]", *, seconds: float = PATIENCE_S, endless: bool = False
    ) -> "str | None":
        """What a command prints; `endless`: it never ends, what it printed within `seconds` is taken."""
        if not self.live:
            return self.text(f"{COMMANDS}/{name}.txt", argv[0], f"record what {' '.join(argv)} prints")
        printed = self._run(argv, seconds, endless)
        if printed is not None:
            self.keep(f"{COMMANDS}/{name}.txt", printed)
        return printed

    def _run(self, argv: "list[str]", seconds: float, endless: bool) -> "str | None":
        if shutil.which(argv[0]) is None:
            self.lacks(argv[0], "no such command", "nothing to do: this machine has none")
            return None
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            if endless:
                return (late.stdout or b"").decode(errors="replace")
            self.lacks(argv[0], f"{' '.join(argv)} did not end within {seconds:g} s", "look why it hangs")
        except OSError as fault:
            self.lacks(argv[0], str(fault.strerror), "look whether it can be run here")
        else:
            if done.returncode == 0:
                return done.stdout.decode(errors="replace")
            printed = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            why = f"{' '.join(argv)} exits {done.returncode}: {printed[-1][:120] if printed else 'without a word'}"
            self.lacks(argv[0], why, AS_ROOT)
        return None

    def lacks(self, what: str, why: str, how: str) -> None:
        """Note what is missing from the record, why, and what would bring it."""
        row = {"what": what, "why": why, "how": how}
        if row not in self.unreadable:
            self.unreadable.append(row)
