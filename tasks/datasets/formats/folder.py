"""Folders of images, ROOT/SPLIT/CLASS/*.png, or ROOT/CLASS/*.png as one split, converted to a TFDS-prepared directory.

Convention: classes are ordered by name as strings, as image_dataset_from_directory of Keras does, so that 10 comes before
2; rows by class, then by file name. Every file is decoded once by Pillow and stored losslessly, so the pixels do not
depend on who decodes a JPEG later: grey kept grey only if all are, more than 8 bits brought to 8 by the largest value of
all. What systems and archives leave behind is passed over.
"""

import hashlib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from tasks.datasets.class_order import STRINGS
from tasks.datasets.conversion import convert, is_prepared, place
from tasks.datasets.counting import Count, Report
from tasks.datasets.dataset import DatasetError
from tasks.datasets.formats.decoding import ImageFiles, hash_files, read_headers
from tasks.datasets.formats.image_file import SUFFIXES, ImageHeader, warnings_silent
from tasks.datasets.formats.pixels import divisor

__all__ = ["prepare_folder"]

LAYOUT = "a folder of images as SPLIT/CLASS/*.png, such as train/cat/1.png and test/cat/2.png"
ONE_SPLIT = "train"
SPLIT_WORDS = frozenset(
    ["train", "training", "test", "testing", "val", "valid", "validation", "eval", "evaluation", "holdout"]
)
# Left behind by macOS, Windows, NAS devices and Python, beside what begins with a dot.
LEFT_BEHIND = frozenset(
    ["__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "__pycache__", "lost+found"]
    + ["system volume information"]
)
# Part of the digest: raise it when the same folder is to be converted in another way.
RECIPE = b"folder 2: classes sorted as strings\n"

_Listing = dict[str, dict[str, list[Path]]]
"""Split, class, files."""


def prepare_folder(folder: Path, root: Path, report: Report | None = None) -> Path:
    """Converts a folder of images, every split in it, and returns the prepared directory; the same files only once.

    Raises DatasetError for another layout, an empty class, a class with two spellings, and files that are not images
    that can be used, naming them.
    """
    listing, unlabelled = _list(folder)
    files = [file for classes in listing.values() for members in classes.values() for file in members]
    directory = place(root, folder.resolve().name, _digest(folder, files, report))
    if is_prepared(directory):
        return directory
    with warnings_silent():
        headers = read_headers(folder, files, Count("looking at the files", len(files), report))
        grey = all(header.grey for header in headers)
        deepest = max((header.largest for header in headers if header.largest is not None), default=0)
        images = ImageFiles(
            folder,
            dict(zip(files, headers, strict=True)),
            grey=grey,
            divisor=divisor(f"{folder}: grey images of more than 8 bits", deepest),
            count=Count("converting", len(files), report),
        )
        names = tuple(sorted({name for classes in listing.values() for name in classes}))
        labels = {name: label for label, name in enumerate(names)}
        splits = {
            split: images.rows([(file, labels[name]) for name in sorted(classes) for file in classes[name]])
            for split, classes in listing.items()
        }
        lines = [f"Converted from the folder of images {folder.name}.", f"classes: {STRINGS}"]
        lines += [f"unlabelled: {split} ({n_images} images)" for split, n_images in unlabelled.items()]
        lines += _remarks(folder, listing, dict(zip(files, headers, strict=True)), images.divisor)
        return convert(directory, splits, names, _shape(headers, grey), "\n".join(lines))


def _visible(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if not path.name.startswith(".") and path.name.lower() not in LEFT_BEHIND
    )


def _images_in(folder: Path) -> list[Path]:
    return [file for file in _visible(folder) if file.suffix.lower() in SUFFIXES and file.is_file()]


def _list(folder: Path) -> tuple[_Listing, dict[str, int]]:
    """The image files of each class of each split, and how many images lie in splits that have no classes."""
    tops = list(filter(Path.is_dir, _visible(folder)))
    listing = {
        top.name: {group.name: _images_in(group) for group in filter(Path.is_dir, _visible(top))} for top in tops
    }
    listing = {name: classes for name, classes in listing.items() if classes}
    flat = {top.name: files for top in tops if top.name not in listing and (files := _images_in(top))}
    if not listing and flat:
        splits = [name for name in flat if name.lower() in SPLIT_WORDS]
        if splits:
            raise DatasetError(
                f"{folder}: {' and '.join(splits)} hold images without class folders, and what is explained needs "
                f"labels; arrange them as {LAYOUT}"
            )
        listing, flat = {ONE_SPLIT: {top.name: flat.get(top.name, []) for top in tops}}, {}
    if not listing:
        raise DatasetError(f"{folder}: expected {LAYOUT}, or a TFDS-prepared directory; {_found(folder)}")
    for split, classes in listing.items():
        empty = [name for name, files in classes.items() if not files]
        if empty:
            raise DatasetError(
                f"{folder}: no images in class {', '.join(empty)} of split {split}; expected {LAYOUT}; add images or "
                "remove the folder"
            )
        if not split.replace("-", "_").isidentifier():
            raise DatasetError(f"{folder / split}: a split is named by letters, digits and _, got {split!r}; rename it")
    _refuse_two_spellings(folder, listing)
    return listing, {name: len(files) for name, files in flat.items()}


def _found(folder: Path) -> str:
    found = ", ".join(path.name for path in _visible(folder)[:8]) or "nothing"
    prepared = next((path.parent for path in sorted(folder.glob("**/dataset_info.json"))), None)
    remedy = f"did you mean {prepared}, which TFDS prepared?" if prepared else f"arrange it as {LAYOUT}"
    return f"it has: {found}; {remedy}"


def _refuse_two_spellings(folder: Path, listing: _Listing) -> None:
    """Raises DatasetError for a class that is spelt otherwise in another split: it would count as two."""
    spellings: dict[str, dict[str, str]] = {}
    for split, classes in listing.items():
        for name in classes:
            spellings.setdefault(unicodedata.normalize("NFC", name).casefold(), {}).setdefault(name, split)
    for names in spellings.values():
        together = any(len(names.keys() & classes.keys()) > 1 for classes in listing.values())
        if len(names) > 1 and not together:
            places = " and ".join(f"{split}/{name}" for name, split in names.items())
            raise DatasetError(f"{folder}: {places} are two spellings of one class; give both folders the same name")


def _digest(folder: Path, files: Sequence[Path], report: Report | None) -> str:
    digest = hashlib.sha256(RECIPE)
    for path, content in zip(files, hash_files(files, Count("reading", len(files), report)), strict=True):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _shape(headers: Sequence[ImageHeader], grey: bool) -> tuple[int | None, int | None, int]:
    """(y, x, channel), None where the images differ."""
    ys, xs = {header.y for header in headers}, {header.x for header in headers}
    return ys.pop() if len(ys) == 1 else None, xs.pop() if len(xs) == 1 else None, 1 if grey else 3


def _remarks(folder: Path, listing: _Listing, headers: dict[Path, ImageHeader], divided_by: int) -> Iterator[str]:
    n_images = len(headers)
    if n_transparent := sum(header.transparent for header in headers.values()):
        yield f"prepared: {n_transparent} of {n_images} images with transparency laid over black"
    if 0 < (n_grey := sum(header.grey for header in headers.values())) < n_images:
        yield f"prepared: {n_grey} of {n_images} images from grey to RGB, as the others are"
    if n_deep := sum(header.largest is not None for header in headers.values()):
        how = f"divided by {divided_by}, rounded" if divided_by > 1 else "kept as they are, up to 255"
        yield f"prepared: {n_deep} of {n_images} images of more than 8 bits, {how}"
    damaged = [file for file, header in headers.items() if header.damaged_exif]
    if damaged:
        yield (
            f"warning: the EXIF of {len(damaged)} images cannot be read, and they were not turned, such as "
            f"{damaged[0].relative_to(folder)}"
        )
    parents = sorted({file.parent for file in headers})
    ignored = [path for parent in parents for path in _visible(parent) if path not in headers]
    if ignored:
        yield (
            f"warning: {len(ignored)} files or folders beside the images were ignored, such as "
            f"{ignored[0].relative_to(folder)}"
        )
