"""What a board's Python is given first: it takes the bundle unless it has it, and becomes the bundle's server.

Runs on any Python 3, so that an old one can say so. It reads one JSON line of parameters and answers each step by
one line that begins with a mark, so that what a login script prints on stdout is told apart:

    → {"sha256", "bytes", "python", "minimum"}
    ← MARK {"step": "send"}                    the bundle is not there: its bytes follow
    ← MARK {"step": "ready"}                   the server takes over
    ← MARK {"step": "error", "message": …}
"""

MARK = "robust-compress-board"
MINIMUM = (3, 10)

SOURCE = """\
import sys
sys.path[:] = [p for p in sys.path if p]
import hashlib, json, os, shutil, tempfile
MARK = "robust-compress-board"

def tell(**what):
    os.write(1, (MARK + " " + json.dumps(what) + "\\n").encode())

def main():
    read = sys.stdin.buffer
    ask = json.loads(read.readline().decode())
    python = ask["python"] or sys.executable
    if not ask["python"] and sys.version_info[:2] < tuple(ask["minimum"]):
        raise OSError("python3 is %d.%d, %d.%d or newer is needed; install one and name it by --python"
                      % (sys.version_info[0], sys.version_info[1], ask["minimum"][0], ask["minimum"][1]))
    if shutil.which(os.path.expanduser(python)) is None:
        raise OSError("%s: no program that can be run there; give the path of a Python by --python" % python)
    python = shutil.which(os.path.expanduser(python))
    own = os.environ.get("ROBUST_COMPRESS_CACHE")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(own or os.path.join(cache, "robust-compress"), "board", "bundles")
    path = os.path.join(folder, ask["sha256"] + ".pyz")
    if not right(path, ask["sha256"]):
        os.makedirs(folder, exist_ok=True)
        tell(step="send")
        content = b""
        while len(content) < ask["bytes"]:
            part = read.read(min(65536, ask["bytes"] - len(content)))
            if not part:
                raise OSError("the bundle came incomplete")
            content += part
        store(folder, path, content, ask["sha256"])
    tell(step="ready")
    os.execv(python, [python, path, "serve"])

def right(path, sha256):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest() == sha256
    except FileNotFoundError:
        return False

def store(folder, path, content, sha256):
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError("the bundle came damaged")
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, path)
    except BaseException:
        os.unlink(name)
        raise

try:
    main()
except OSError as fault:
    if fault.errno is None:
        tell(step="error", message=str(fault))
    else:
        fix = "free some space there, or set ROBUST_COMPRESS_CACHE there to a folder on another disk"
        where = fault.filename or "its cache"
        tell(step="error", message="%s: cannot be written (%s); %s" % (where, fault.strerror, fix))
except Exception as fault:
    tell(step="error", message=repr(fault))
"""
