"""Converting images that are not TFDS's into a TFDS-prepared directory, once, in the order given.

Convention: <root>/datasets/NAME/sha256_DIGEST/1.0.0, the digest taken over the content it was made from: what is there
is reused, what has changed gets another directory. TFDS writes beside it and renames at the end, so a directory with
both of its JSON files is whole; what a killed conversion left behind is removed by the next one.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from storage.file.disk.lock import Owner
from storage.file.disk.lock import locked as lock_file
from tasks.datasets.dataset import DatasetError

__all__ = [
    "DIGEST_PREFIX",
    "Images",
    "convert",
    "is_prepared",
    "locked",
    "original_names",
    "place",
    "quiet",
    "remarks",
]

logger = logging.getLogger("nightlens")

VERSION = "1.0.0"
DIGEST_PREFIX = "sha256_"
# Part of every digest: raise it when the same content is to be converted in another way.
RECIPE = "1"
AS_JSON = "JSON"

# Of `quiet`: two threads that redirect the same stdout in turn would leave it redirected.
_QUIET = threading.RLock()

Images = Callable[[], Iterator[tuple[bytes, int]]]
"""The (PNG file, label) of each row of a split, from the first."""


def is_prepared(directory: Path) -> bool:
    """Whether this is a TFDS-prepared directory."""
    return (directory / "dataset_info.json").is_file() and (directory / "features.json").is_file()


def place(root: Path, name: str, digest: str) -> Path:
    """Where the content with this digest (hexadecimal, of everything that decides it) is or will be prepared."""
    name = re.sub(r"\W+", "_", name.lower(), flags=re.ASCII).strip("_") or "dataset"
    recipe = hashlib.sha256(f"{RECIPE} {digest}".encode()).hexdigest()
    return (root / "datasets" / name / f"{DIGEST_PREFIX}{recipe[:16]}" / VERSION).resolve()


def convert(
    directory: Path,
    splits: Mapping[str, Images],
    class_names: tuple[str, ...],
    shape: tuple[int | None, int | None, int],
    description: str,
) -> Path:
    """Stores the splits as a TFDS dataset in the directory that `place` gave, unless it is there, and returns it.

    shape: (y, x, channel), None where the images differ.
    description: its lines "prepared: ..." and "warning: ..." come back from `remarks`.
    Raises DatasetError if the directory cannot be written, and what the images raise; nothing is left behind then.
    """
    data_dir, name, config = directory.parents[2], directory.parents[1].name, directory.parent.name
    with locked(data_dir, f"{name}-{config}"):
        if is_prepared(directory):
            return directory
        for left_behind in directory.parent.glob(f"*{VERSION}"):
            shutil.rmtree(left_behind)
        logger.info("converting %s to a TFDS dataset in %s", name, directory)
        if not all(map(_survives, class_names)):
            class_names, description = tuple(map(json.dumps, class_names)), f"{description}\nnames: {AS_JSON}"
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape, encoding_format="png"),
                "label": tfds.features.ClassLabel(names=list(class_names)),
            }
        )
        with quiet():
            tfds.dataset_builders.store_as_tfds_dataset(
                name=name,
                config=config,
                version=VERSION,
                data_dir=str(data_dir),
                features=features,
                split_datasets={split: _examples(images) for split, images in splits.items()},
                description=description,
                disable_shuffling=True,
            )
    return directory


def _examples(images: Images) -> Iterator[tuple[int, dict[str, object]]]:
    for row, (png, label) in enumerate(images()):
        # Handed over as a file because Pillow writes a PNG in half the time of TFDS's TensorFlow graph.
        yield row, {"image": io.BytesIO(png), "label": label}


def _survives(name: str) -> bool:
    """Whether TFDS gives the name of a class back as it is: it keeps them as lines, strips those and drops empty ones."""
    return name.splitlines() == [name.strip()]


def original_names(description: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names of the classes as they were given to `convert`, from what TFDS has of a converted dataset."""
    as_json = remarks(description, "names") == [AS_JSON]
    return tuple(json.loads(name) if as_json else name for name in names)


def remarks(description: str, kind: str) -> list[str]:
    """The lines that start with "KIND: " of the description of a converted dataset."""
    return [line.removeprefix(f"{kind}: ") for line in description.splitlines() if line.startswith(f"{kind}: ")]


@contextlib.contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Holds a lock on `name` in a folder: another process that prepares the same dataset waits, then finds it done."""
    with contextlib.ExitStack() as held:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = lock_file(
                folder / f".{name}.lock", f"the preparation of {name}", patience_s=math.inf, on_wait=_waiting
            )
            held.enter_context(lock)
        except OSError as error:
            raise DatasetError(
                f"{folder}: cannot be written ({error.strerror}); choose another root, or a data_dir that is "
                "prepared already"
            ) from error
        yield


def _waiting(owner: Owner) -> None:
    logger.info("waiting for %s", owner)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps TFDS's progress bars, prints and warnings about directories it is just about to write out of the log.

    And its litter off the disk: for a dataset that is not prepared yet, it makes a temporary folder for what a bucket
    might know of it, also where no bucket is asked, and never removes it.
    """
    with _QUIET:
        verbosity = absl_logging.get_verbosity()
        ask_bucket = tfds.core.DatasetInfo.initialize_from_bucket
        absl_logging.set_verbosity(absl_logging.ERROR)
        tfds.disable_progress_bar()
        tfds.core.DatasetInfo.initialize_from_bucket = lambda _info: None
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                yield
        finally:
            tfds.core.DatasetInfo.initialize_from_bucket = ask_bucket
            tfds.enable_progress_bar()
            absl_logging.set_verbosity(verbosity)
