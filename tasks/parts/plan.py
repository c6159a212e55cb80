"""What is to be explained tonight, and how: all that a part needs, as paths, names and numbers.

A plan has a digest over everything that decides the numbers in a part (dataset, model, explanation settings, code version).
Parts are kept under it, so an interrupted night finds what it had, and other settings never mix in.
"""

import dataclasses
import gc
import math
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import keras
from pydantic import BaseModel, ConfigDict

from storage import SCHEMA_VERSION, Catalog, part_path
from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig, ModelConfig
from tasks.contract import Contract
from tasks.contract.establish import check_fit
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord, load_model, read_record
from tasks.numerics.batching import BatchSize, choose_batch_size, memory_bytes, ruled
from tasks.numerics.explainer import Settings, gradient_model
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.cnn import build_cnn, count_parameters
from tasks.numerics.network.device import device_name, has_tensor_float_32
from tasks.numerics.network.precision import Precision, in_precision
from tasks.numerics.network.scores import Network, image_shape, score_model
from tasks.numerics.network.tensor_float_32 import computing_in, tf32_batch
from tasks.numerics.quadrature import Adaptive, Fixed, Tolerances
from tasks.numerics.references import missing_references
from tasks.parts.part_digest import code_digest, settings_digest
from tasks.parts.precision_choice import Choice, choose_precision, keep_choice, kept_choice
from tasks.parts.precision_sample import read_sample

__all__ = ["Plan", "check_settings", "given_shape", "make_plan", "refuse_other_device", "select_rows"]

TRAINED = ("auto", "train")  # sources of a model that nightlens trains or has trained
MOST_PARAMETERS, FILE_BYTES = 100_000_000, 12  # a parameter is saved with two moments of the optimizer
PARTS_A_NIGHT = 40
LEAST_PART_ROWS, MOST_PART_ROWS = 32, 1024
PANELS_BEFORE_STOP = 4  # nodes a row in the mean, over n_start: an estimate of the work
FLOAT32_BYTES, PART_ARRAY_BYTES = 4, 64 * 2**20  # of a part's images as float32; a part in work needs several of them


