"""Pages for the Prefect UI: markdown with pictures, bounded in size, with every foreign name escaped.

What the UI shows was tried on a real server: pictures as data URIs, also inside tables, and a small one in the description,
which is all that lists and timelines show. It has no `image-rendering`, so small pictures are enlarged in the file itself.
"""

import base64
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from prefect.artifacts import create_markdown_artifact

from storage.draw.figures import render
from tasks.night.outage import upload

__all__ = ["Page", "drawing", "escape"]

# The UI downloads lists of artifacts whole, and the server stores each two to three times: with the thumbnail and our own
# paragraphs, which are short and always kept, a page stays under 500 KB.
PAGE_BYTES = 450_000
PLAIN = ".,:;/=+%()?'-"
THUMBNAIL_PIXELS = 160


def escape(text: object) -> str:
    """Text that is shown as it is, in one line: a backslash before whatever means something to markdown or HTML.

    Backslashes and not entities, which the older UI shows as they are written. Line breaks and tabs become spaces;
    control characters, surrogates and what turns the reading direction become U+FFFD.
    """
    line = _visible(re.sub(r"\s", " ", str(text)))
    return re.sub(r"[!-/:-@\[-`{-~]", lambda found: _escaped(found.group()), line)


def _visible(line: str) -> str:
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", "\ufffd", line)


def _escaped(mark: str) -> str:
    return mark if mark in PLAIN else f"\\{mark}"


def _data_uri(picture: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def _encode(pixels: NDArray[np.uint8]) -> tuple[bytes, str]:
    """A PNG of at most 255 colours, which is a third of the size and looks the same, and its kind."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.quantize(255).save(buffer, "png")
    return buffer.getvalue(), "png"


_drawing: ContextVar[bool] = ContextVar("drawing", default=True)


@contextmanager
def drawing(draws: bool) -> Iterator[None]:
    """While this lasts, pages have their pictures or, if `draws` is false, words and tables only."""
    token = _drawing.set(draws)
    try:
        yield
    finally:
        _drawing.reset(token)


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
        """Paragraphs of our own markdown; foreign names in them must be escaped. One of the UIs would keep line breaks."""
        self._add(re.sub(r"(?<!\n)\n(?!\n)", " ", markdown))

    def code(self, text: str) -> None:
        kept = self._fitting([_visible(line) for line in text.replace("```", "'''").splitlines()])
        self._add("\n".join(["```text", *kept, "```"]))
        self._say_left_out(text.splitlines(), kept, "line(s)")

    def table(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Rows with the same keys; values are escaped, numbers are rounded. Rows that do not fit are left out and counted."""
        if not rows:
            return
        header = list(rows[0])
        lines = [_line(_cell(row[key]) for key in header) for row in rows]
        kept = self._fitting(lines)
        self._add("\n".join([_line(map(escape, header)), _line("---" for _ in header), *kept]))
        self._say_left_out(lines, kept, "row(s)")

    def figure(self, draw: Callable[[], Figure], alternative: str, *, thumbnail: bool = False) -> None:
        """A figure as a picture; alternative: what it shows, in words. thumbnail: the page's, if it has none yet.

        draw: makes the figure; called at once, and not at all where pages have no pictures.
        """
        if _drawing.get():
            self.picture(render(draw()), alternative, thumbnail=thumbnail)

    def picture(self, pixels: NDArray[np.uint8], alternative: str, *, thumbnail: bool = False) -> None:
        """Pixels (y, x, 3) as a picture, otherwise as figure(). One that does not fit is left out and counted."""
        if not _drawing.get():
            return
        picture = self._fitting([_picture(pixels, alternative)])
        if picture:
            self._add(picture[0])
        else:
            self._left_out += 1
        if thumbnail:
            self._keep_thumbnail(pixels)

    def _fitting(self, lines: Sequence[str]) -> list[str]:
        """The first lines, as many as still fit the page; they are counted."""
        kept = []
        for line in lines:
            size = len(line.encode()) + 1
            if self._bytes + size > PAGE_BYTES:
                break
            self._bytes += size
            kept.append(line)
        return kept

    def _say_left_out(self, lines: Sequence[str], kept: Sequence[str], what: str) -> None:
        if len(kept) < len(lines):
            self._add(f"{len(lines) - len(kept)} more {what} would not fit this page.")

    def _keep_thumbnail(self, pixels: NDArray[np.uint8]) -> None:
        if not self._thumbnail:
            image = Image.fromarray(pixels[: pixels.shape[1]])  # of a tall picture, the top: small is illegible
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

    def description(self) -> str:
        """What lists and timelines show: the sentence that says what to look for, and the thumbnail."""
        return f"{self.look_for}\n\n{self._thumbnail}"

    def publish(self) -> bool:
        """Uploads the page; whether the server has it now. One that will not take it does not stop the science."""
        send = partial(create_markdown_artifact, key=self.key, markdown=self.markdown(), description=self.description())
        return upload(f"artifact {self.key}", send)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _picture(pixels: NDArray[np.uint8], alternative: str) -> str:
    return f"![{escape(alternative)}]({_data_uri(*_encode(pixels))})"


def _cell(value: object) -> str:
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return escape(value)
