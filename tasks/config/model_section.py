"""Which network, how it is fed, and how it is trained when none fits."""

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError, field_validator, model_validator

from tasks.config.section import Section

__all__ = ["ExistingModelConfig", "FeedConfig", "ModelConfig", "ModelInput"]


class FeedConfig(Section):
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


class _FedConfig(Section):
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
