"""What else the machine does: processor time by kind, time limits that bit, memory."""

from edge.evidence.tree import Tree

TICKS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
IDLE = ("idle", "iowait")


def ticks(text: "str | None") -> dict[str, int]:
    """The first line of /proc/stat, in ticks over all cores since the machine started; {} where it is not one.

    `busy` is all but idle, waiting and stolen time; `steal` is time in which the host ran something else.
    """
    fields = (text or "").partition("\n")[0].split()
    if len(fields) < 1 + len(TICKS) or fields[0] != "cpu" or not all(map(_whole, fields[1:9])):
        return {}
    counted = dict(zip(TICKS, map(int, fields[1:9]), strict=True))
    busy = sum(value for name, value in counted.items() if name not in (*IDLE, "steal"))
    return {"busy": busy, "steal": counted["steal"], "total": sum(counted.values())}


def process_ticks(text: "str | None") -> "int | None":
    """User and system time of /proc/PID/stat, all threads, in ticks. Its second field may hold anything, blanks too."""
    fields = (text or "").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12]) if len(fields) > 12 and all(map(_whole, fields[11:13])) else None


def limit_file(tree: Tree) -> "str | None":
    """Where this process's control group counts the periods in which its time limit bit (version 2, else 1)."""
    listed = (tree.text("proc/self/cgroup") or "").splitlines()
    for line in listed:
        _, names, group = [*line.split(":", 2), "", ""][:3]
        base = {"": "sys/fs/cgroup", "cpu": "sys/fs/cgroup/cpu", "cpu,cpuacct": "sys/fs/cgroup/cpu,cpuacct"}.get(names)
        path = f"{base}/{group.strip('/')}/cpu.stat".replace("//", "/") if base and ".." not in group else ""
        if path and "nr_throttled" in (tree.text(path) or ""):
            return path
    return None


def limited(text: "str | None") -> "int | None":
    """`nr_throttled` of a cpu.stat: periods in which the time limit stopped the group."""
    for line in (text or "").splitlines():
        name, _, value = line.partition(" ")
        if name == "nr_throttled" and _whole(value):
            return int(value)
    return None


def memory_sizes(tree: Tree) -> "dict[str, int] | None":
    """{total_bytes, available_bytes, swap_total_bytes, swap_used_bytes} of /proc/meminfo."""
    sizes = {}
    for line in (tree.text("proc/meminfo") or "").splitlines():
        name, _, rest = line.partition(":")
        fields = rest.split()
        if fields and _whole(fields[0]):
            sizes[name] = int(fields[0]) * 1024
    if "MemTotal" not in sizes:
        tree.lacks("memory", "proc/meminfo has no MemTotal", "look whether /proc is mounted")
        return None
    swap = sizes.get("SwapTotal", 0)
    return {
        "total_bytes": sizes["MemTotal"],
        "available_bytes": sizes.get("MemAvailable", 0),
        "swap_total_bytes": swap,
        "swap_used_bytes": swap - sizes.get("SwapFree", swap),
    }


def _whole(text: str) -> bool:
    """Whether it is a number of digits alone, of a size that a machine has."""
    return text.isascii() and text.isdigit() and len(text) < 20
