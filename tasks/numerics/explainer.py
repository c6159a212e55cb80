"""One model, ready to explain: its compiled functions and the configured engines, shared by the parts of a process."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import keras
import numpy as np
import tensorflow as tf

from tasks.numerics.endpoint import CompiledEndpoint, Endpoint
from tasks.numerics.engine import Engine
from tasks.numerics.integrated_gradients import Attributions, certify, target_gradients
from tasks.numerics.network.compiled import SMALL_BATCHES, Report, with_xla
from tasks.numerics.network.precision import Precision, in_precision
from tasks.numerics.network.scores import CompiledScores, Reading, score_model
from tasks.numerics.quadrature import Fixed, Rule, Tolerances
from tasks.numerics.references import alibi_integrated_gradients, tf_explain_maps

__all__ = ["Explainer", "Settings", "gradient_model", "in_float32"]

NODES_SHARE = 4  # a quarter of the memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to explain: the score, the quadrature, the Grad-CAM layer (a resolved label, or none), and which engines compute.

    memory_gb: for the gradients of a batch; a quarter as much is for vectors of nodes.
    xla: whether XLA compiles the gradients, where it can.
    reading: how the model is fed and what its outputs are.
    precision: bfloat16 is of the gradients under Integrated Gradients alone; tf32 is for the caller to allow (computing_in).
    """

    score: str
    rule: Rule
    tolerances: Tolerances
    layer: str
    batch_size: int
    memory_gb: float = 1.0
    xla: bool = False
    reading: Reading = Reading()
    precision: Precision = "float32"
    ig_engine: str = "nightlens"
    cam_engine: str = "nightlens"


def in_float32(settings: Settings) -> Settings:
    """For networks whose weights change: in bfloat16 gradients are of a copy, which would keep those that it was made with."""
    return replace(settings, precision="float32") if settings.precision == "bfloat16" else settings


def gradient_model(
    model: keras.Model,
    score: str,
    precision: Precision,
    reading: Reading = Reading(),  # noqa: B008 (frozen)
) -> keras.Model:
    """The score model whose gradients are integrated. Raises ValueError as `score_model` and `in_precision` do."""
    return score_model(in_precision(model, precision) if precision == "bfloat16" else model, score, reading)


class Explainer:
    """Probabilities, maps (both in `endpoint`) and Integrated Gradients of one classifier.

    Images and baselines are float32 (row, y, x, channel) in 0..1, targets are (row,) class numbers.
    """

    def __init__(self, model: keras.Model, settings: Settings, on_halving: Report | None = None):
        """on_halving: called with a line when a batch that does not fit is halved, or XLA cannot compile.

        Raises ValueError as `in_precision` does.
        """
        self.settings, batch_size = settings, settings.batch_size
        self.network, reading = model, settings.reading
        self.model = score_model(model, settings.score, reading)
        self._scores = CompiledScores(self.model, batch_size, on_halving)
        self._endpoint = CompiledEndpoint(model, settings.score, settings.layer, batch_size, on_halving, reading)
        integrated = gradient_model(model, settings.score, settings.precision, reading)
        gradients, shape = target_gradients(integrated), self._endpoint.shape
        if settings.xla:
            small = max(1, batch_size // SMALL_BATCHES)
            points = tf.zeros((small, *shape)), tf.zeros(small, tf.int32), tf.ones(small)
            gradients = with_xla(gradients, points, on_halving or logger.warning)
        self.engine = Engine(
            gradients, shape, rule=settings.rule, tolerances=settings.tolerances, batch_size=batch_size,
            memory_bytes=settings.memory_gb * 1e9 / NODES_SHARE, shared=bool(tf.config.list_logical_devices("GPU")),
            on_halving=on_halving,
        )  # fmt: skip
        self.forget()

    def forget(self) -> None:
        """Forgets what the network said of baselines: to be called when its weights were changed."""
        self._last_baseline: tuple[bytes, np.ndarray] = b"", np.empty(0)  # with its scores: most nights have one

    def endpoint(self, images: np.ndarray, targets: np.ndarray) -> Endpoint:
        """Probabilities, scores, gradients and maps at the images; the maps by the configured engine."""
        found = self._endpoint(images, targets)
        if self.settings.cam_engine == "tf-explain" and self.settings.layer and len(images):
            sums = tf_explain_maps(self.activations_model(), images, targets)
            return replace(found, maps={name: np.maximum(values, 0) for name, values in sums.items()})
        return found

    def scores(self, images: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """The score of each image's target alone, (row,)."""
        return self.all_scores(images)[np.arange(len(images)), targets]

    def all_scores(self, images: np.ndarray) -> np.ndarray:
        """The score of every class, (row, class)."""
        return self._scores(images)

    def activations_model(self) -> keras.Model:
        """The score model that gives the explained layer's activations, too, for foreign engines."""
        return score_model(self.network, self.settings.score, self.settings.reading, self.settings.layer)

    def integrated_gradients(
        self,
        images: np.ndarray,
        baselines: np.ndarray,
        targets: np.ndarray,
        on_progress: Callable[[int], object] | None = None,
        *,
        endpoint: Endpoint | None = None,
    ) -> Attributions:
        """Attributions with certificates, by the configured rule and engine.

        on_progress: as in `Engine.integrate`; alibi reports nothing. endpoint: of the images and targets, where it is known.
        """
        known = endpoint or self._endpoint(images, targets)
        score_baseline = self._baseline_scores(baselines)[np.arange(len(images)), targets]
        if self.settings.ig_engine == "alibi":
            return self._alibi(images, baselines, targets, known.score, score_baseline)
        return self.engine.integrate(
            images, baselines, targets, known.score, score_baseline, known.gradients, on_progress
        )

    def _baseline_scores(self, baselines: np.ndarray) -> np.ndarray:
        if not len(baselines) or (baselines != baselines[:1]).any():
            return self._scores(baselines)
        known, scores = self._last_baseline
        if (baseline := baselines[0].tobytes()) != known:
            scores = self._scores(baselines[:1])
            self._last_baseline = baseline, scores
        return np.broadcast_to(scores, (len(baselines), scores.shape[1]))

    def _alibi(
        self,
        images: np.ndarray,
        baselines: np.ndarray,
        targets: np.ndarray,
        score: np.ndarray,
        score_baseline: np.ndarray,
    ) -> Attributions:
        rule = self.settings.rule
        if not isinstance(rule, Fixed):
            raise ValueError(f"alibi has fixed rules only, got {rule}")
        fine, coarse = (
            alibi_integrated_gradients(
                self.model, images, baselines, targets,
                rule=rule.rule, n_steps=n_steps, batch_size=self.settings.batch_size,
            )
            for n_steps in (rule.n_steps, rule.n_steps // 2)
        )  # fmt: skip
        gap, error, converged = certify(
            fine, coarse, score.astype(np.float64) - score_baseline, self.settings.tolerances
        )
        return Attributions(
            attribution=fine,
            gap=gap.astype(np.float32),
            quadrature_error=error.astype(np.float32),
            score=score,
            score_baseline=score_baseline,
            n_gradients=np.full(len(images), rule.n_steps + rule.n_steps // 2, np.int32),
            converged=converged.astype(np.uint8),
        )
