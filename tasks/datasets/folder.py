"""Folders of images, ROOT/SPLIT/CLASS/*.png, converted to a TFDS-prepared directory.

Convention: rows are ordered by class, then by file name; classes by name, or by number where every name is a number.
Every file is decoded once by Pillow and stored losslessly, so the pixels do not depend on who decodes a JPEG later:
turned as its EXIF tag says, grey kept grey only if all are, transparency laid over black. Hidden files are ignored.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from tasks.datasets.conversion import Images, convert, is_prepared, place
from tasks.datasets.dataset import DatasetError

__all__ = ["prepare_folder"]

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
LAYOUT = "a folder of images as SPLIT/CLASS/*.png, such as train/cat/1.png and test/cat/2.png"

_Listing = dict[str, dict[str, list[Path]]]
"""Split, class, files."""


def prepare_folder(folder: Path, root: Path) -> Path:
    """Converts a folder of images, every split in it, and returns the prepared directory; the same files only once.

    Raises DatasetError for another layout, an empty class, or files that are not whole 8-bit images, naming them.
    """
    listing = _list(folder)
    directory = place(root, folder.resolve().name, _digest(folder, listing))
    if is_prepared(directory):
        return directory
    files = [file for classes in listing.values() for members in classes.values() for file in members]
    pictures = _inspect(folder, files)
    grey = all(mode in ("1", "L") for mode, _ in pictures)
    heights, widths = {size[1] for _, size in pictures}, {size[0] for _, size in pictures}
    shape = (
        heights.pop() if len(heights) == 1 else None,
        widths.pop() if len(widths) == 1 else None,
        1 if grey else 3,
    )
    names = _class_names({name for classes in listing.values() for name in classes})
    splits = {split: _images(classes, names, grey) for split, classes in listing.items()}
    return convert(directory, splits, names, shape, _describe(folder, listing, pictures))


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _list(folder: Path) -> _Listing:
    """The image files of each class of each split."""
    listing: _Listing = {}
    for split in filter(Path.is_dir, _visible(folder)):
        classes = {
            group.name: [file for file in _visible(group) if file.is_file() and file.suffix.lower() in SUFFIXES]
            for group in filter(Path.is_dir, _visible(split))
        }
        if not classes:
            continue
        empty = [name for name, files in classes.items() if not files]
        if empty:
            raise DatasetError(
                f"{split}: no images in class {', '.join(empty)}; expected {LAYOUT}; add images or remove the folder"
            )
        if not split.name.replace("-", "_").isidentifier():
            raise DatasetError(f"{split}: a split is named by letters, digits and _, got {split.name!r}; rename it")
        listing[split.name] = classes
    if not listing:
        found = ", ".join(path.name for path in _visible(folder)[:8]) or "nothing"
        prepared = next((path.parent for path in sorted(folder.glob("**/dataset_info.json"))), None)
        remedy = f"did you mean {prepared}, which TFDS prepared?" if prepared else f"arrange it as {LAYOUT}"
        raise DatasetError(f"{folder}: expected {LAYOUT}, or a TFDS-prepared directory; it has: {found}; {remedy}")
    return listing


def _digest(folder: Path, listing: _Listing) -> str:
    digest = hashlib.sha256()
    for split in listing.values():
        for files in split.values():
            for path in files:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return digest.hexdigest()


def _inspect(folder: Path, files: list[Path]) -> list[tuple[str, tuple[int, int]]]:
    """Pillow's mode and size (x, y) of every file, each decoded to see that it is whole."""
    pictures, unreadable = [], []
    for path in files:
        try:
            with Image.open(path) as image:
                if getattr(image, "is_animated", False) or image.mode not in EIGHT_BIT_MODES:
                    raise ValueError(f"mode {image.mode}, not one 8-bit image")
                image.load()
                transparent = "A" in image.mode or "transparency" in image.info
                size = _upright(image).size
                pictures.append(("RGBA" if transparent else image.mode, size))
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            reason = "not a known image format" if isinstance(error, UnidentifiedImageError) else str(error)
            unreadable.append(f"{path.relative_to(folder)} ({reason})")
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise DatasetError(
            f"{folder}: {len(unreadable)} of {len(files)} files are not whole 8-bit images: "
            f"{', '.join(unreadable[:5])}{more}; replace or remove them"
        )
    return pictures


def _class_names(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names, key=int) if all(name.isdecimal() for name in names) else sorted(names))


def _images(classes: dict[str, list[Path]], names: tuple[str, ...], grey: bool) -> Images:
    def rows() -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
        for label, name in enumerate(names):
            for path in classes.get(name, []):
                yield _decode(path, grey), label

    return rows


def _decode(path: Path, grey: bool) -> npt.NDArray[np.uint8]:
    """The image (y, x, channel)."""
    with Image.open(io.BytesIO(path.read_bytes())) as stored:
        image = _upright(stored)
        if grey:
            return np.asarray(image.convert("L"))[..., None]
        if "A" in image.mode or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("RGB"))


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF tag says."""
    return ImageOps.exif_transpose(image) or image


def _describe(folder: Path, listing: _Listing, pictures: list[tuple[str, tuple[int, int]]]) -> str:
    lines = [f"Converted from the folder of images {folder.name}."]
    modes = Counter(mode for mode, _ in pictures)
    if modes["RGBA"]:
        lines.append(f"prepared: {modes['RGBA']} of {len(pictures)} images with transparency laid over black")
    n_grey = modes["1"] + modes["L"]
    if 0 < n_grey < len(pictures):
        lines.append(f"prepared: {n_grey} of {len(pictures)} images from grey to RGB, as the others are")
    ignored = [
        str(path.relative_to(folder))
        for split, classes in listing.items()
        for name, files in classes.items()
        for path in _visible(folder / split / name)
        if path not in set(files)
    ]
    if ignored:
        lines.append(f"warning: {len(ignored)} files or folders beside the images were ignored, such as {ignored[0]}")
    return "\n".join(lines)
