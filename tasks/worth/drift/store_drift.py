"""Two stores of the same images: which predictions changed, and how the reasons for those that stayed did."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from storage.read.row_means import block_rows
from tasks.numerics.worth.drift import LEAST_ROWS, Change, Heat, change_of, heat_of, likeness

__all__ = ["OtherImages", "StoreDrift", "common_rows", "compare_stores", "same_settings"]

EXPLAINED = (("explanation", "score"), ("integrated_gradients", "baseline"))


class OtherImages(ValueError):
    """Two stores that cannot be compared: what was expected, what came."""


@dataclass(frozen=True)
class StoreDrift:
    """rows: row numbers that both stores have. before, after: their predictions. stayed: positions of those that are the same.

    likeness: of the reasons for what was predicted before and after, cosine over 8x8 cells, (row,). changes: by predicted
    class, of the rows that stayed; notes: why a class has none. same_model: whether the same model explained both.
    """

    rows: NDArray[np.int64]
    before: NDArray[np.int64]
    after: NDArray[np.int64]
    stayed: NDArray[np.int64]
    likeness: NDArray[np.float64]
    changes: dict[int, Change]
    notes: dict[int, str]
    same_model: bool

    def moved_most(self, n: int) -> NDArray[np.int64]:
        """Row numbers whose prediction stayed and whose reasons are least alike, the least first."""
        return self.rows[self.stayed[np.argsort(self.likeness[self.stayed], kind="stable")[:n]]]

    def flows(self) -> list[tuple[int, int, int]]:
        """From which prediction to which, and how many rows went so; the most first."""
        changed = self.before != self.after
        pairs = zip(self.before[changed].tolist(), self.after[changed].tolist(), strict=True)
        return [(before, after, n) for (before, after), n in Counter(pairs).most_common()]


def compare_stores(
    before: AttributionStore, after: AttributionStore, on_progress: Callable[[float], object] = lambda share: None
) -> StoreDrift:
    """Raises OtherImages unless the stores are of the same images, have rows in common and the same classes.

    A dataset whose training images alone changed has another fingerprint; then the images themselves are compared.
    """
    rows = common_rows(before, after)
    predictions = [store.values("prediction", rows) for store in (before, after)]
    stayed = np.flatnonzero(predictions[0] == predictions[1])
    heats = [_heat(store, rows, on_progress, k) for k, store in enumerate((before, after))]
    changes, notes = dict[int, Change](), dict[int, str]()
    for number in range(len(after.class_names)):
        of_class = stayed[predictions[0][stayed] == number]
        found = change_of(heats[0].of(of_class), heats[1].of(of_class))
        if found is None:
            notes[number] = f"too few rows: {len(of_class)} called it by both, {LEAST_ROWS} are needed"
        else:
            changes[number] = found
    return StoreDrift(
        rows=rows,
        before=predictions[0],
        after=predictions[1],
        stayed=stayed,
        likeness=likeness(*heats),
        changes=changes,
        notes=notes,
        same_model=before.attributes["model_sha256"] == after.attributes["model_sha256"],
    )


def common_rows(before: AttributionStore, after: AttributionStore) -> NDArray[np.int64]:
    """Row numbers of the images that both have. Raises OtherImages as `compare_stores` does."""
    if before.class_names != after.class_names:
        raise OtherImages(f"expected the same classes, got {before.class_names} and {after.class_names}")
    rows = np.intersect1d(before.row_numbers, after.row_numbers)
    if not len(rows):
        spans = " and ".join(f"{store.row_range.start} to {store.row_range.stop - 1}" for store in (before, after))
        raise OtherImages(f"expected rows that both stores have, got {spans}")
    said = [f"{_fingerprint(store)} in {store.path}" for store in (before, after)]
    if _fingerprint(before) != _fingerprint(after) and not _same_images(before, after, rows):
        raise OtherImages(f"expected two stores of the same images, got {said[0]}, {said[1]}")
    return rows


def same_settings(before: AttributionStore, after: AttributionStore) -> bool:
    """Whether both explain the same score from the same baseline, so that their reasons can differ by the model alone."""
    return _settings(before) == _settings(after)


def _settings(store: AttributionStore) -> tuple[object, object]:
    configuration: Any = store.attributes["configuration"]
    found = (configuration.get(section, {}).get(key) for section, key in EXPLAINED)
    return next(found), next(found)


def _fingerprint(store: AttributionStore) -> str:
    return f"split {store.attributes['dataset_split']} of the dataset with the fingerprint {store.attributes['dataset_sha256']}"


def _same_images(before: AttributionStore, after: AttributionStore, rows: NDArray[np.int64]) -> bool:
    shape = before.image_shape
    if after.image_shape != shape:
        return False
    blocks = (rows[start : start + step] for step in [block_rows(shape, 2)] for start in range(0, len(rows), step))
    return all(np.array_equal(before.values("image", block), after.values("image", block)) for block in blocks)


def _heat(store: AttributionStore, rows: NDArray[np.int64], on_progress: Callable[[float], object], half: int) -> Heat:
    def blocks() -> Iterator[Heat]:
        step = block_rows(store.image_shape, 4)
        for start in range(0, len(rows), step):
            yield heat_of(store.attributions(rows[start : start + step], "predicted").sum(axis=-1))
            on_progress((half + min(1.0, (start + step) / len(rows))) / 2)

    found = [*blocks()] or [heat_of(np.zeros((0, *store.image_shape[:2])))]
    return Heat(np.concatenate([h.signed for h in found]), np.concatenate([h.share for h in found]))
