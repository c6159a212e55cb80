"""Which model a path holds: there or not, and the digest of its content, a file's or a folder's."""

import hashlib
from pathlib import Path

__all__ = ["digest_file", "is_there"]


def is_there(path: Path) -> bool:
    """Whether a file is there, or a folder that a model can be in."""
    return path.is_file() or path.is_dir()


def digest_file(path: Path) -> str:
    """The sha256 of a file; of a folder that over the relative path and the sha256 of each of its files, sorted by path."""
    if path.is_dir():
        digest = hashlib.sha256()
        files = [(file.relative_to(path).as_posix(), file) for file in path.rglob("*") if file.is_file()]
        for name, inside in sorted(files):
            digest.update(f"{digest_file(inside)}  {name}\n".encode())
        return digest.hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
