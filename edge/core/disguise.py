"""What a file is that is not what its name says: a downloaded error page, a pointer in a file's place, an archive."""

#: How such files begin, letters in lower case and blanks before them left out → what they are, and what to do.
BEGINNINGS = (
    (b"version https://git-lfs", "is a Git LFS pointer, not the file; run: git lfs pull"),
    (b"<!doctype", "is an HTML page, as a download service answers with in place of the file; download it again"),
    (b"<html", "is an HTML page, as a download service answers with in place of the file; download it again"),
    (b"<?xml", "is an XML page, as a download service answers with in place of the file; download it again"),
    (b"{", "is text (JSON), as a download service answers with in place of the file; download it again"),
    (b"pk\x03\x04", "is a zip archive or a PyTorch checkpoint; give the file that is meant"),
    (b"\x1f\x8b", "is gzip-compressed; unpack it (gunzip)"),
    (b"\xfd7zxz", "is xz-compressed; unpack it (unxz)"),
    (b"7z\xbc\xaf", "is 7-zip-compressed; unpack it (7z x)"),
    (b"\x89hdf", "is an HDF5 file; give the file that is meant"),
)


def disguise(content: bytes) -> "str | None":
    """What the file is instead, in words that begin with a verb; None where nothing speaks of another kind."""
    if not content:
        return "is empty (0 bytes); download or export it again"
    start = content[:512].lstrip().lower()
    return next((what for beginning, what in BEGINNINGS if start.startswith(beginning)), None)
