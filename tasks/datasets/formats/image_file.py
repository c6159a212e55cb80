"""One image file, read by Pillow: what its header says, its pixels, and why it cannot be used.

Convention: an image is turned as its EXIF orientation says, as far as that can be read; of a JPEG with more frames (MPO,
as phones write them) the first counts. Whatever Pillow raises on a file is raised as UnreadableImage. Pillow's warnings
are not shown: what they are about either reads well or is refused here.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

__all__ = ["SUFFIXES", "ImageHeader", "UnreadableImage", "decode_image", "encode_png", "read_header", "warnings_silent"]

# HEIC, AVIF and JPEG XL are listed although few Pillows read them: an image that is left out must not go unnoticed.
COMMON = ".bmp .gif .jfif .jp2 .jpe .jpeg .jpg .pbm .pgm .png .pnm .ppm .tif .tiff .webp"
UNCOMMON = ".avif .heic .heif .jxl"
SUFFIXES = frozenset(f"{COMMON} {UNCOMMON}".split())
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "HEIF", "JPEG", "JPEG2000", "JXL", "MPO", "PNG", "PPM", "TIFF", "WEBP")
EIGHT_BIT_MODES = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"})
MODE_NAMES = {"F": "floating-point pixels", "LAB": "Lab colours", "HSV": "HSV colours"}
# All that Pillow's readers were seen to raise on files that are damaged, cut off or made up.
PILLOW_ERRORS = (
    OSError, ValueError, SyntaxError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError,
    MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = (5, 6, 7, 8)


class UnreadableImage(ValueError):
    """Why a file is not one image that can be used, in a few words."""


class ImageHeader(NamedTuple):
    """What is known of an image before it is decoded."""

    mode: str
    """Pillow's."""
    y: int
    x: int
    """The size once it is turned upright."""
    transparent: bool
    orientation: int
    """EXIF's, 1 for an image that Pillow gives upright or that does not say."""
    damaged_exif: bool
    largest: int | None
    """The largest value of a grey image of more than 8 bits."""

    @property
    def grey(self) -> bool:
        return self.largest is not None or (self.mode in ("1", "L") and not self.transparent)


@contextmanager
def warnings_silent() -> Iterator[None]:
    """Keeps Pillow's warnings off the terminal, also those of other threads; not for use in several at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read_header(content: bytes) -> ImageHeader:
    """What the header of an image file says; pixels are decoded where they have more than 8 bits.

    Raises UnreadableImage for what is not one image that can be brought to 8 bits.
    """
    with _opened(content) as image:
        n_frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if n_frames > 1:
            unit = "pages" if image.format == "TIFF" else "frames"
            raise UnreadableImage(f"{n_frames} {unit}; save the one that counts, or each as a file")
        if min(image.size) < 1:
            raise UnreadableImage(f"size {image.size[1]}x{image.size[0]}")
        largest = _largest(image)
        if largest is None and image.mode not in EIGHT_BIT_MODES:
            what = MODE_NAMES.get(image.mode, f"pixels of mode {image.mode}")
            raise UnreadableImage(f"{what}; convert it to 8 bits a channel")
        orientation, damaged = _orientation(image, content)
        if image.format == "TIFF" and orientation != 1:
            # Pillow turns a TIFF when it loads it, and takes the tag away.
            image.load()
            orientation, damaged = _orientation(image, content)
        x, y = image.size[::-1] if orientation in SIDEWAYS else image.size
        transparent = "A" in image.mode or "transparency" in image.info
        return ImageHeader(image.mode, y, x, transparent, orientation, damaged, largest)


def _largest(image: Image.Image) -> int | None:
    """The largest value where whole numbers have more than 8 bits."""
    if not image.mode.startswith("I"):
        return None
    image.load()
    low, high = image.getextrema()
    if not isinstance(low, int) or not isinstance(high, int) or low < 0:
        raise UnreadableImage(f"values from {low}; expected 0 and more, convert it to 8 bits")
    return high


def _orientation(image: Image.Image, content: bytes) -> tuple[int, bool]:
    """EXIF's orientation, and whether the EXIF is too damaged to say."""
    # Pillow decodes a whole PNG to see whether EXIF follows the pixels.
    if image.format == "PNG" and not any(word in content for word in (b"eXIf", b"exif", b"rientation")):
        return 1, False
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except PILLOW_ERRORS:
        return 1, True
    return (
        (orientation, False) if isinstance(orientation, int) and orientation in range(1, 9) else (1, orientation != 0)
    )


def decode_image(content: bytes, header: ImageHeader, *, grey: bool, divisor: int = 1) -> npt.NDArray[np.uint8]:
    """The pixels (y, x, channel): one channel if `grey`, else RGB, transparency laid over black.

    divisor: what values of more than 8 bits are divided by, rounded.
    Raises UnreadableImage for a file that is not whole.
    """
    with _opened(content) as stored:
        stored.load()
        image: Image.Image = stored
        if header.largest is not None:
            values = np.asarray(image).astype(np.int64)
            image = Image.fromarray(((values + divisor // 2) // divisor).astype(np.uint8))
        if header.orientation in TURNS:
            image = image.transpose(TURNS[header.orientation])
        if grey:
            return np.asarray(image.convert("L"))[..., None]
        if "A" in image.mode or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("RGB"))


def encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    """An image (y, x, channel) as a PNG file, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, by a reader of pictures only: Pillow has some for documents, which start programs."""
    Image.init()
    try:
        with Image.open(io.BytesIO(content), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            yield image
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(_what_it_is(content)) from error
    except PILLOW_ERRORS as error:
        message = " ".join(str(error).split())[:120]
        raise UnreadableImage(f"damaged: {message or type(error).__name__}") from error


def _what_it_is(content: bytes) -> str:
    """Of a file that Pillow does not know, what it looks like."""
    start = content[:512].lstrip().lower()
    if not content:
        return "empty, 0 bytes"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page instead of an image"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; fetch the file with git lfs pull"
    if content[4:8] == b"ftyp" or content[:2] == b"\xff\x0a" or content[4:8] == b"JXL ":
        return "HEIC, AVIF or JPEG XL, which the Pillow installed here does not read; convert it to JPEG or PNG"
    return "not a known image format"
