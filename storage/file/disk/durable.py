"""Changes of the file system that survive a crash: a file is there whole under its name, or not at all.

The recipe is the usual one of POSIX: write under another name in the same folder, fsync the file, rename, fsync the
folder. Readers see the old or the new file, never half of one.
"""

import ctypes
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Another file system, one without links, and a file that has as many as it can have.
NO_LINKS = (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

# Of Linux's renameat2(2).
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def replacing(path: Path, *, temporary: Path | None = None, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path to write to; when the block ends it is made durable and renamed to `path`.

    temporary: the name to write under, in the folder of `path`; by default a name no one else uses.
    mode: permission bits the file gets before anyone can see it.
    If the block or the renaming fails, for whatever reason, the temporary file is removed and the error passes on (a
    full disk is an OSError); `path` is then as it was.
    """
    temporary = temporary or path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        if mode is not None:
            temporary.chmod(mode)
        sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def point_symlink(link: Path, target: Path) -> None:
    """Make `link` point to `target` in one step; a relative target is meant from the link's folder."""
    temporary = link.with_name(f"{link.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.symlink_to(target)
        os.replace(temporary, link)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(link.parent)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders or files of one file system change names, in one step. Returns False where that cannot be had.

    It takes Linux, glibc 2.28 and a file system that can; nothing has happened elsewhere. What is refused for another
    reason is an OSError.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = (AT_FDCWD, os.fsencode(one.absolute()), AT_FDCWD, os.fsencode(other.absolute()))
    if renameat2(*names, RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP):
            return False
        raise OSError(code, os.strerror(code), str(one))
    return True


def make_folder(path: Path) -> Path:
    """Create a folder and its missing parents, durably. Returns the path."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync(path.parent)
    return path


def link_or_copy(source: Path, target: Path) -> bool:
    """Give a file a second name, or copy it, durably, where the system links no files there. Returns whether it linked.

    What is refused for another reason, such as rights or a full disk, is an OSError.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        shutil.copyfile(source, target)
        sync(target)
        return False
    return True


def sync(path: Path) -> None:
    """Wait until the contents of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
