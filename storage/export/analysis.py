"""The analyses of a ViRelAy project: per class an embedding of where its attributions lie, and what became of its rows.

    class_NNNNN/index                (row,) uint32: position in the attribution file
    class_NNNNN/row                  (row,) int64: row number, for people; ViRelAy does not read it
    class_NNNNN/embedding/pca        (row, component) float32, with the variances as its attribute `eigenvalue`
    class_NNNNN/cluster/outcome      (row,) uint8: 0 right, 1 right but not trusted, 2 wrong, 3 wrong and not trusted
    class_NNNNN/cluster/prediction   (row,) uint32: what the rows of this label were taken for; in an analysis of the
                                     predicted class it is `label`: what the rows of this prediction are
    class_NNNNN/cluster/strategy     (row,) uint32: the row's strategy, 1 more than its number in /clusters of the store, 0
                                     for none; its attribute says their names. Only of Integrated Gradients, of which they
                                     are clusters, and of a store that has some

A group holds the rows whose explained class it is; a class without rows has none. Trusted are Integrated Gradients that
converged and Grad-CAM maps that are not empty.
"""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from storage.export.embedding import HeatFile, principal_components
from storage.file.layout import create_reserved, write_attributes

__all__ = ["class_group", "write_analysis"]

OUTCOME = "0 right, 1 right but not trusted, 2 wrong, 3 wrong and not trusted"
EMBEDDING = "Principal components of the attribution summed over channels and in cells, at norm 1: where it lies."
# Room for the values of a row and the groups of a class, generously.
ROW_BYTES, CLASS_BYTES = 64, 1 << 15


def class_group(number: int) -> str:
    """The group of a class, which is also its word_net_id: by it ViRelAy finds the name. Sorted as the numbers are."""
    return f"class_{number:05d}"


def write_analysis(
    path: Path,
    heat: HeatFile,
    rows: NDArray[np.int64],
    explained: NDArray[np.int64],
    other: tuple[str, NDArray[np.int64]],
    trusted: NDArray[np.bool_],
    strategies: tuple[Sequence[str], NDArray[np.int64]] | None = None,
) -> None:
    """Write the analysis of one method and target, class by class.

    heat: of the rows, in their order. rows, explained, trusted: (row,): number, explained class, as the module says.
    other: "prediction" or "label", and that class of each row. strategies: their names, and which each row has, -1 for none;
    None where the explanations have no such clusters.
    """
    name, classes = other
    present = np.unique(explained)
    with create_reserved(path, len(rows) * ROW_BYTES + (len(present) + 1) * CLASS_BYTES) as file:
        for number in present.tolist():
            positions = np.flatnonzero(explained == number)
            group = file.create_group(class_group(number))
            group["index"], group["row"] = positions.astype(np.uint32), rows[positions]
            components, variances = principal_components(heat, positions)
            embedding = group.create_dataset("embedding/pca", data=components)
            embedding.attrs["eigenvalue"] = variances
            write_attributes(embedding, {"description": EMBEDDING})
            outcome = 2 * (classes != explained)[positions] + ~trusted[positions]
            group["cluster/outcome"] = outcome.astype(np.uint8)
            write_attributes(group["cluster/outcome"], {"description": OUTCOME})
            group[f"cluster/{name}"] = classes[positions].astype(np.uint32)
            if strategies is not None:
                _write_strategies(group, strategies[0], strategies[1][positions])


def _write_strategies(group: h5py.Group, names: Sequence[str], numbers: NDArray[np.int64]) -> None:
    """In every group, for ViRelAy asks the first one which clusterings there are."""
    present = [number for number in np.unique(numbers).tolist() if number >= 0]
    said = ", ".join(["0 none", *(f"{number + 1} {names[number]}" for number in present)])
    group["cluster/strategy"] = (numbers + 1).astype(np.uint32)
    write_attributes(group["cluster/strategy"], {"description": said})
