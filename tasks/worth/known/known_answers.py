"""Known answers: where the right attribution is known, whether the night's engine gives it."""

from collections.abc import Callable
from dataclasses import replace

import keras
import numpy as np
from numpy.typing import NDArray

from storage.file.methods import GRAD_CAM, HIRES_CAM, INTEGRATED_GRADIENTS
from tasks.datasets import Dataset
from tasks.datasets.prepared_rows import read_chosen
from tasks.models.registry import load_model
from tasks.numerics.baselines import make_baselines
from tasks.numerics.batching import memory_bytes
from tasks.numerics.explainer import Explainer
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.scores import Network, Reading, score_model
from tasks.numerics.worth.canary import LAYER, Marked, canary_network, cells_near, mark_images, share_in_mark, shrunk
from tasks.numerics.worth.graft import graft_error
from tasks.parts.plan import Plan
from tasks.worth.known.known_results import Canary, Graft

__all__ = ["measure_canary", "measure_graft"]

GRAFT_ROWS, BETA = 64, 20.0
CANARY_TRAIN, CANARY_SHOWN, CANARY_ROWS, CANARY_EPOCHS, CANARY_BATCH = 20_000, 1_000, 128, 4, 64
N_PLACES, KNOWS_MARK, KNOWS_ALL = 10, 0.95, 0.999
LEAST_ROWS = 8


def measure_graft(
    plan: Plan, images: NDArray[np.float32], baselines: NDArray[np.float32], targets: NDArray[np.int64]
) -> Graft:
    """On the plan's own model, for the class that most of the images are explained for. images: (row, y, x, channel)."""
    if not plan.contract.logits:
        return Graft(error=None, note="not defined: the model's logits are not known, to which a graft is added")
    images, baselines = images[:GRAFT_ROWS].copy(), baselines[:GRAFT_ROWS]
    side = max(1, images.shape[1] // 8), max(1, images.shape[2] // 8)
    mask = np.zeros(images.shape[1:3], bool)
    mask[side[0] : 2 * side[0], side[1] : 2 * side[1]] = True
    if not mask.any():
        return Graft(error=None, note="not defined: the images have no room for a mark")
    images[:, mask] = np.where(baselines[:, mask] < 0.5, 1, 0)
    network = load_model(plan.model.path, plan.model.code)
    model = score_model(network, "logit", plan.contract.reading)
    target = int(np.bincount(targets).argmax())
    error = graft_error(
        model, images, baselines, target, mask, BETA,
        batch_size=plan.batch_size, memory_bytes=memory_bytes(plan.explanation.memory_gb),
    )  # fmt: skip
    return Graft(error=error)


def measure_canary(plan: Plan, on_progress: Callable[[float], object] = lambda share: None) -> Canary:
    """Both networks, trained on the plan's dataset and explained by its settings."""
    dataset = plan.dataset
    pixels, labels = _spread(dataset, "train", dataset.n_train, CANARY_TRAIN)
    test_pixels, test_labels = _spread(dataset, "test", dataset.n_test, CANARY_ROWS)
    if min(len(labels), len(test_labels)) < LEAST_ROWS:
        return _none(f"too few images: {len(labels)} for training and {len(test_labels)} to explain")
    train, test = (
        mark_images(shrunk(each.astype(np.float32) / 255), np.random.default_rng(seed))
        for seed, each in enumerate((pixels, test_pixels))
    )
    shares, accuracies = list[dict[str, float]](), list[float]()
    for k, (known, truth, n_classes) in enumerate(
        ((train.places, test.places, N_PLACES), (labels, test_labels, dataset.n_classes))
    ):
        on_progress(k / 2)
        network = _trained(train.images, known, n_classes)
        found, accuracy = _shares(plan, network, test, truth)
        shares.append(found)
        accuracies.append(accuracy)
    on_progress(1.0)
    both = accuracies[0], accuracies[1]
    if both[0] < KNOWS_MARK:
        return _none(f"not defined: of the marks the network knew {both[0]:.0%}", both)
    if both[1] <= (chance := _chance(test_labels)):
        return _none(
            f"not defined: of the objects the network knew {both[1]:.0%}, and {chance:.0%} may be chance", both
        )
    by_mark, by_object = (
        {name: each[name] for name in shares[0] if all(name in one for one in shares)} for each in shares
    )
    if not by_mark:
        return _none("not defined: no explanation of the network that knows the object has positive relevance", both)
    return Canary(mark=by_mark, object=by_object, accuracy=both)


def _chance(labels: NDArray[np.int64]) -> float:
    """What may be right of a network that knows nothing but the commonest label: three standard errors more than its share."""
    share = float(np.bincount(labels).max() / len(labels))
    return min(1.0, share + 3 * float(np.sqrt(share * (1 - share) / len(labels))))


def _spread(dataset: Dataset, split: str, n: int, most: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of at most so many of the n rows of a split, evenly spread: folders of images are sorted by class."""
    return read_chosen(dataset, split, np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64)))


def _none(note: str, accuracy: tuple[float, float] | None = None) -> Canary:
    return Canary(mark={}, object={}, accuracy=accuracy, note=note)


def _trained(images: NDArray[np.float32], labels: NDArray[np.int64], n_classes: int) -> keras.Model:
    keras.utils.set_random_seed(1)
    network = canary_network(images.shape[1:], n_classes)
    # Few images are shown as often as many would be, but no more once the network knows them. Each epoch takes Keras some time.
    shown = np.tile(np.arange(len(images)), max(1, CANARY_SHOWN // len(images)))
    epochs = CANARY_EPOCHS * max(1, CANARY_TRAIN // len(shown))
    network.fit(
        images[shown], labels[shown], batch_size=CANARY_BATCH, epochs=epochs, verbose=0, callbacks=[_StopKnowing()]
    )
    return network


class _StopKnowing(keras.callbacks.Callback):
    """Ends a training after an epoch in which next to nothing was wrong."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.stop_training = (logs or {}).get("accuracy", 0.0) >= KNOWS_ALL


def _shares(plan: Plan, network: keras.Model, test: Marked, truth: NDArray[np.int64]) -> tuple[dict[str, float], float]:
    """The median share in the mark by method, and the accuracy."""
    layer = find_layer(Network(network), LAYER).label
    explainer = Explainer(network, replace(plan.settings(), layer=layer, reading=Reading(), precision="float32"))
    kind = plan.integrated_gradients.baseline
    mean = test.images.astype(np.float64).mean(axis=0) if kind == "mean" else None
    baselines = make_baselines(kind, test.images, mean)
    predictions = explainer.endpoint(test.images, truth % network.output_shape[1]).probabilities.argmax(axis=1)
    endpoint = explainer.endpoint(test.images, predictions)
    attributions = explainer.integrated_gradients(test.images, baselines, predictions, endpoint=endpoint)
    found = {INTEGRATED_GRADIENTS.title: share_in_mark(attributions.attribution.sum(axis=-1), test.masks)}
    for method in (HIRES_CAM, GRAD_CAM):
        maps = endpoint.maps[method.group]
        found[method.title] = share_in_mark(maps, cells_near(test.masks, maps.shape[1:]))
    medians = {name: float(np.nanmedian(each)) for name, each in found.items() if np.isfinite(each).any()}
    return medians, float((predictions == truth).mean())
