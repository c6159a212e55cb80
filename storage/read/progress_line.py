"""How far something is that takes long: a function of the caller's, or a line that is written over and over.

A line needs no other package, and is the same in a terminal and in a notebook.
"""

import sys
from collections.abc import Callable

__all__ = ["Progress", "progress_line", "reporting"]

# Called with what is being read, how much is done and how much there is, in bytes or rows.
Progress = Callable[[str, int, int], None]

BAR = 30


def reporting(progress: Progress | bool | None) -> Progress:
    """The function to call: the one that was given, a line on stderr for True, one that does nothing for False and None."""
    if callable(progress):
        return progress
    return progress_line() if progress else lambda what, done, total: None


def progress_line() -> Progress:
    """Writes "attribution  |#####     |  50%" on stderr, where that changes, and a new line once all is done."""
    last: list[tuple[str, int]] = []

    def write(what: str, done: int, total: int) -> None:
        share = 100 * done // total if total else 100
        if last and last[-1] == (what, share):
            return
        last[:] = [(what, share)]
        filled = "#" * (BAR * share // 100)
        end = "\n" if share == 100 else ""
        sys.stderr.write(f"\r{what:<24} |{filled:<{BAR}}| {share:3d}%{end}")
        sys.stderr.flush()

    return write