class Plan(BaseModel):
    """Rows start to stop of a dataset's test split, explained by one model and one method.

    contract: how the model is fed and read, and the Grad-CAM layer. precision: what `explanation.precision` became, and why.
    device: what computes, by its name. batch_size, xla: images in one compiled call, whether XLA compiles it, and why so; they
    decide no number beyond rounding, and so are no part of the digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    root: Path
    dataset: Dataset
    model: ModelRecord
    explanation: ExplanationConfig
    integrated_gradients: IntegratedGradientsConfig
    grad_cam: GradCamConfig
    contract: Contract
    start: int
    stop: int
    part_rows: int
    device: str
    precision: Precision
    precision_reason: str = ""
    digest: str
    batch_size: int
    batch_reason: str = ""
    xla: bool = False

    @property
    def layer(self) -> str:
        """Label of the layer that Grad-CAM explains, empty for none."""
        return self.contract.layer

    @property
    def n_rows(self) -> int:
        return self.stop - self.start

    @property
    def parts_folder(self) -> Path:
        return Catalog(self.root).parts_dir(self.digest)

    def ranges(self) -> list[tuple[int, int]]:
        """First row and row after the last of each part."""
        return [(a, min(a + self.part_rows, self.stop)) for a in range(self.start, self.stop, self.part_rows)]

    def part(self, start: int, stop: int) -> Path:
        return part_path(self.parts_folder, start, stop)

    def settings(self) -> Settings:
        ig = self.integrated_gradients
        return Settings(
            score=self.explanation.score,
            rule=Adaptive(exponent=ig.exponent, n_start=ig.n_start, n_max=ig.n_max, refine_fraction=ig.refine_fraction)
            if ig.rule == "adaptive"
            else Fixed(rule=ig.rule, n_steps=ig.n_steps),
            tolerances=Tolerances(gap=ig.gap_tolerance, error=ig.error_tolerance),
            layer=self.layer,
            batch_size=self.batch_size,
            memory_gb=memory_bytes(self.explanation.memory_gb) / 1e9,
            xla=self.xla,
            reading=self.contract.reading,
            precision=self.precision,
            ig_engine=ig.engine,
            cam_engine=self.grad_cam.engine,
        )


def make_plan(
    root: Path,
    dataset: Dataset,
    model: ModelRecord,
    contract: Contract,
    explanation: ExplanationConfig,
    integrated_gradients: IntegratedGradientsConfig,
    grad_cam: GradCamConfig,
    rows: str | None,
) -> Plan:
    """The plan of a night, for which its precision and its batch size may be measured.

    Raises ValueError if the rows are not there, or the model cannot be had in the precision.
    """
    start, stop = select_rows(dataset, rows)
    part_rows = explanation.part_rows or default_part_rows(stop - start, math.prod(dataset.shape))
    network = load_model(model.path, model.code)
    decides = {
        "code": code_digest(),
        "schema": SCHEMA_VERSION,
        "dataset": dataset.sha256,
        "model": model.sha256,
        "model_code": model.code_sha256,
        "device": device_name(),
        "explanation": explanation.model_dump(mode="json", exclude={"batch_size", "memory_gb", "precision", "xla"}),
        "integrated_gradients": integrated_gradients.model_dump(mode="json"),
        "grad_cam": grad_cam.model_dump(mode="json", exclude={"layer"}),
        "contract": contract.decides,
        "part_rows": part_rows,
    }
    plan = Plan(
        root=root,
        dataset=dataset,
        model=model,
        explanation=explanation,
        integrated_gradients=integrated_gradients,
        grad_cam=grad_cam,
        contract=contract,
        start=start,
        stop=stop,
        part_rows=part_rows,
        device=device_name(),
        precision="float32",
        digest="",
        batch_size=1,
    )
    choice = _precision(plan, network, decides)
    plan = plan.model_copy(
        update={
            "precision": choice.precision,
            "precision_reason": choice.reason,
            "digest": _digest(decides, choice.precision),
        }
    )
    batch = _batch_size(plan, network)
    return plan.model_copy(update={"batch_size": batch.images, "batch_reason": batch.reason, "xla": batch.xla})


def _digest(decides: Mapping[str, Any], precision: Precision) -> str:
    return settings_digest({**decides, "precision": precision})


def _precision(plan: Plan, network: keras.Model, decides: Mapping[str, Any]) -> Choice:
    """What was asked for; for auto what it became before on these settings and this device, or what is measured now."""
    explanation = plan.explanation
    if explanation.precision != "auto":
        return Choice(precision=explanation.precision, reason="by configuration")
    catalog = Catalog(plan.root)
    folders = {each: catalog.parts_dir(_digest(decides, each)) for each in get_args(Precision)}
    for folder in folders.values():
        if kept := kept_choice(folder):
            return kept
    score = score_model(network, explanation.score, plan.contract.reading)
    batch_size = explanation.batch_size or ruled(score, memory_bytes(explanation.memory_gb)).images
    settings = plan.model_copy(update={"batch_size": batch_size}).settings()
    sample = read_sample(plan.dataset, plan.start, plan.stop, plan.integrated_gradients.baseline)
    choice = choose_precision(network, settings, sample)
    gc.collect()  # its explainers, which hold the device's memory, and their functions refer to each other
    keep_choice(folders[choice.precision], choice)
    return choice


def refuse_other_device(plan: Plan) -> None:
    """Raises ValueError where this process computes on another device than the plan is for, as a Dask worker may."""
    if (came := device_name()) != plan.device:
        raise ValueError(
            f"expected to compute on {plan.device}, as the process that planned the night, got {came} on {platform.node()}; "
            "give the cluster workers with that device, or start the night on a machine like its workers"
        )


def _batch_size(plan: Plan, network: keras.Model) -> BatchSize:
    explanation, ig = plan.explanation, plan.integrated_gradients
    in_calls = tf32_batch if plan.precision == "tf32" else int
    if explanation.batch_size is not None:
        return BatchSize(in_calls(explanation.batch_size), "by configuration", xla=bool(explanation.xla))
    model = gradient_model(network, explanation.score, plan.precision, plan.contract.reading)
    missing = sum(stop - start for start, stop in plan.ranges() if not plan.part(start, stop).exists())
    # What comes before a row's certificate: most rows need little more.
    a_row = PANELS_BEFORE_STOP * ig.n_start if ig.rule == "adaptive" else ig.n_steps + ig.n_steps // 2
    n_gradients = missing * a_row if ig.engine == "nightlens" else 0
    with computing_in(plan.precision):
        chosen = choose_batch_size(model, memory_bytes(explanation.memory_gb), n_gradients, explanation.xla, in_calls)
    return dataclasses.replace(chosen, images=in_calls(chosen.images))


def given_shape(model: ModelConfig) -> tuple[int | None, int | None, int | None] | None:
    """(y, x, channel) of the images that a given model takes; None where none is given, or it takes any.

    Raises ModelError if the model cannot be loaded.
    """
    if model.source in TRAINED:
        return None
    record = read_record(Path(model.source).expanduser(), model.code)
    return image_shape(load_model(record.path, record.code))


def check_settings(
    dataset: Dataset,
    model: ModelConfig,
    grad_cam: GradCamConfig,
    integrated_gradients: IntegratedGradientsConfig,
    explanation: ExplanationConfig,
    rows: str | None,
) -> None:
    """Raises ValueError for what would only be refused after a long training: rows, model, layer, precision, engines."""
    select_rows(dataset, rows)
    if dataset.n_classes < 2:
        raise ValueError(f"dataset {dataset.name} has {dataset.n_classes} class; a classifier needs two or more")
    if model.source in TRAINED:
        _refuse_too_large(dataset)
        find_layer(Network(build_cnn(dataset.shape, dataset.n_classes)), grad_cam.layer)
    else:
        record = read_record(Path(model.source).expanduser(), model.code)
        given = load_model(record.path, record.code)
        check_fit(given, record, dataset)
        if explanation.precision == "bfloat16":
            in_precision(given, explanation.precision)
    if explanation.precision == "tf32" and not has_tensor_float_32():
        raise ValueError(
            f"precision tf32: expected an NVIDIA GPU of compute capability 8.0 or above, got {device_name()}; set precision to "
            "float32, or to auto"
        )
    if explanation.precision not in ("float32", "auto") and integrated_gradients.engine == "alibi":
        raise ValueError(
            f"engine alibi computes in float32, precision is {explanation.precision!r}; set precision to float32, or use "
            "engine nightlens"
        )
    missing = missing_references()
    if missing and (integrated_gradients.engine == "alibi" or grad_cam.engine == "tf-explain"):
        raise ValueError(
            f"engines alibi and tf-explain need {', '.join(missing)}, not installed; "
            "install the extra 'reference' (see the licence note in the README), or use engine nightlens"
        )


def _refuse_too_large(dataset: Dataset) -> None:
    """Raises ValueError for images whose network would be too large to be trained: its hidden layer sees every cell."""
    n = count_parameters(dataset.shape, dataset.n_classes)
    if n <= MOST_PARAMETERS:
        return
    y, x, n_channels = dataset.shape
    raise ValueError(
        f"the notebook's network for images of {y}x{x}x{n_channels} has {n / 1e6:,.0f} million parameters: a file of "
        f"{n * FILE_BYTES / 1e9:.1f} GB, and several times that in memory; set dataset.transform to resize and dataset.size to "
        "64 or so, or give a model with --model"
    )


def default_part_rows(n_rows: int, n_features: int) -> int:
    """A power of two that makes about 40 parts, within bounds of rows and of memory. n_features: numbers in an image."""
    part_rows = LEAST_PART_ROWS
    while part_rows < MOST_PART_ROWS and n_rows > part_rows * PARTS_A_NIGHT:
        part_rows *= 2
    while part_rows > 1 and part_rows * n_features * FLOAT32_BYTES > PART_ARRAY_BYTES:
        part_rows //= 2
    return part_rows


def select_rows(dataset: Dataset, rows: str | None) -> tuple[int, int]:
    """The rows A:B of the test split as (A, B); the whole split for None.

    Raises ValueError if they are not in the split.
    """
    start_text, _, stop_text = (rows or ":").partition(":")
    start, stop = int(start_text or 0), int(stop_text or dataset.n_test)
    if not 0 <= start < stop <= dataset.n_test:
        raise ValueError(
            f"rows {rows} are not in the test split of {dataset.name}; expected A:B with 0 <= A < B <= {dataset.n_test}"
        )
    return start, stop
