"""What a sealed store records of how it was made, as the plan it was made from: settings, model and dataset, found again.

The settings are validated by the flow's own models, so that a store of another nightlens is refused rather than
misunderstood; the model is the file with the recorded sha256, the dataset the one with the recorded fingerprint.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from storage import AttributionStore, Catalog
from storage.nights.packed_files import HANDOVER
from tasks.config import DatasetConfig, ExplanationConfig, GradCamConfig, IntegratedGradientsConfig, ModelConfig
from tasks.contract import Contract, establish
from tasks.contract.contract import recorded_contract
from tasks.datasets import Dataset, DatasetError, prepare
from tasks.models import is_there
from tasks.models.registry import ModelError, ModelRecord, digest_file, load_model, read_record
from tasks.numerics.batching import RULE
from tasks.numerics.network.precision import Precision
from tasks.numerics.network.scores import image_shape
from tasks.parts.plan import TRAINED, Plan

__all__ = ["RecordError", "recorded_plan"]

Settings = TypeVar("Settings", bound=BaseModel)


class RecordError(ValueError):
    """What the store records cannot be had: the settings, the model or the dataset. What to do is in the message."""


def recorded_plan(
    store: AttributionStore, *, root: Path | None = None, model: Path | None = None, code: Path | None = None
) -> Plan:
    """The plan that the store was made from, its rows the store's.

    root: where models and datasets are, by default the recorded root, or the store's own where that is gone. model: a file, by
    default found by its sha256. code: the Python file that the model needs, if it does; it is executed, and so never taken from
    what a store says.
    Of a night that was packed elsewhere, and whose dataset is not here, the plan's dataset is as recorded: its directory is not
    there, and its sample is the one that came with the night.
    Raises RecordError if the store does not say, or what it names is not there any more or not the same.
    """
    configuration: Any = store.attributes["configuration"]
    resolved = configuration.get("resolved", {}) if isinstance(configuration, Mapping) else {}
    if not isinstance(resolved, Mapping) or "model_path" not in resolved:
        raise RecordError(
            f"{store.path}: the store does not record where its model and dataset are, as stores do since schema 2; "
            "recompute with the nightlens that wrote it"
        )
    where = _root_of(store, Path(resolved["root"])) if root is None else root.absolute()
    explanation = _settings(store, ExplanationConfig, "explanation")
    integrated_gradients = _settings(store, IntegratedGradientsConfig, "integrated_gradients")
    record = _find_model(store, resolved, where, model, code)
    dataset = None if root else _packed_dataset(store, resolved, integrated_gradients.baseline)
    dataset = dataset or _find_dataset(store, record, resolved, where, moved=root is not None)
    return Plan(
        root=where,
        dataset=dataset,
        model=record,
        explanation=explanation,
        integrated_gradients=integrated_gradients,
        grad_cam=_settings(store, GradCamConfig, "grad_cam"),
        contract=_contract(store, record, dataset, explanation, resolved["grad_cam_layer"]),
        start=store.row_range.start,
        stop=store.row_range.stop,
        part_rows=resolved["part_rows"],
        device=str(store.attributes["device"] or ""),
        precision=cast(Precision, store.attributes["precision"]),
        digest=str(store.attributes["digest"]),
        batch_size=_batch_size(store, explanation),
    )


def _root_of(store: AttributionStore, recorded: Path) -> Path:
    """The root that a packed night was unpacked into, or else the one that is recorded."""
    folder = Path(store.path).parent
    return folder.parent.parent if (folder / HANDOVER).is_dir() and folder.parent.name == "nights" else recorded


def _packed_dataset(store: AttributionStore, resolved: Mapping[str, Any], baseline: str) -> Dataset | None:
    """The dataset as recorded, of a packed night whose dataset is not here; None where it is, or the night is no such."""
    handover = Path(store.path).parent / HANDOVER
    if not handover.is_dir() or Path(resolved["dataset"]["directory"]).is_dir():
        return None
    sample = handover / "sample.npz"
    missing = "" if sample.is_file() else "this night was packed without the sample of training images"
    missing = "the baseline mean is that of the training images, which no pack has" if baseline == "mean" else missing
    try:
        if not missing:
            return Dataset.model_validate({**resolved["dataset"], "sample": sample})
    except ValidationError as error:
        missing = f"the dataset is not recorded as this nightlens has it ({error.errors()[0]['msg'].lower()})"
    raise RecordError(
        f"{store.path}: {missing}; give a root with the dataset {store.attributes['dataset_name']} with --root"
    )


def _contract(
    store: AttributionStore, model: ModelRecord, dataset: Dataset, explanation: ExplanationConfig, layer: str
) -> Contract:
    """As recorded; before schema 4 models were fed 0..1 and what their outputs are is found again."""
    about: Any = store.attributes["contract"]
    try:
        if about:
            return recorded_contract(about, dataset.shape)
        network = load_model(model.path, model.code)
        return establish(network, model, dataset, "unit", score=explanation.score, layer=layer or "none")
    except (KeyError, ValueError) as error:
        raise RecordError(
            f"{store.path}: how the model was fed and read cannot be had from the store: {error}"
        ) from error


def _batch_size(store: AttributionStore, explanation: ExplanationConfig) -> int:
    """Before schema 3 it was a setting only."""
    return int(str(store.attributes["batch_size"] or explanation.batch_size or RULE))


def _settings(store: AttributionStore, model: type[Settings], section: str) -> Settings:
    configuration: Any = store.attributes["configuration"]
    try:
        return model.model_validate(configuration.get(section, {}))
    except ValidationError as error:
        software: Any = store.attributes["software"]
        first = error.errors()[0]
        key = ".".join([section, *map(str, first["loc"])])
        raise RecordError(
            f"{store.path}: the recorded setting {key} is not one of this nightlens ({first['msg'].lower()}); recompute "
            f"with the nightlens that wrote the store, {software.get('nightlens') or 'of unknown version'}"
        ) from None


def _find_model(
    store: AttributionStore, resolved: Mapping[str, Any], root: Path, given: Path | None, code: Path | None
) -> ModelRecord:
    sha256, recorded = store.attributes["model_sha256"], Path(resolved["model_path"])
    code_sha256 = resolved.get("model_code_sha256", "")
    if code_sha256 and code is None:
        raise RecordError(
            f"{store.path}: the model needs the code of {resolved.get('model_code')}, which is executed; "
            "name that file with --code"
        )
    if given is not None:
        record = _read_model(given, code, code_sha256)
        if record.sha256 != sha256:
            raise RecordError(f"{given}: expected the model with the sha256 {sha256}, got {record.sha256}")
        return record
    folder = Catalog(root).models
    others = (path for pattern in ("*.keras", "*.h5", "*.hdf5") for path in sorted(folder.glob(pattern)))
    for candidate in (recorded, *others, *(file.parent for file in sorted(folder.glob("*/saved_model.pb")))):
        if is_there(candidate) and digest_file(candidate) == sha256:
            return _read_model(candidate, code, code_sha256)
    raise RecordError(
        f"the model {store.attributes['model_name']} with the sha256 {sha256} is neither at {recorded} nor in {folder}; "
        "give its file with --model, or the root it is in with --root"
    )


def _read_model(path: Path, code: Path | None, code_sha256: str) -> ModelRecord:
    try:
        record = read_record(path, code)
    except ModelError as error:
        raise RecordError(str(error)) from error
    if record.code_sha256 != code_sha256:
        expected = f"code with the sha256 {code_sha256}" if code_sha256 else "no code for this model"
        raise RecordError(f"{code}: expected {expected}, got {record.code_sha256}")
    return record


def _find_dataset(
    store: AttributionStore, model: ModelRecord, resolved: Mapping[str, Any], root: Path, *, moved: bool
) -> Dataset:
    """The dataset as it was prepared if that is still there, else prepared again from its source."""
    config, source = _settings(store, DatasetConfig, "dataset"), _settings(store, ModelConfig, "model").source
    given = None if source in TRAINED else image_shape(load_model(model.path, model.code))
    directory = Path(resolved["dataset"]["directory"])
    if directory.is_dir() and not moved:
        config = config.model_copy(update={"source": str(directory)})
    try:
        dataset = prepare(config, root, given)
    except DatasetError as error:
        raise RecordError(f"the dataset of the store cannot be prepared: {error}") from error
    sha256 = store.attributes["dataset_sha256"]
    if dataset.sha256 != sha256:
        raise RecordError(
            f"dataset {config.source}: expected the images and labels with the sha256 {sha256}, got {dataset.sha256}; "
            "give the root with the dataset that was explained with --root"
        )
    return dataset
