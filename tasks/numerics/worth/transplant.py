"""Does a region alone make the class? It is pasted into images that are called something else.

Geometry finds strong shortcuts and misses weak ones; this finds what the network uses, and only that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["PASTED", "Classes", "Transplant", "transplant"]

PASTED = 64

# From images, float32 (row, y, x, channel), to the class that the model gives each, (row,).
Classes = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass(frozen=True)
class Transplant:
    """members, hosts: positions of the images that were pasted from and into, (pasted,). changed: which became the class."""

    members: NDArray[np.int64]
    hosts: NDArray[np.int64]
    changed: NDArray[np.bool_]

    @property
    def score(self) -> float:
        return float(self.changed.mean())


def transplant(
    classes: Classes,
    images: NDArray[np.float32],
    members: NDArray[np.int64],
    hosts: NDArray[np.int64],
    region: NDArray[np.bool_],
    target: int,
    rng: np.random.Generator,
) -> Transplant | None:
    """Pastes a region of members into hosts; None where there is no member, no host or no region.

    images: (row, y, x, channel). members, hosts: positions in it; hosts are called something else than the target.
    region: (y, x). target: the class that hosts may become.
    """
    if not len(members) or not len(hosts) or not region.any():
        return None
    pasted, into = (rng.choice(some, PASTED, replace=len(some) < PASTED) for some in (members, hosts))
    mixed = np.where(region[None, ..., None], images[pasted], images[into])
    return Transplant(pasted, into, classes(mixed) == target)
