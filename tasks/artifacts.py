"""Pages for the Prefect UI: markdown with pictures, bounded in size, with every foreign name escaped.

What the UI shows was tried on a real server: pictures as data URIs, also inside tables, and a small one in the description,
which is all that lists and timelines show. It has no `image-rendering`, so small pictures are enlarged in the file itself.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence

import httpx
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from tasks.numerics.figures import render

__all__ = ["Page", "escape"]

PAGE_BYTES = 480_000  # the UI downloads lists of artifacts whole, and the server stores each two to three times
THUMBNAIL_PIXELS = 160


def escape(text: object) -> str:
    """Text that markdown and HTML show as it is: everything but letters, digits and plain punctuation as an entity."""
    return re.sub(r"[^\w .,:;/=+%()?'-]|_", lambda found: f"&#{ord(found.group())};", str(text))


def _data_uri(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _encode(pixels: NDArray[np.uint8]) -> tuple[bytes, str]:
    """The smallest of a few faithful encodings, and its kind."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.quantize(255).save(buffer, "png", optimize=True)
    return buffer.getvalue(), "png"


class Page:
    """A markdown artifact under construction.

    key: stable from night to night, so that the UI shows the history. look_for: one sentence that says what to look for.
    """

    def __init__(self, key: str, look_for: str):
        self.key, self.look_for = key, look_for
        self._blocks: list[str] = []
        self._bytes = 0
        self._left_out = 0
        self._thumbnail = ""

    def heading(self, text: str, level: int = 1) -> None:
        self._add(f"{'#' * level} {escape(text)}")

    def text(self, markdown: str) -> None:
        """A paragraph of our own markdown; foreign names in it must be escaped."""
        self._add(markdown)

    def code(self, text: str) -> None:
        self._add("```text\n" + text.replace("```", "'''") + "\n```")

    def table(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Rows with the same keys; values are escaped, numbers are rounded."""
        if not rows:
            return
        header = list(rows[0])
        lines = [" | ".join(map(escape, header)), " | ".join("---" for _ in header)]
        lines += [" | ".join(_cell(row[key]) for key in header) for row in rows]
        self._add("\n".join(f"| {line} |" for line in lines))

    def gallery(self, header: Sequence[str], rows: Sequence[tuple[Sequence[object], NDArray[np.uint8], str]]) -> None:
        """A table with a picture in the last column; rows are (cells, pixels (y, x, 3), alternative text)."""
        lines = [" | ".join([*map(escape, header), "picture"]), " | ".join("---" for _ in range(len(header) + 1))]
        for cells, pixels, alternative in rows:
            picture = self._picture(*_encode(pixels), alternative)
            if picture:
                lines.append(" | ".join([*map(_cell, cells), picture]))
                self._keep_thumbnail(pixels)
        self._add("\n".join(f"| {line} |" for line in lines))

    def figure(self, figure: Figure, alternative: str, *, thumbnail: bool = False) -> None:
        pixels = render(figure)
        picture = self._picture(*_encode(pixels), alternative)
        if picture:
            self._add(picture)
        if thumbnail:
            self._keep_thumbnail(pixels)

    def _picture(self, picture: bytes, kind: str, alternative: str) -> str:
        uri = _data_uri(picture, kind)
        if self._bytes + len(uri) > PAGE_BYTES:
            self._left_out += 1
            return ""
        self._bytes += len(uri)
        return f"![{escape(alternative)}]({uri})"

    def _keep_thumbnail(self, pixels: NDArray[np.uint8]) -> None:
        if not self._thumbnail:
            image = Image.fromarray(pixels)
            image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            picture, kind = _encode(np.asarray(image))
            self._thumbnail = f"![thumbnail]({_data_uri(picture, kind)})"

    def _add(self, block: str) -> None:
        self._blocks.append(block)

    def markdown(self) -> str:
        blocks = list(self._blocks)
        if self._left_out:
            blocks.append(f"{self._left_out} more picture(s) would not fit this page; they are in the night's folder.")
        return "\n\n".join(blocks)

    def publish(self) -> bool:
        """Uploads the page; a server that will not take it is logged and does not stop the science."""
        try:
            create_markdown_artifact(
                key=self.key, markdown=self.markdown(), description=f"{self.look_for}\n\n{self._thumbnail}"
            )
        except (httpx.HTTPError, PrefectException) as error:
            get_run_logger().error("artifact %s could not be uploaded: %s", self.key, error)
            return False
        return True


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return escape(value)
