"""Tables that a store has or has not: a group each, with an axis of its own beside those of rows.

PARTS     the files that hold the pictures of a store of layout virtual
CLUSTERS  the strategies by which the model recognises its classes, where any was found
DRIFT     what changed since the last night on the same images, where that had another model
"""

from dataclasses import dataclass

from storage.file.variable import TEXT, Variable

__all__ = ["CLUSTERS", "DRIFT", "PARTS", "TABLES", "Table"]


@dataclass(frozen=True)
class Table:
    """group: of its datasets. about: what it is. variables: its coordinates among them. since: as of a variable."""

    group: str
    about: str
    variables: tuple[Variable, ...]

    @property
    def since(self) -> int:
        """The first schema version that may have it."""
        return min(variable.since for variable in self.variables)


def _parts(name: str, dtype: str, units: str, title: str, description: str) -> Variable:
    return Variable(f"parts/{name}", dtype, ("part",), units, title, description, 3)


# A line for each file, in the order of their rows.
PARTS = Table(
    "parts",
    "Only in a store of layout virtual: the files that hold the images, attributions and maps of this one, which are HDF5 "
    "virtual datasets. Copy them with it: where one is missing, HDF5 itself reads NaN, and 0 for images.",
    (
        _parts("part", "int64", "1", "part number", "Parts in the order of their rows."),
        _parts("name", TEXT, "", "file name", "File of the part, as seen from this file's folder."),
        _parts("start", "int64", "1", "first row", "Number of the part's first row."),
        _parts("stop", "int64", "1", "row after the last", "One more than its last row."),
        _parts("bytes", "int64", "byte", "size", "Size of the part's file."),
        _parts("sha256", TEXT, "", "sha256", "Checksum of the part's file, hexadecimal."),
    ),
)


def _cluster(
    name: str, dtype: str, units: str, title: str, description: str, axes: tuple[str, ...] = ("cluster",)
) -> Variable:
    return Variable(f"clusters/{name}", dtype, axes, units, title, description, 7)


# By predicted class, the largest of each class first.
CLUSTERS = Table(
    "clusters",
    "Strategies: clusters of the Integrated Gradients of each predicted class, found by HDBSCAN on attributions pooled to cells. "
    "Not there where none was found or looked for; see /worth.",
    (
        _cluster("cluster", "int64", "1", "cluster number", "Clusters by predicted class, the largest of each first."),
        _cluster(
            "cell_y", "int64", "cell", "cell row", "Vertical cell of the pooled image, 0 at the top.", ("cell_y",)
        ),
        _cluster("cell_x", "int64", "cell", "cell column", "Horizontal cell, 0 at the left.", ("cell_x",)),
        _cluster("medoid", "int64", "1", "medoid", "Rows most like their cluster's mean, the first most.", ("medoid",)),
        _cluster(
            "name", TEXT, "", "name", "The class and a letter, the same from night to night where the heat is alike."
        ),
        _cluster("class", "int64", "class number", "predicted class", "The class that its rows are called."),
        _cluster("n_rows", "int64", "1", "number of rows", "How many rows are in it."),
        _cluster(
            "share_wrong", "float32", "1", "share wrong", "Share of its rows whose prediction is not their label."
        ),
        _cluster(
            "transplant_score",
            "float32",
            "1",
            "transplant score",
            "Share of images called something else that become the class when the region of a member that relies on it is pasted "
            "into them; 0 where there is no region.",
        ),
        _cluster(
            "transplant_control",
            "float32",
            "1",
            "control of the transplant score",
            "The same with the region of rows of the class that are not in the cluster.",
        ),
        _cluster(
            "region_share", "float32", "1", "size of the region", "Share of the image's pixels that are in the region."
        ),
        _cluster(
            "region",
            "uint8",
            "1",
            "region",
            "1 in connected cells in which the cluster's mean heat is, or exceeds that of the class's other rows most.",
            ("cluster", "cell_y", "cell_x"),
        ),
        _cluster(
            "mean_heat",
            "float32",
            "1",
            "mean heat",
            "Mean of its rows' pooled attributions, signed, each of L2 norm 1.",
            ("cluster", "cell_y", "cell_x"),
        ),
        _cluster("medoid_row", "int64", "1", "medoids", "Row numbers of its medoids.", ("cluster", "medoid")),
        _cluster(
            "of_row", "int64", "1", "cluster of the row", "The cluster that each row is in; -1 for none.", ("row",)
        ),
    ),
)


def _mean_share(name: str, when: str) -> Variable:
    description = (
        f"Mean share of the absolute attribution in each cell {when}, over rows that both call the class; 0 for few."
    )
    return Variable(
        f"drift/{name}", "float32", ("class", "cell_y", "cell_x"), "1", f"mean shares {when}", description, 7
    )


# By row, as the rows of the store, and by predicted class.
DRIFT = Table(
    "drift",
    "Changes since the last night on the same images, which had another model; /worth names it and has the changes of classes. "
    "Not there where there is no such night.",
    (
        Variable(
            "drift/cell_y",
            "int64",
            ("cell_y",),
            "cell",
            "cell row",
            "Vertical cell of the pooled image, 0 at the top.",
            7,
        ),
        Variable("drift/cell_x", "int64", ("cell_x",), "cell", "cell column", "Horizontal cell, 0 at the left.", 7),
        Variable(
            "drift/prediction_before",
            "int64",
            ("row",),
            "class number",
            "predicted class before",
            "The class that the model of that night gave the image; -1 for a row that it does not have.",
            7,
            least=-1,
        ),
        Variable(
            "drift/likeness",
            "float32",
            ("row",),
            "1",
            "likeness of reasons",
            "Cosine of the pooled attributions, 8x8 cells, for what was predicted before and for what is predicted now; 0 for a "
            "row that the other night does not have.",
            7,
        ),
        _mean_share("mean_share_before", "before"),
        _mean_share("mean_share", "now"),
    ),
)

TABLES: tuple[Table, ...] = (PARTS, CLUSTERS, DRIFT)
