"""Classes and clusters by name or number, as analysts call them."""

import difflib
from collections.abc import Sequence

import numpy as np

MOST_LISTED = 20


CLASS, CLUSTER = ("class", "classes"), ("cluster", "clusters")


def class_number(names: Sequence[str], name_or_number: str | int | np.integer, what: tuple[str, str] = CLASS) -> int:
    """The number of a class, or of a cluster, given by name or number. what: what it is called, one and many.

    Raises ValueError for an unknown class, listing the known ones (of many, the first and those that look alike), and for
    a name that several classes have.
    """
    if isinstance(name_or_number, str):
        numbers = [number for number, name in enumerate(names) if name == name_or_number]
        if len(numbers) > 1:
            raise ValueError(f"{name_or_number!r} is the name of the {what[1]} {numbers}; give the number")
    else:
        numbers = [number for number in range(len(names)) if number == name_or_number]
    if not numbers:
        raise ValueError(f"unknown {what[0]} {name_or_number!r}; {_listed(names, str(name_or_number), what[1])}")
    return numbers[0]


def _listed(names: Sequence[str], near: str, many: str) -> str:
    if len(names) <= MOST_LISTED:
        return f"the {many} are {dict(enumerate(names))}"
    alike = difflib.get_close_matches(near, names, n=5)
    meant = f"; alike are {alike}" if alike else ""
    return f"the {len(names):,} {many} begin with {dict(enumerate(names[:MOST_LISTED]))}{meant}"
