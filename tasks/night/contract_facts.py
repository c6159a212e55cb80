"""What a contract says, for people: the page `model` and the report's section on the model show the same.

It is read from the JSON of the store's attribute `contract`, which another nightlens may have written: what is not there,
or is of another kind, is left out. Needs neither TensorFlow nor Prefect.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

__all__ = ["NEED_NOT_SUM", "CheckFact", "FeedFact", "ModelFacts", "is_independent", "model_facts"]

INDEPENDENT = "independent"
# What follows from outputs of this kind for those who read confidences.
NEED_NOT_SUM = "The model gives each class a probability of its own; they need not sum to 1."


@dataclass(frozen=True)
class FeedFact:
    """How well one feed explains labelled images. log_likelihood: of the label, in nats an image. None: not measured."""

    name: str
    accuracy: float | None
    log_likelihood: float | None
    n_images: int | None
    note: str
    is_chosen: bool


@dataclass(frozen=True)
class CheckFact:
    """Something that was assumed of the model, and what came out when it was tried."""

    name: str
    text: str
    passed: bool


@dataclass(frozen=True)
class ModelFacts:
    """summary: in a sentence. lines: what is known and how, a name and a text each."""

    summary: str
    lines: tuple[tuple[str, str], ...]
    feeds: tuple[FeedFact, ...]
    checks: tuple[CheckFact, ...]
    warnings: tuple[str, ...]


def model_facts(contract: Mapping[str, Any]) -> ModelFacts | None:
    """What the JSON of a contract says; None for an empty one, as stores before schema 4 have."""
    if not contract:
        return None
    fed, output, classes, grad_cam = (_section(contract, name) for name in ("input", "output", "classes", "grad_cam"))
    has_layer = "layer" in grad_cam
    lines = {
        "input": _text(fed, "text") or _formula(fed),
        "why this input": _text(fed, "chosen"),
        "outputs": _sentences(_text(output, "text") or _text(output, "kind"), _independence(output)),
        "logits": _text(output, "logits"),
        "order of classes": _distinct(_text(classes, "order"), _text(classes, "text")),
        "Grad-CAM layer": _text(grad_cam, "layer") or ("none" if has_layer else ""),
        "why this layer" if _text(grad_cam, "layer") else "why no layer": _text(grad_cam, "text"),
    }
    return ModelFacts(
        summary=_text(contract, "summary"),
        lines=tuple((name, text) for name, text in lines.items() if text),
        feeds=_feeds(fed),
        checks=tuple(
            CheckFact(_text(check, "name"), _text(check, "text"), check.get("passed") is True)
            for check in _list(contract, "checks")
            if isinstance(check, Mapping)
        ),
        warnings=tuple(str(warning) for warning in _list(contract, "warnings")),
    )


def is_independent(contract: Mapping[str, Any]) -> bool:
    """Whether the model gives each class a probability of its own, so that they need not sum to 1."""
    return _text(_section(contract, "output"), "kind") == INDEPENDENT


def _feeds(fed: Mapping[str, Any]) -> tuple[FeedFact, ...]:
    feeds = [feed for feed in _list(fed, "feeds") if isinstance(feed, Mapping)]
    names = [_text(feed, "name") for feed in feeds]
    # The first of that name: the chosen one comes first, and another may be called so, too.
    chosen = names.index(_text(fed, "name")) if _text(fed, "name") in names else -1
    return tuple(
        FeedFact(
            name=names[k],
            accuracy=_number(feed, "accuracy"),
            log_likelihood=_number(feed, "log_likelihood"),
            n_images=None if (n_images := _number(feed, "n_images")) is None else int(n_images),
            note=_text(feed, "note"),
            is_chosen=k == chosen,
        )
        for k, feed in enumerate(feeds)
    )


def _formula(fed: Mapping[str, Any]) -> str:
    mean, scale = (", ".join(f"{v:.4g}" for v in _list(fed, name) if _is_number(v)) for name in ("mean", "scale"))
    order = ", channels reversed (blue first)" if fed.get("bgr") is True else ""
    return _sentences(_text(fed, "name"), f"(image - [{mean}]) / [{scale}], image from 0 to 1{order}" if scale else "")


def _independence(output: Mapping[str, Any]) -> str:
    return NEED_NOT_SUM if _text(output, "kind") == INDEPENDENT else ""


def _sentences(*texts: str) -> str:
    return ": ".join(text for text in texts if text)


def _distinct(*texts: str) -> str:
    return _sentences(*dict.fromkeys(texts))


def _section(about: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = about.get(name)
    return section if isinstance(section, Mapping) else {}


def _list(about: Mapping[str, Any], name: str) -> Sequence[Any]:
    items = about.get(name)
    return items if isinstance(items, list | tuple) else []


def _text(about: Mapping[str, Any], name: str) -> str:
    text = about.get(name)
    return " ".join(text.split()) if isinstance(text, str) else ""


def _number(about: Mapping[str, Any], name: str) -> float | None:
    value = about.get(name)
    return float(value) if _is_number(value) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
