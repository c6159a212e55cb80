"""The table of the attribution store: every dataset, its dtype, axes, unit and meaning (schema version 7).

This is the only module that knows what is in a store. Parts and sealed stores are laid out from it, readers and
`nightlens verify` check against it, `storage.file.schema_listing` prints it, and the texts below are written into the
file, where an analyst meets them without our code. A change here is a new SCHEMA_VERSION; what it adds is marked `since`
that version, so that stores of all versions from OLDEST_SCHEMA on stay readable.

Conventions:
- A path has no leading slash. A dimension is named by its coordinate, which is in the root group, as netCDF-4 and xarray's
  trees see it from every group. The groups `predicted` count rows by `predicted_row`.
- gap = sum(attribution) - (score - score_baseline): signed, in units of the score.
- `predicted` groups hold the misclassified rows only. For every other row the predicted class is the true class.
- Maps are there as a whole or not at all: the groups of all methods that need a layer with a map, and the axes cam_y and
  cam_x. `variables_of` and `present` say what is in a file that has them, or has them not.
- What a store has or has not as a group with an axis of its own is in storage/file/added_tables.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from storage.file.added_tables import TABLES
from storage.file.methods import CAM_AXES, METHODS
from storage.file.variable import FLAG, NAME, TEXT, Attribute, Column, Variable

OLDEST_SCHEMA = 1
# The root attribute of a store that was handed over without some of its datasets, and the one value that it can have.
LEFT_OUT, IMAGE = "left_out", "image"
CHUNK_BYTES = 1 << 20
RAW_COPY_BYTES = 1 << 18
MAPS_OPTIONAL_SINCE = 4
# Before, the group of each method had a `row` of its own for the misclassified rows, which hid the store's from xarray's trees.
SHARED_PREDICTED_ROW_SINCE = 5


def _index(path: str, long_name: str, description: str, units: str = "1", **more: Any) -> Variable:
    return Variable(path, "int64", (path.rpartition("/")[2],), units, long_name, description, **more)


def _class_column(name: str, title: str) -> Column:
    return Column(name=name, title=title, label=title, number_format="d", places=("table",))


# Of each row, for the class that the model gives the image: halves of it by its Integrated Gradients for that class.
QUALITY = "quality"
QUALITY_ABOUT = (
    "What the Integrated Gradients for the predicted class are worth: the score of that class with the half of the pixels that "
    "they put first, and without it, the baseline in place of the others. On dark images the brightness of a pixel does as "
    "well or better: compare with the controls in /worth."
)


def _quality(name: str, title: str, description: str, **seen: Any) -> Variable:
    column = Column(name=name, title=title, label=title, **seen)
    return Variable(f"{QUALITY}/{name}", "float32", ("row",), "score", title, description, since=7, column=column)


VARIABLES: tuple[Variable, ...] = (
    _index("row", "row number", "Position of the image in the split, counted from 0 in the dataset's own fixed order."),
    _index(
        "predicted_row",
        "row number",
        "Rows whose prediction is not their label, ascending: the rows of the groups `predicted`.",
        since=SHARED_PREDICTED_ROW_SINCE,
    ),
    _index("y", "pixel row", "Vertical position in the image, 0 at the top.", "pixel"),
    _index("x", "pixel column", "Horizontal position in the image, 0 at the left.", "pixel"),
    _index("channel", "colour channel", "Colour channel: 0, 1, 2 are red, green, blue; a single one is grey."),
    _index("class", "class number", "Class as the labels and the model's outputs count it; see /class_name."),
    _index(
        CAM_AXES[0],
        "map row",
        "Vertical cell of a map, 0 at the top; the map spans the whole image.",
        "cell",
        needs_map=True,
        earlier_texts=((4, "Vertical cell of a Grad-CAM map, 0 at the top; the map spans the whole image."),),
    ),
    _index(
        CAM_AXES[1],
        "map column",
        "Horizontal cell of a map, 0 at the left.",
        "cell",
        needs_map=True,
        earlier_texts=((4, "Horizontal cell of a Grad-CAM map, 0 at the left."),),
    ),
    Variable("class_name", TEXT, ("class",), "", "class name", "Name of each class, as it comes with the dataset."),
    Variable(
        "image",
        "uint8",
        ("row", "y", "x", "channel"),
        "0-255",
        "image",
        "The image: black is 0, white is 255. What the model was fed is in /contract.",
        earlier_texts=((3, "The image; the model saw image / 255."),),
    ),
    Variable("label", "int64", ("row",), "class number", "true class", "The class the dataset gives the image."),
    Variable(
        "prediction", "int64", ("row",), "class number", "predicted class", "The class the model gives the image."
    ),
    Variable(
        "probability",
        "float32",
        ("row", "class"),
        "1",
        "predicted probability",
        "What the model says of each class, as its own outputs give it: probabilities, or the softmax of its logits; "
        "see /contract. Probabilities of independent classes need not sum to 1.",
        earlier_texts=((3, "The model's softmax output for each class."),),
    ),
    *(variable for method in METHODS for variable in (*method.variables, *method.predicted())),
    _quality(
        "keep_half",
        "score with the better half",
        "Score of the predicted class with the half of the pixels that have the largest attributions, the baseline elsewhere.",
        number_format=".3f",
        places=("table",),
    ),
    _quality(
        "drop_half",
        "score without the better half",
        "Score of the predicted class with the baseline in place of the half of the pixels that have the largest attributions.",
        number_format=".3f",
        places=("table",),
    ),
    _quality(
        "relevance_gain",
        "relevance gain",
        "(keep_half - drop_half) / 2: the symmetric relevance gain of two intervals (Bluecher et al. 2024). Above 0 the better "
        "half of the pixels speaks for the class more than the other half.",
        number_format="+.3f",
        has_range=True,
    ),
)

# What is known of each row, in the order of tables: its classes, then every number that has a column.
CLASS_COLUMNS: tuple[Column, ...] = (
    _class_column("label", "true class"),
    _class_column("label_name", "true class"),
    _class_column("prediction", "predicted class"),
    _class_column("prediction_name", "predicted class"),
    Column(
        name="correct",
        title="outcome",
        label="right",
        number_format=FLAG,
        choices=("right", "wrong"),
        places=("table",),
    ),
    Column(name="confidence", title="confidence", label="confidence", number_format=".1%", caption="confidence {}"),
    Column(
        name="cluster",
        title="strategy",
        label="strategy",
        number_format=NAME,
        zero="none",
        places=("table", "report"),
    ),
    Column(
        name="prediction_before",
        title="predicted class before",
        label="before",
        number_format=NAME,
        zero="unknown",
        places=("table", "report"),
    ),
    Column(
        name="likeness",
        title="likeness of reasons to those of the last model",
        label="likeness",
        number_format="+.2f",
        has_range=True,
        places=("table", "report"),
    ),
)
COLUMNS: tuple[Column, ...] = (*CLASS_COLUMNS, *(variable.column for variable in VARIABLES if variable.column))

PREDICTED_ABOUT = (
    "The same for the predicted class, misclassified rows only, numbered by predicted_row. For all other rows the predicted "
    "class is the true class."
)
# What it said in a group that had a `row` of its own.
OWN_ROWS_ABOUT = {
    "integrated_gradients/predicted": "The same for the predicted class, misclassified rows only, numbered by this group's own "
    "row. For all other rows the predicted class is the true class.",
    "grad_cam/predicted": "The same for the predicted class, misclassified rows only, numbered by this group's own row.",
}
ROOT_ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute("schema", "integer", False, "Version of this table."),
    Attribute("complete", "integer", False, "1 once every row is sealed; anything else is not a store."),
    Attribute("title", "text", False, "What the file is, in a line."),
    Attribute("digest", "text", False, "Digest of dataset, model and explanation configuration, as on the parts."),
    Attribute("run_id", "text", True, "Id of the night."),
    Attribute("created_utc", "text", True, "When the night began, ISO 8601, UTC."),
    Attribute("dataset_name", "text", True, "Name of the dataset."),
    Attribute("dataset_version", "text", True, "Version of the dataset."),
    Attribute("dataset_split", "text", True, "Split whose images are the rows."),
    Attribute("dataset_sha256", "text", True, "Fingerprint of the dataset's images and labels as arrays."),
    Attribute("model_name", "text", True, "Name of the model."),
    Attribute("model_sha256", "text", True, "Fingerprint of the model's file."),
    Attribute("configuration", "json", True, "Every setting of the night."),
    Attribute("software", "json", True, "Versions of the software that computed the night."),
    Attribute("git_commit", "text", True, "Commit of nightlens, empty if unknown."),
    Attribute("flow_run_id", "text", True, "Id of the Prefect flow run, empty if there was none."),
    Attribute(
        "significant_bits",
        "integer",
        True,
        "Bits of the significand kept in attributions, the hidden one counted: 24 is all of float32.",
        since=2,
        earlier=24,
    ),
    Attribute(
        "batch_size",
        "integer",
        True,
        "Images in one compiled call of the model, as chosen when the night began; what did not fit was halved.",
        since=3,
    ),
    Attribute(
        "precision",
        "text",
        True,
        "What explanations were computed in. float32; tf32: multiplications rounded to 11 significant bits; bfloat16: the "
        "gradients under attributions, all else in float32.",
        since=3,
        earlier="float32",
    ),
    Attribute(
        "precision_error",
        "json",
        True,
        "How far that is from float32 over n_rows rows of a sample: median and max of the relative L2 difference of "
        "attributions and, since schema 6, of each method's maps, and of the difference of scores and probabilities; empty "
        "for float32.",
        since=3,
    ),
    Attribute(
        "contract",
        "json",
        True,
        "What the model was fed and how it is read: input range and channel order, what its outputs are, order of classes, "
        "layer of Grad-CAM; how each was found, and the checks that it passed.",
        since=4,
        earlier="{}",
    ),
    Attribute(
        "device",
        "text",
        True,
        "What computed the explanations: CPU, or the GPU by its name; of GPUs with several names all of them.",
        since=6,
    ),
    Attribute(
        "worth",
        "json",
        True,
        "What the explanations are worth on a sample of rows, each method beside controls that explain nothing: means, "
        "standard errors and curves; empty where it was not measured.",
        since=7,
        earlier="{}",
    ),
)

# The version is that of the newest entry: what an entry adds is marked `since` the version after this one.
SCHEMA_VERSION = max(*(variable.since for variable in VARIABLES), *(attribute.since for attribute in ROOT_ATTRIBUTES))

BY_PATH: dict[str, Variable] = {variable.path: variable for variable in VARIABLES}
# The dataset behind a column; the other columns follow from the classes of a row.
STORED: dict[str, Variable] = {variable.column.name: variable for variable in VARIABLES if variable.column} | {
    name: BY_PATH[name] for name in ("label", "prediction")
}
PICTURES: tuple[Variable, ...] = tuple(variable for variable in VARIABLES if variable.holds_pictures)


def variables_of(schema: int, *, maps: bool = True, images: bool = True) -> tuple[Variable, ...]:
    """The datasets of a store of that schema version.

    maps: whether it has the methods that need a layer with a map. images: whether it still has its images.
    """
    there: Iterable[Variable] = [
        variable for variable in VARIABLES if variable.since <= schema and (images or variable.path != IMAGE)
    ]
    if schema < SHARED_PREDICTED_ROW_SINCE:
        there = _with_own_rows(there)
    return present(there, maps=maps)


def _with_own_rows(variables: Iterable[Variable]) -> Iterator[Variable]:
    """The datasets as they were when each `predicted` group had a coordinate `row` of its own."""
    groups = set[str]()
    for variable in variables:
        if variable.group not in groups and variable.group.endswith("/predicted"):
            groups.add(variable.group)
            about = "Rows whose prediction is not their label, ascending: the rows of this group."
            yield _index(f"{variable.group}/row", "row number", about, needs_map=variable.needs_map)
        is_ragged = variable.dimensions[0] == "predicted_row"
        yield replace(variable, dimensions=("row", *variable.dimensions[1:])) if is_ragged else variable


def part_variables(schema: int = SCHEMA_VERSION, *, maps: bool = True) -> tuple[Variable, ...]:
    """The datasets of a part: those of a store but its texts."""
    return tuple(variable for variable in variables_of(schema, maps=maps) if variable.dtype != TEXT)


def present(variables: Iterable[Variable], *, maps: bool) -> tuple[Variable, ...]:
    """Those of the variables that are in a file with maps, or in one without."""
    return tuple(variable for variable in variables if maps or not variable.needs_map)


def row_scales(variables: Iterable[Variable]) -> tuple[str, ...]:
    """Paths of the coordinates that count rows: all rows, then the misclassified."""
    return tuple(variable.path for variable in variables if variable.is_coordinate and variable.is_per_row)


def predicted_scales(variables: Iterable[Variable]) -> tuple[str, ...]:
    """Paths of the coordinates that count the misclassified rows."""
    return tuple(path for path in row_scales(variables) if path != "row")


def groups_of(variables: Sequence[Variable]) -> dict[str, str]:
    """The groups that these variables are in, with their descriptions."""
    there, paths = {variable.group for variable in variables}, {variable.path for variable in variables}
    groups = {QUALITY: QUALITY_ABOUT} | {table.group: table.about for table in TABLES}
    for method in METHODS:
        predicted = f"{method.group}/predicted"
        has_own_rows = f"{predicted}/row" in paths
        groups |= {
            method.group: method.about,
            predicted: OWN_ROWS_ABOUT[predicted] if has_own_rows else PREDICTED_ABOUT,
        }
    return {group: about for group, about in groups.items() if group in there}


def attributes_of(schema: int) -> tuple[Attribute, ...]:
    """The root attributes of a store of that schema version."""
    return tuple(attribute for attribute in ROOT_ATTRIBUTES if attribute.since <= schema)


def row_bytes(variable: Variable, row_shape: tuple[int, ...]) -> int:
    """Size in bytes of one row of a variable, uncompressed; row_shape is its shape without the row axis."""
    return int(np.prod(row_shape, dtype=np.int64)) * np.dtype(variable.dtype).itemsize


def copied_raw(variable: Variable, row_shape: tuple[int, ...], part_rows: int) -> bool:
    """Whether seal copies the compressed chunks of this variable as they are, instead of rewriting its values.

    Only large variables are worth it. Ragged ones never are: their parts do not end on a chunk.
    """
    return not variable.is_ragged and row_bytes(variable, row_shape) * part_rows >= RAW_COPY_BYTES


def chunk_rows(variable: Variable, row_shape: tuple[int, ...], *, part_rows: int, n_rows: int) -> int:
    """Rows per chunk of a dataset of n_rows rows, so that a chunk is close to CHUNK_BYTES and never above (but one row).

    Chunks copied raw must tile a part, so there it is the largest divisor of part_rows: a power of two where part_rows
    is one. Raises ValueError if part_rows is less than 1.
    """
    if part_rows < 1:
        raise ValueError(f"part_rows must be at least 1, got {part_rows}")
    limit = max(1, CHUNK_BYTES // max(1, row_bytes(variable, row_shape)))
    if copied_raw(variable, row_shape, part_rows):
        return max(rows for rows in range(1, min(limit, part_rows) + 1) if part_rows % rows == 0)
    return max(1, min(limit, n_rows))
