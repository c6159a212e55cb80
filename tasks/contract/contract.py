"""The record of a model's contract: what it is fed and why, what its outputs are, which layer has maps, what was checked."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.night.result import NightWarning
from tasks.numerics.network.feed import Feed
from tasks.numerics.network.outputs import KINDS, OutputKind
from tasks.numerics.network.scores import Reading

__all__ = ["Check", "Contract", "FeedTrial", "recorded_contract"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FeedTrial(_Record):
    """How well one feed explains the labels of n_images.

    accuracy: share. log_likelihood: mean of ln p(label), in nats an image.
    """

    name: str
    accuracy: float
    log_likelihood: float
    n_images: int
    note: str = ""


class Check(_Record):
    """Something that was assumed and then looked at on images."""

    name: str
    text: str
    passed: bool = True


class Contract(_Record):
    """How a model is fed and read.

    feed: fed = (image - mean) / scale a channel, images in 0..1, then the channels reversed if bgr. shape: (y, x, channel) of the
    images. layer: label of the call that Grad-CAM explains, empty for none. trials: the feeds that were measured, the
    chosen first.
    """

    feed_name: str
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    bgr: bool
    chosen: str
    trials: tuple[FeedTrial, ...] = ()
    output: OutputKind
    logits: str
    shape: tuple[int, int, int]
    class_order: str
    layer: str
    layer_text: str
    checks: tuple[Check, ...] = ()
    warnings: tuple[NightWarning, ...] = ()

    @property
    def feed(self) -> Feed:
        return Feed(self.feed_name, self.mean, self.scale, self.bgr)

    @property
    def reading(self) -> Reading:
        """As the numerics take it."""
        return Reading(self.feed, self.output, self.shape)

    @property
    def decides(self) -> dict[str, Any]:
        """What of the contract decides the numbers of a part, for its digest."""
        return self.model_dump(mode="json", include={"mean", "scale", "bgr", "output", "layer"})

    @property
    def summary(self) -> str:
        """In one sentence for people."""
        return (
            f"{describe_feed(self.feed)} ({self.chosen}); its outputs are {KINDS[self.output]}; "
            f"Grad-CAM {f'at {self.layer}' if self.layer else 'has no layer'}"
        )

    def as_json(self) -> dict[str, Any]:
        """As the store's attribute `contract` and the page `model` have it."""
        return {
            "summary": self.summary,
            "input": {
                "name": self.feed_name,
                "mean": list(self.mean),
                "scale": list(self.scale),
                "bgr": self.bgr,
                "text": describe_feed(self.feed),
                "chosen": self.chosen,
                "feeds": [trial.model_dump(mode="json") for trial in self.trials],
            },
            "output": {"kind": self.output, "text": KINDS[self.output], "logits": self.logits},
            "classes": {"order": self.class_order, "text": self.class_order},
            "grad_cam": {"layer": self.layer, "text": self.layer_text},
            "checks": [check.model_dump(mode="json") for check in self.checks],
            "warnings": [warning.message for warning in self.warnings],
        }


def recorded_contract(about: Mapping[str, Any], shape: tuple[int, int, int]) -> Contract:
    """The contract of a store from its attribute `contract`, without what was measured. shape: of the images, (y, x, channel).

    Raises KeyError or ValueError for another JSON.
    """
    fed, output, layer = about["input"], about["output"], about["grad_cam"]
    return Contract(
        feed_name=fed["name"],
        mean=fed["mean"],
        scale=fed["scale"],
        bgr=fed["bgr"],
        chosen=fed["chosen"],
        output=output["kind"],
        logits=output["logits"],
        shape=shape,
        class_order=about["classes"]["order"],
        layer=layer["layer"],
        layer_text=layer["text"],
    )


def describe_feed(feed: Feed) -> str:
    """What the network sees, in words."""
    order = ", blue first" if feed.bgr else ""
    named = {"unit": "0 to 1", "raw": "0 to 255", "signed": "-1 to 1"}
    if feed.name in named:
        return f"images as {named[feed.name]}"
    numbers = [", ".join(f"{value:.4g}" for value in values) for values in (feed.mean, feed.scale)]
    return f"(image - [{numbers[0]}]) / [{numbers[1]}] of images as 0 to 1{order} ({feed.name})"
