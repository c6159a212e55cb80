"""How rows are explained: the score, the quadrature, Grad-CAM's layer, and who computes."""

from typing import Literal

from pydantic import Field, model_validator

from tasks.config.section import Section

__all__ = ["ExplanationConfig", "GradCamConfig", "IntegratedGradientsConfig"]

FIXED_RULES = ("gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid")


class ExplanationConfig(Section):
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
    memory_gb: float | None = Field(
        None,
        gt=0,
        le=1024,
        description="Memory for the gradients of one batch, in GB: bounds the batch size, by an estimate from the network's "
        "layers. A quarter as much more is for vectors of nodes. Empty: of a GPU most of what is free, of a CPU 1.",
    )
    xla: bool | None = Field(
        None,
        description="Whether XLA compiles the gradients; empty: where it is measured to be faster, which is tried on GPUs and "
        "in nights so long that compiling is little beside the work. It changes no result beyond rounding.",
    )
    precision: Literal["float32", "tf32", "bfloat16", "auto"] = Field(
        "float32",
        description="What explanations are computed in. tf32, on NVIDIA GPUs since Ampere: gradients, scores and maps from "
        "factors of 11 significant bits. bfloat16, of 8: the gradients alone, faster where the processor has instructions "
        "for it. Both are less exact than float32, and the night measures and records by how much. auto: the fastest whose "
        "measured error is under a tenth of error_tolerance; float32 unless that saves 10 % of the time.",
    )
    part_rows: int | None = Field(
        None,
        ge=1,
        le=65_536,
        description="Rows in one part; empty: a power of two from 32 to 1,024 that makes about 40 parts.",
    )


class IntegratedGradientsConfig(Section):
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


class GradCamConfig(Section):
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
