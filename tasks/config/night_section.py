"""What is done with an explained night: worth, drift, audit, alerts, galleries, and which nights are removed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tasks.config.section import Section

__all__ = ["AlertConfig", "AuditConfig", "DriftConfig", "GalleryConfig", "PruneConfig", "WorthConfig"]

LEAST_SEEDS = 3


class WorthConfig(Section):
    """What the explanations are worth, measured beside controls that explain nothing."""

    level: Literal["none", "rows", "full"] = Field(
        "full",
        description="full: methods and controls on a sample of rows, too; rows: the relevance gain of every row alone, which "
        "every store has; none: no page of it either.",
    )
    rows: int = Field(128, ge=8, le=10_000, description="Rows of the sample; the same every night for the same images.")


class DriftConfig(Section):
    """What a change of the reasons since the last model is compared with."""

    reference_seeds: int = Field(
        0,
        ge=0,
        le=20,
        description="Networks to train by the model's recipe with other seeds, once for each recipe: how much their reasons "
        "differ is the floor, and what changes more is an alarm. 3 or more; 0: none, and the floor is that of earlier nights.",
    )

    @field_validator("reference_seeds")
    @classmethod
    def _enough(cls, value: int) -> int:
        if 0 < value < LEAST_SEEDS:
            raise ValueError(f"expected 0, or {LEAST_SEEDS} or more, got {value}: two networks are no floor")
        return value


class AuditConfig(Section):
    """The nightly check against foreign code."""

    n_rows: int = Field(
        8, ge=0, le=1000, description="Rows recomputed by alibi and tf-explain; 0 switches the audit off."
    )
    rule_tolerance: float = Field(
        1e-4, gt=0, description="Largest relative difference to alibi under the same rule, and to tf-explain."
    )


class AlertConfig(Section):
    """What makes a sealed night one to look at: a warning in its verdict, and an event for automations."""

    unconverged: float = Field(
        0.0, ge=0, le=1, description="Share of rows that did not converge beyond which there is a warning; 1: never."
    )
    zero_maps: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a method's maps that are empty beyond which there is a warning; 1: never.",
    )
    accuracy_drop: float = Field(
        0.02,
        ge=0,
        le=1,
        description="Loss of accuracy since the last night on the same images beyond which there is a warning; 0.02 are "
        "two points, 1: never.",
    )
    shortcut: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of other images that become a class by a small region of its images beyond which there is a warning; "
        "1: never.",
    )
    uninformative: float = Field(
        3.0,
        ge=0,
        description="Standard errors by which Integrated Gradients must do better than their values in random places of the "
        "object, by relevance gain or partial mu-fidelity, or there is a warning; 0: never.",
    )
    sanity: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Rank correlation of a random network's attributions with the model's beyond which there is a warning; "
        "1: never.",
    )
    canary: float = Field(
        0.5,
        ge=0,
        le=1,
        description="By how much more of its heat a method must put on a mark for a network that knows the mark than for one "
        "that knows the object, or there is a warning; 0: never.",
    )
    reasons_changed: float = Field(
        1.5,
        ge=0,
        description="How many times the floor of drift the reasons for a class may change since the last model, or there is a "
        "warning; 0: never.",
    )
    duration: float = Field(
        1.5,
        ge=0,
        description="How many times as long as in the median of the last ten nights with the same work a row may take, or there "
        "is a warning; 0: never.",
    )


class GalleryConfig(Section):
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


class PruneConfig(Section):
    """Which nights go. The latest, pinned, running ones and unfinished ones newer than the last sealed night stay."""

    root: Path = Field(Path("nightlens-data"), description="Folder of the nights, models, datasets and parts.")
    keep: int = Field(30, ge=1, le=100_000, description="Sealed nights that stay, counted from the newest.")
    dry_run: bool = Field(False, description="Only say what would be removed.")
