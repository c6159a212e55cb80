"""The table of the attribution store: every dataset, its dtype, axes, unit and meaning (schema version 4).

This is the only module that knows what is in a store. Parts and sealed stores are laid out from it, readers and
`nightlens verify` check against it, `storage.file.schema_listing` prints it, and the texts below are written into the
file, where an analyst meets them without our code. A change here is a new SCHEMA_VERSION; what it adds is marked `since`
that version, so that stores of all versions from OLDEST_SCHEMA on stay readable.

Conventions:
- A path has no leading slash. A dimension is named by its coordinate, searched from the variable's group upwards (the
  scoping of netCDF-4): in `integrated_gradients/predicted` the dimension `row` is that group's own.
- gap = sum(attribution) - (score - score_baseline): signed, in units of the score.
- `predicted` groups hold the misclassified rows only. For every other row the predicted class is the true class.
- Grad-CAM is there as a whole or not at all: `grad_cam` with all in it, and the axes cam_y and cam_x.
  `variables_of` and `present` say what is in a file that has it, or has it not.
- A store of `layout: virtual` has one group more, PARTS_GROUP: the files in which its pictures are.
  See storage.read.linked_parts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SCHEMA_VERSION = 4
OLDEST_SCHEMA = 1
CHUNK_BYTES = 1 << 20
RAW_COPY_BYTES = 1 << 18
TEXT = "utf-8"
RAGGED_GROUPS = ("integrated_gradients/predicted", "grad_cam/predicted")
PARTS_GROUP = "parts"
GRAD_CAM = "grad_cam"
# What of Grad-CAM is in the root group of a file; before schema 4 all of it is in every file.
GRAD_CAM_NODES = (GRAD_CAM, "cam_y", "cam_x")
GRAD_CAM_OPTIONAL_SINCE = 4


@dataclass(frozen=True)
class Variable:
    """One dataset of the schema. dtype is a NumPy name, or TEXT for fixed-length UTF-8 strings.

    since: the first schema version that has it.
    """

    path: str
    dtype: str
    dimensions: tuple[str, ...]
    units: str
    long_name: str
    description: str
    since: int = 1

    @property
    def group(self) -> str:
        """The path of the group the dataset is in, "" for the root."""
        return self.path.rpartition("/")[0]

    def about(self, schema: int = SCHEMA_VERSION) -> dict[str, str]:
        """The texts that the dataset carries in a store of that schema version."""
        described = next((was for last, was in EARLIER.get(self.path, ()) if schema <= last), self.description)
        texts = {"long_name": self.long_name, "units": self.units, "description": described}
        # By this xarray knows that it is text, and not bytes.
        return texts | ({"_Encoding": TEXT} if self.dtype == TEXT and schema >= 2 else {})

    @property
    def scales(self) -> tuple[str, ...]:
        """The path of the coordinate of each axis."""
        return tuple(_scale_path(self.group, dimension) for dimension in self.dimensions)

    @property
    def is_coordinate(self) -> bool:
        """True for the datasets that are dimension scales."""
        return self.scales == (self.path,)

    @property
    def is_of_grad_cam(self) -> bool:
        """True for what is not there in a night without Grad-CAM."""
        return self.path.partition("/")[0] in GRAD_CAM_NODES

    @property
    def is_per_row(self) -> bool:
        """True where the first axis counts rows, be it all of them or the misclassified."""
        return self.dimensions[0] == "row"

    @property
    def holds_pictures(self) -> bool:
        """True where each row is an image, an attribution or a map: all that is large, and the rest is small."""
        return self.is_per_row and len(self.dimensions) > 2

    @property
    def is_ragged(self) -> bool:
        """True where the first axis counts the misclassified rows only."""
        return self.is_per_row and self.scales[0] != "row"


@dataclass(frozen=True)
class Attribute:
    """One root attribute of a sealed store. kind is "text", "json" or "integer"; `given` ones come from the caller.

    since: the first schema version that has it. earlier: what is true of the stores before that, JSON as its text.
    """

    name: str
    kind: str
    given: bool
    description: str
    since: int = 1
    earlier: int | str | None = None


def _index(path: str, long_name: str, description: str, units: str = "1") -> Variable:
    return Variable(path, "int64", (path.rpartition("/")[2],), units, long_name, description)


def _predicted_row(path: str) -> Variable:
    return _index(path, "row number", "Rows whose prediction is not their label, ascending: the rows of this group.")


def _integrated_gradients(group: str, target: str) -> tuple[Variable, ...]:
    per_row = ("row",)
    return (
        Variable(
            f"{group}/attribution",
            "float32",
            ("row", "y", "x", "channel"),
            "score",
            f"Integrated Gradients for the {target} class",
            f"What each input value contributes to the score of the {target} class, compared with the baseline. "
            "Summed over y, x and channel it is score - score_baseline + gap. Raw: signed, not scaled, not clipped.",
        ),
        Variable(
            f"{group}/gap",
            "float32",
            per_row,
            "score",
            "completeness gap",
            "sum(attribution) - (score - score_baseline): signed, 0 for the exact integral. How much of the score "
            "the attribution misses or invents.",
        ),
        Variable(
            f"{group}/quadrature_error",
            "float32",
            per_row,
            "1",
            "relative quadrature error",
            "L2 norm of the attribution's change when every other node of the rule is left out, over its L2 norm; "
            "0 where both are 0.",
        ),
        Variable(
            f"{group}/score",
            "float32",
            per_row,
            "score",
            f"score of the {target} class",
            f"The model's output for the {target} class at the image: a probability or a logit, see /configuration.",
        ),
        Variable(
            f"{group}/score_baseline",
            "float32",
            per_row,
            "score",
            f"score of the {target} class at the baseline",
            f"The model's output for the {target} class at the baseline image, in the same units as score.",
        ),
        Variable(
            f"{group}/n_gradients",
            "int32",
            per_row,
            "1",
            "number of gradients",
            "How many gradients of the model were spent on this row.",
        ),
        Variable(
            f"{group}/converged",
            "uint8",
            per_row,
            "1",
            "converged",
            "1 where gap and quadrature_error met the tolerances of the configuration, 0 where they did not: there, "
            "do not trust details of the attribution.",
        ),
    )


def _grad_cam(group: str, target: str) -> tuple[Variable, ...]:
    return (
        Variable(
            f"{group}/map",
            "float32",
            ("row", "cam_y", "cam_x"),
            "score",
            f"Grad-CAM map for the {target} class",
            f"Where the explained layer speaks for the {target} class: never negative, at the layer's resolution, not "
            "normalised. An all-zero map says that nothing speaks for the class.",
        ),
        Variable(
            f"{group}/cam_max",
            "float32",
            ("row",),
            "score",
            "maximum of the Grad-CAM map",
            "max(map) of the row; 0 marks an empty map, which must not be divided by its maximum.",
        ),
    )


VARIABLES: tuple[Variable, ...] = (
    _index("row", "row number", "Position of the image in the split, counted from 0 in the dataset's own fixed order."),
    _index("y", "pixel row", "Vertical position in the image, 0 at the top.", "pixel"),
    _index("x", "pixel column", "Horizontal position in the image, 0 at the left.", "pixel"),
    _index("channel", "colour channel", "Colour channel: 0, 1, 2 are red, green, blue; a single one is grey."),
    _index("class", "class number", "Class as the labels and the model's outputs count it; see /class_name."),
    _index("cam_y", "map row", "Vertical cell of a Grad-CAM map, 0 at the top; the map spans the whole image.", "cell"),
    _index("cam_x", "map column", "Horizontal cell of a Grad-CAM map, 0 at the left.", "cell"),
    Variable("class_name", TEXT, ("class",), "", "class name", "Name of each class, as it comes with the dataset."),
    Variable(
        "image",
        "uint8",
        ("row", "y", "x", "channel"),
        "0-255",
        "image",
        "The image: black is 0, white is 255. What the model was fed is in /contract.",
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
    ),
    *_integrated_gradients("integrated_gradients", "true"),
    _predicted_row("integrated_gradients/predicted/row"),
    *_integrated_gradients("integrated_gradients/predicted", "predicted"),
    *_grad_cam("grad_cam", "true"),
    _predicted_row("grad_cam/predicted/row"),
    *_grad_cam("grad_cam/predicted", "predicted"),
)

# What a description said before, and the last schema version in which it did.
EARLIER: dict[str, tuple[tuple[int, str], ...]] = {
    "image": ((3, "The image; the model saw image / 255."),),
    "probability": ((3, "The model's softmax output for each class."),),
}

# The table of a virtual store's parts: a line for each file, in the order of their rows.
PARTS_TABLE: tuple[Variable, ...] = (
    Variable(f"{PARTS_GROUP}/part", "int64", ("part",), "1", "part number", "Parts in the order of their rows.", 3),
    Variable(
        f"{PARTS_GROUP}/name", TEXT, ("part",), "", "file name", "File of the part, as seen from this file's folder.", 3
    ),
    Variable(f"{PARTS_GROUP}/start", "int64", ("part",), "1", "first row", "Number of the part's first row.", 3),
    Variable(f"{PARTS_GROUP}/stop", "int64", ("part",), "1", "row after the last", "One more than its last row.", 3),
    Variable(f"{PARTS_GROUP}/bytes", "int64", ("part",), "byte", "size", "Size of the part's file.", 3),
    Variable(f"{PARTS_GROUP}/sha256", TEXT, ("part",), "", "sha256", "Checksum of the part's file, hexadecimal.", 3),
)
PARTS_DESCRIPTION = (
    "Only in a store of layout virtual: the files that hold the images, attributions and maps of this one, which are HDF5 "
    "virtual datasets. Copy them with it: where one is missing, HDF5 itself reads NaN, and 0 for images."
)

GROUPS: dict[str, str] = {
    "integrated_gradients": "Integrated Gradients for the true class, with a certificate per row "
    "(Sundararajan, Taly, Yan 2017): attribution is in units of the score, gap says what it misses.",
    "integrated_gradients/predicted": "The same for the predicted class, misclassified rows only, numbered by this "
    "group's own row. For all other rows the predicted class is the true class.",
    "grad_cam": "Grad-CAM maps for the true class (Selvaraju et al. 2017), non-negative and not normalised.",
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
        "What the gradients under the attributions were computed in, float32 or bfloat16. All else is float32.",
        since=3,
        earlier="float32",
    ),
    Attribute(
        "precision_error",
        "json",
        True,
        "Relative L2 difference of attributions in that precision from those in float32: median and max over rows of a "
        "sample; empty for float32.",
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
)

BY_PATH: dict[str, Variable] = {variable.path: variable for variable in VARIABLES}
PREDICTED_ROWS: tuple[str, ...] = tuple(f"{group}/row" for group in RAGGED_GROUPS)
# What a part is made of: all that has a row axis but `row` itself, which follows from the part's range.
PART_VARIABLES: tuple[Variable, ...] = tuple(v for v in VARIABLES if v.is_per_row and v.path != "row")


def variables_of(schema: int, *, grad_cam: bool = True) -> tuple[Variable, ...]:
    """The datasets of a store of that schema version. grad_cam: whether it has Grad-CAM."""
    return present((variable for variable in VARIABLES if variable.since <= schema), grad_cam=grad_cam)


def present(variables: Iterable[Variable], *, grad_cam: bool) -> tuple[Variable, ...]:
    """Those of the variables that are in a file with Grad-CAM, or in one without."""
    return tuple(variable for variable in variables if grad_cam or not variable.is_of_grad_cam)


def groups_of(variables: Sequence[Variable]) -> dict[str, str]:
    """The groups that these variables are in, with their descriptions."""
    there = {variable.group for variable in variables}
    return {group: about for group, about in (GROUPS | {PARTS_GROUP: PARTS_DESCRIPTION}).items() if group in there}


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


def _scale_path(group: str, dimension: str) -> str:
    """The nearest coordinate of that name, from the group upwards: few groups have one of their own."""
    has_own = (dimension == "row" and group in RAGGED_GROUPS) or (dimension == "part" and group == PARTS_GROUP)
    return f"{group}/{dimension}" if has_own else dimension
