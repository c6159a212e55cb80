"""`precision: auto`: the fastest of a device's precisions whose error is far below that of the quadrature.

An error is the largest over a sample of rows, in attributions and in maps, and on one device always the same. Time is not, so
what was chosen is kept beside the parts: a night that goes on, or comes again, goes on in that precision.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any

import keras
from pydantic import BaseModel, ConfigDict

from storage.file.disk.durable import make_folder, replacing
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.network.device import device_name, has_tensor_float_32
from tasks.numerics.network.precision import Precision
from tasks.numerics.network.tensor_float_32 import tf32_batch
from tasks.parts.precision_sample import Sample, explained_sample, precision_error

__all__ = ["Choice", "choose_precision", "fastest_within", "keep_choice", "kept_choice", "largest_error"]

SHARE = 0.1  # of the error tolerance
WORTH = 0.9  # of the time in float32
OTHERS: tuple[Precision, ...] = ("tf32", "bfloat16")
FILE = "precision.json"
ROUNDS, LIMIT_S = 3, 10.0
FIRST_NODES = 8  # of a row come in one step, at least
LARGEST_SAMPLE = 1024

Seconds = Callable[[Precision], float]


class Choice(BaseModel):
    """A precision, and why it, in words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    precision: Precision
    reason: str


def fastest_within(
    errors: Mapping[Precision, float], allowed: float, seconds: Seconds, missing: tuple[str, ...] = ()
) -> Choice:
    """The fastest precision whose error is below what is allowed, if it takes less than WORTH of the time of float32.

    errors: of the precisions other than float32. seconds: that the same work takes in a precision; asked only where that matters.
    missing: why others are out of the question.
    """
    reasons, best, within = list(missing), Choice(precision="float32", reason=""), dict[Precision, float]()
    for precision, error in errors.items():
        if error < allowed:
            within[precision] = error
        else:
            reasons.append(f"{precision} is off by {error:.2%}, allowed {allowed:.2%}")
    if within:
        in_float32 = seconds("float32")
        shares = {precision: seconds(precision) / in_float32 for precision in within}
        reasons += [
            f"{precision} is off by {within[precision]:.2%}, allowed {allowed:.2%}, and takes {share:.2f} of the time"
            for precision, share in shares.items()
        ]
        fastest = min(shares, key=lambda precision: shares[precision])
        if shares[fastest] < WORTH:
            best = Choice(precision=fastest, reason="")
    return best.model_copy(update={"reason": "; ".join(reasons)})


def choose_precision(network: keras.Model, settings: Settings, sample: Sample) -> Choice:
    """Measured on the sample by the settings' rule, in batches of their size, or the one that tf32 has in its place.

    settings.precision is of no matter.
    """
    if settings.ig_engine != "nightlens":
        return Choice(precision="float32", reason=f"engine {settings.ig_engine} computes in no other")
    allowed = SHARE * settings.tolerances.error
    exact, others, missing = _explainers(network, settings)
    errors = {precision: largest_error(precision_error(ours, exact, sample)) for precision, ours in others.items()}
    return fastest_within(errors, allowed, _stopwatch({"float32": exact, **others}, sample), missing)


def largest_error(error: Mapping[str, Any]) -> float:
    """The largest of attributions and maps. error: as of `precision_error`."""
    return max(error["max"], *(spread["max"] for spread in error["maps"].values()), 0.0)


def kept_choice(folder: Path) -> Choice | None:
    """What `auto` became when the parts in this folder were begun; None where they were not, or not by `auto`."""
    path = folder / FILE
    return Choice.model_validate_json(path.read_text()) if path.exists() else None


def keep_choice(folder: Path, choice: Choice) -> None:
    """Writes it down beside the parts, under their digest."""
    with replacing(make_folder(folder) / FILE) as temporary:
        temporary.write_text(choice.model_dump_json(indent=1))


def _explainers(
    network: keras.Model, settings: Settings
) -> tuple[Explainer, dict[Precision, Explainer], tuple[str, ...]]:
    """Of float32, of the others that can be had, and why the rest cannot."""
    made, missing = dict[Precision, Explainer](), list[str]()
    for precision in OTHERS:
        if precision == "tf32" and not has_tensor_float_32():
            missing.append(f"{device_name()} has no tf32")
            continue
        try:
            batch_size = tf32_batch(settings.batch_size) if precision == "tf32" else settings.batch_size
            made[precision] = Explainer(network, replace(settings, precision=precision, batch_size=batch_size))
        except ValueError as error:  # a layer that cannot be built again
            missing.append(str(error))
    return Explainer(network, replace(settings, precision="float32")), made, tuple(missing)


def _stopwatch(explainers: Mapping[Precision, Explainer], sample: Sample) -> Seconds:
    """Times the same rows again and again, as many as fill a batch; a first time sets things up."""
    batch_size = max(explainer.settings.batch_size for explainer in explainers.values())
    rows = sample.repeated(max(len(sample.labels), min(batch_size // FIRST_NODES, LARGEST_SAMPLE)))

    def seconds(precision: Precision) -> float:
        began, rounds = monotonic(), list[float]()
        explained_sample(explainers[precision], rows)
        while len(rounds) < ROUNDS and (not rounds or monotonic() - began < LIMIT_S):
            start = perf_counter()
            explained_sample(explainers[precision], rows)
            rounds.append(perf_counter() - start)
        return median(rounds)

    return seconds
