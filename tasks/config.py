"""The parameters of a night: frozen pydantic models, validated once and stored whole in the store.

The Prefect UI draws its "custom run" form from these models, `--config FILE.yaml` has the same keys,
and prefect.yaml holds the same keys again. A misspelt key is refused everywhere.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

__all__ = [
    "AlertConfig",
    "AuditConfig",
    "DatasetConfig",
    "ExistingModelConfig",
    "ExplanationConfig",
    "GalleryConfig",
    "GradCamConfig",
    "IntegratedGradientsConfig",
    "ModelConfig",
    "OnDemandRunConfig",
    "PruneConfig",
    "RunConfig",
]

# A slice of each class alike, such as train[stratified 80%:].
STRATIFIED = r"(?P<name>[\w-]+)\[\s*stratified\s+(?P<start>(?:-?\d+%?)?)\s*:\s*(?P<stop>(?:-?\d+%?)?)\s*\]"
FIXED_RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)


class DatasetConfig(_Config):
    """Which images."""

    source: str = Field(
        "digits",
        min_length=1,
        description="A TFDS name (cifar10, fashion_mnist, ...), 'digits' (scikit-learn's, offline), a Keras-layout .npz, "
        "a TFDS-prepared directory, or a folder of images as SPLIT/CLASS/*.png or CLASS/*.png.",
    )
    data_dir: Path | None = Field(
        None, description="Where TFDS keeps prepared datasets; empty: <root>/datasets, then TFDS's own default folder."
    )
    train_split: str = Field(
        "train",
        min_length=1,
        description="The split to train on: a name, or a slice of one. train[:80%] is a share of the rows in their order; "
        "train[stratified :80%] is that share of each class, for a dataset that has one split only.",
    )
    test_split: str = Field(
        "test",
        min_length=1,
        description="The split to evaluate and explain: a name, or a slice of one, such as train[stratified 80%:] beside "
        "train[stratified :80%], with which it has no image in common.",
    )
    class_order: Literal["numeric", "sorted"] | tuple[str, ...] | None = Field(
        None,
        description="Which output of the model means which class: a list of all class names in the order of the outputs; "
        "numeric: names that are whole numbers, by value; sorted: names sorted as strings; empty: the dataset's own order, "
        "in folders names sorted as strings, as image_dataset_from_directory of Keras does.",
    )
    transform: Literal["auto", "none", "pad", "resize"] = Field(
        "auto",
        description="How images reach the model's shape. auto: the shape of a given model, by padding up to 4 pixels a side, "
        "else resizing; without one, grey becomes RGB and images smaller than 32x32 are padded with black to 32x32; images "
        "that differ in size are resized. Recorded in the store.",
    )
    size: int | None = Field(
        None, ge=8, le=4096, description="Side of the square images after pad or resize, in pixels; empty: 32."
    )

    @field_validator("train_split", "test_split")
    @classmethod
    def _stratified_is_a_slice(cls, split: str) -> str:
        for term in split.split("+"):
            found = re.fullmatch(STRATIFIED, term.strip())
            edges = [edge for edge in (found["start"], found["stop"]) if edge] if found else []
            beyond = [edge for edge in edges if edge.endswith("%") and abs(int(edge[:-1])) > 100]
            if "stratif" in term and (not edges or beyond):
                raise ValueError(
                    "a stratified slice must be NAME[stratified A:B] with percentages up to 100% or images a class, such "
                    f"as train[stratified :80%] or train[stratified 80%:], got {split!r}"
                )
        return split

    @field_validator("class_order", mode="before")
    @classmethod
    def _class_order_is_a_list(cls, order: Any) -> Any:
        if order is None or order in ("numeric", "sorted"):
            return order
        if not isinstance(order, (list, tuple)) or not order:
            raise ValueError(f"class_order must be a list of class names, numeric or sorted, got {order!r}")
        names = [str(name) if type(name) is int else name for name in order]
        wrong = next((name for name in names if not isinstance(name, str)), None)
        if wrong is not None:
            raise ValueError(f"class_order must be a list of class names, got {wrong!r} in it; put it in quotes")
        name, times = Counter(names).most_common(1)[0]
        if times > 1:
            raise ValueError(f"class_order must have each class once, got {name!r} {times} times")
        return tuple(names)


class FeedConfig(_Config):
    """What a network is fed, by numbers: (image - mean) / scale a channel, images as 0 to 1."""

    mean: tuple[float, ...] = Field(
        (0.0,),
        min_length=1,
        max_length=3,
        description="Subtracted: one number, or one each for red, green, blue, of 0..1.",
    )
    scale: tuple[float, ...] = Field(
        (1.0,),
        min_length=1,
        max_length=3,
        description="Divided by: one number, or one each for red, green, blue, of 0..1.",
    )
    bgr: bool = Field(False, description="Whether the channels go in as blue, green, red, as OpenCV reads images.")

    @field_validator("scale")
    @classmethod
    def _scale_divides(cls, scale: tuple[float, ...]) -> tuple[float, ...]:
        if 0 in scale:
            raise ValueError("scale divides, so no number of it must be 0")
        return scale


ModelInput = Literal["auto", "unit", "raw", "signed", "torch", "caffe"] | FeedConfig
INPUT_NAMES = get_args(get_args(ModelInput)[0])
MODEL_INPUT = (
    "What the network is fed for an image. auto: found by what explains labelled images best; unit: 0..1; raw: 0..255; signed: "
    "-1..1; torch and caffe: as keras.applications' preprocess_input; or {mean: [...], scale: [...], bgr: false}, applied as "
    "(image - mean) / scale to images of 0..1. Attributions are of the image in 0..1 whatever it is. Proved on labelled images."
)


class _FedConfig(_Config):
    """A network as it is fed, by its `input`."""

    @field_validator("input", mode="before", check_fields=False)
    @classmethod
    def _input_is_a_name_or_numbers(cls, given: Any) -> Any:
        if isinstance(given, FeedConfig) or given in INPUT_NAMES:
            return given
        if not isinstance(given, dict):
            raise ValueError(
                f"expected one of {', '.join(INPUT_NAMES)}, or {{mean: [...], scale: [...], bgr: false}}, got {given!r}"
            )
        try:
            return FeedConfig.model_validate(given)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(
                f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}, got {first['input']!r}"
            ) from None


class ModelConfig(_FedConfig):
    """Which network, and how it is trained when none fits."""

    source: str = Field(
        "auto",
        min_length=1,
        description="auto: reuse the registered model trained on this dataset with these settings, else train it; "
        "train: always train; or the path of a model: a .keras or .h5 file, of Keras 3 or Keras 2, or a SavedModel's folder.",
    )
    code: Path | None = Field(
        None,
        description="Python file that defines the layers and functions of the model that are not Keras's own. It is executed, "
        "with all that it imports; name only a file that you trust. Empty: no code but Keras's.",
    )
    input: ModelInput = Field("auto", description=MODEL_INPUT)
    epochs: int | None = Field(None, ge=1, le=10_000, description="Epochs of training; empty: 15.")
    batch_size: int = Field(32, ge=1, le=65_536, description="Images in a training step.")
    shift: float = Field(
        0.1, ge=0, lt=1, description="Augmentation: largest shift in y and x, as a fraction of the side."
    )
    flip: bool | None = Field(
        None, description="Augmentation: random horizontal flip; empty: on, but off for datasets of digits."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of the weights, the shuffling and the augmentation.")

    @model_validator(mode="after")
    def _code_is_of_a_given_model(self):
        if self.code is not None and self.source in ("auto", "train"):
            raise ValueError(
                f"code is given and source is {self.source!r}, which trains a network of Keras's own layers; set source to the "
                "path of the model that needs the code, or leave out the code"
            )
        return self


class ExplanationConfig(_Config):
    """What both methods share."""

    score: Literal["probability", "logit"] = Field(
        "probability", description="The output that is explained: the class's probability, or its logit."
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Images in one compiled call; empty: measured on the model and the device where the night is long, and "
        "256 for short ones, as far as memory_gb allows. It changes no result beyond rounding.",
    )
    memory_gb: float = Field(
        1.0,
        gt=0,
        le=1024,
        description="Memory for the batch of one part in work, in GB: bounds the batch size, by an estimate from the "
        "network's layers. run.n_workers parts are in work at a time.",
    )
    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="What gradients are computed in. bfloat16 is faster where the processor has instructions for it, and "
        "less exact: the night measures by how much and records it. Scores and maps stay float32.",
    )
    part_rows: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Rows in one part; empty: a power of two from 32 to 1,024 that makes about 40 parts.",
    )


class IntegratedGradientsConfig(_Config):
    """Integrated Gradients: the quadrature rule and when it may stop."""

    engine: Literal["nightlens", "alibi"] = Field(
        "nightlens", description="Who computes: this pipeline, or alibi (slow; fixed rules only; extra 'reference')."
    )
    rule: Literal[
        "adaptive", "gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"
    ] = Field("adaptive", description="adaptive: per image, until its certificate holds; the others use n_steps nodes.")
    n_steps: int = Field(50, ge=4, le=4096, description="Nodes of a fixed rule.")
    exponent: int = Field(
        3, ge=1, le=8, description="p in a = u^p: how strongly nodes start out crowded to the baseline."
    )
    n_start: int = Field(4, ge=1, le=4096, description="Panels that adaptive starts from, with twice as many nodes.")
    n_max: int = Field(512, ge=2, le=65_536, description="Nodes at which adaptive gives up on an image.")
    refine_fraction: float = Field(
        0.5,
        gt=0,
        le=1,
        description="How much of the error's claims one round of halving panels satisfies; 1: every one.",
    )
    gap_tolerance: float = Field(
        0.05, gt=0, description="Largest |completeness gap|, relative to max(1, |F(x) - F(baseline)|)."
    )
    error_tolerance: float = Field(
        0.2, gt=0, description="Largest quadrature_error, the relative change that leaving out every other node makes."
    )
    baseline: Literal["black", "white", "mean", "blur"] = Field(
        "black",
        description="The image that means 'nothing there': black, white, the training mean, or the image blurred.",
    )
    keep_mantissa_bits: int | None = Field(
        None,
        ge=1,
        le=23,
        description="Explicit bits of the significand that stored attributions keep, for a smaller store: 12 change a "
        "value by at most 2^-13, or 1.2e-4, of itself; empty: all 23 of float32.",
    )

    @model_validator(mode="after")
    def _check(self):
        if self.engine == "alibi" and self.rule == "adaptive":
            raise ValueError(
                f"engine alibi has fixed rules only, rule is 'adaptive'; set rule to one of {', '.join(FIXED_RULES)}"
            )
        if self.n_max < 2 * self.n_start + (self.exponent == 1):  # only with exponent 1 the baseline is a node too
            raise ValueError(
                f"n_max must be at least twice n_start ({self.n_start}), one more for exponent 1, got {self.n_max}; "
                f"try {64 * self.n_start}"
            )
        return self


class GradCamConfig(_Config):
    """Grad-CAM: the layer and who computes."""

    engine: Literal["nightlens", "tf-explain"] = Field(
        "nightlens",
        description="Who computes: this pipeline, or tf-explain (slow, an image a call; extra 'reference').",
    )
    layer: str = Field(
        "auto",
        min_length=1,
        description="Name of a layer with a map, or its path into nested models, as backbone/c1; auto: Conv2D_Block3_Layer1 "
        "where "
        "the model has it, else the last map larger than 1x1 that every path from image to output goes through; "
        "none: no Grad-CAM.",
    )


class AuditConfig(_Config):
    """The nightly check against foreign code."""

    n_rows: int = Field(
        8, ge=0, le=1000, description="Rows recomputed by alibi and tf-explain; 0 switches the audit off."
    )
    rule_tolerance: float = Field(
        1e-4, gt=0, description="Largest relative difference to alibi under the same rule, and to tf-explain."
    )


class AlertConfig(_Config):
    """What makes a sealed night one to look at: a warning in its verdict, and an event for automations."""

    unconverged: float = Field(
        0.0, ge=0, le=1, description="Share of rows that did not converge beyond which there is a warning; 1: never."
    )
    zero_maps: float = Field(
        0.2, ge=0, le=1, description="Share of empty Grad-CAM maps beyond which there is a warning; 1: never."
    )
    accuracy_drop: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Loss of accuracy since the last night on the same images beyond which there is a warning; 0.02 are "
        "two points, 1: never.",
    )


class GalleryConfig(_Config):
    """Which rows are drawn."""

    draw: bool = Field(
        True,
        description="Draw: the pictures of the night's folder, its report.html, and those on its pages; off: pages in "
        "words, for nights that nobody looks at.",
    )
    spotlight: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (2864, 2003, 4028, 91, 2741, 5238, 5441, 98, 5113),
        description="Rows drawn every night, where they exist.",
    )
    per_class: int = Field(
        1,
        ge=0,
        le=10,
        description="Of each class: most confident right, most confident wrong and least converged rows.",
    )
    mistakes: int = Field(
        20, ge=0, le=100, description="Misclassified rows on the page gallery-misclassified, most confident first."
    )


class RunConfig(_Config):
    """Where the files go and how the parts run."""

    root: Path = Field(Path("nightlens-data"), description="Folder of the nights, models, datasets and parts.")
    rows: str | None = Field(
        None, description="Rows to explain as A:B, 0-based, B excluded; empty: the whole test split."
    )
    resume: str | None = Field(
        None,
        min_length=1,
        description="Id of an unfinished night that goes on, with the settings it began with; empty: a new night.",
    )
    layout: Literal["single", "virtual"] = Field(
        "single",
        description="The sealed store: single: one file that holds everything; virtual: images, attributions and maps stay in "
        "the files of the parts, linked into the night's folder, for nights of tens of gigabytes.",
    )
    move_latest: bool = Field(
        True, description="Whether `latest` moves to this night once it is sealed and has passed its audit."
    )
    runner: Literal["threads", "dask"] = Field(
        "threads",
        description="Where parts are computed: in threads of this process, or by dask in others (extra 'dask').",
    )
    n_workers: int = Field(
        2,
        ge=1,
        le=256,
        description="Parts computed at the same time: threads, or processes of a local Dask cluster. A cluster at "
        "dask_address has workers of its own.",
    )
    dask_address: str | None = Field(
        None,
        description="Address of a running Dask scheduler as tcp://HOST:PORT, whose workers see the root and the dataset "
        "under the same paths; empty: runner dask starts a local cluster.",
    )

    @field_validator("rows")
    @classmethod
    def _rows_are_a_range(cls, rows: str | None) -> str | None:
        if rows is None:
            return None
        found = re.fullmatch(r"(\d*):(\d*)", rows)
        if not found:
            raise ValueError(f"rows must be A:B with whole numbers from 0, such as 0:500 or 500: or :500, got {rows!r}")
        return rows

    @field_validator("dask_address")
    @classmethod
    def _address_is_a_schedulers(cls, address: str | None) -> str | None:
        if address is not None and not re.fullmatch(r"(tcp|tls)://(\[[0-9a-fA-F:]+\]|[^\s/@:]+):\d{1,5}", address):
            raise ValueError(f"dask_address must be tcp://HOST:PORT, such as tcp://10.0.0.5:8786, got {address!r}")
        return address

    @model_validator(mode="after")
    def _address_needs_dask(self):
        if self.dask_address and self.runner != "dask":
            raise ValueError(
                f"dask_address is given and runner is {self.runner!r}; set runner to dask, or leave out the address"
            )
        return self


class ExistingModelConfig(_FedConfig):
    """Which network is explained; it is never trained."""

    source: str = Field(
        min_length=1,
        description="Name of a registered model, as `nightlens models` lists it, or the path of a model: a .keras or "
        ".h5 file, of Keras 3 or Keras 2, or a SavedModel's folder.",
    )
    code: Path | None = Field(
        None,
        description="Python file that defines the layers and functions of the model that are not Keras's own. It is executed, "
        "with all that it imports; name only a file that you trust. Empty: no code but Keras's.",
    )
    input: ModelInput = Field("auto", description=MODEL_INPUT)

    @field_validator("source")
    @classmethod
    def _is_there_already(cls, source: str) -> str:
        if source in ("auto", "train"):
            raise ValueError(
                f"{source!r} may train a model, and this flow explains one that exists; give its name or path, "
                "or run the flow `nightly`"
            )
        return source


class OnDemandRunConfig(RunConfig):
    """Where the files go and how the parts run; `latest` stays where it is."""

    move_latest: bool = Field(
        False,
        description="Whether `latest` moves to this night once it is sealed and has passed its audit; off, so that the "
        "explanation of some other model does not become what analysts load as the last night.",
    )


class PruneConfig(_Config):
    """Which nights go. The latest, pinned, running ones and unfinished ones newer than the last sealed night stay."""

    root: Path = Field(Path("nightlens-data"), description="Folder of the nights, models, datasets and parts.")
    keep: int = Field(30, ge=1, le=100_000, description="Sealed nights that stay, counted from the newest.")
    dry_run: bool = Field(False, description="Only say what would be removed.")
