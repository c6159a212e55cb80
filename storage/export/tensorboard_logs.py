"""A log directory for TensorBoard, in the runs that Keras's own callback makes, and one more for the explanations.

    train, validation    the training curves: epoch_loss, epoch_accuracy and so on, by epoch
    explanations         night/...: the night in numbers; mistakes/..., right/..., not-converged/...: figures of chosen rows
                         projector_config.pbtxt: for the projector heat.tsv, a line of cells a row, where its Integrated
                         Gradients lie; rows.tsv, the columns of AttributionStore.table(); sprite.png, the images

All of it is of the class that the model predicts. TensorBoard's own code lays out each record; the file is opened here,
for its EventFileWriter would import TensorFlow wherever that is installed.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from storage.export.embedding import pooled_heat
from storage.read.reader import StoreReader
from storage.read.row_means import block_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["History", "write_tensorboard"]

# Of each measure its value after each epoch, by the names of Keras: those of the validation split begin with val_.
History = Mapping[str, Sequence[float]]
VALIDATION = "val_"
N_FIGURES, DPI = 10, 80
# What browsers take as a picture of all rows, and a row's picture in it at most.
SPRITE_SIDE, THUMBNAIL_SIDE = 4096, 48
RUN = "explanations"


def write_tensorboard(
    store: StoreReader,
    rows: NDArray[np.int64],
    folder: Path,
    advance: Callable[[int], None],
    history: History | None = None,
) -> None:
    """Write the log directory. Without rows it has the curves alone. Arguments as export_rows."""
    from storage.read.tables import row_table

    began = _began(store)
    for prefix, run in (("", "train"), (VALIDATION, "validation")):
        _write_curves(folder / run, prefix, history or {}, began)
    if not len(rows):
        return
    table = row_table(store, rows, "predicted")
    (folder / RUN).mkdir()
    with _events(folder / RUN, began) as add:
        for name, value in _night_in_numbers(table).items():
            add(_scalar(f"night/{name}", value), 0)
        for tag, row in _chosen(table):
            add(_picture(tag, _figure(store, row)), 0)
    _write_projector(store, table, folder / RUN, advance)


def _began(store: StoreReader) -> float:
    """When the night began, which TensorBoard orders runs by; now, where the store does not say."""
    try:
        began = datetime.fromisoformat(str(store.attributes["created_utc"]))
    except ValueError:
        return time.time()
    return (began if began.tzinfo else began.replace(tzinfo=UTC)).timestamp()


def _write_curves(folder: Path, prefix: str, history: History, began: float) -> None:
    own = {name: values for name, values in history.items() if name.startswith(VALIDATION) == bool(prefix)}
    if not own:
        return
    folder.mkdir()
    with _events(folder, began) as add:
        for name, values in own.items():
            for epoch, value in enumerate(values):
                add(_scalar(f"epoch_{name.removeprefix(prefix)}", value), epoch)


def _night_in_numbers(table: "pd.DataFrame") -> dict[str, float]:
    """Of the exported rows; what no row has is left out."""
    found = {
        "accuracy": table["correct"].mean(),
        "confidence": table["confidence"].mean(),
        "converged_share": (table["converged"] != 0).mean(),
        "worst_gap": table["gap"].abs().max(),
        "gradients_per_image": table["n_gradients"].mean(),
        "relevance_gain": table["relevance_gain"].mean(),
    }
    return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def _chosen(table: "pd.DataFrame") -> Iterator[tuple[str, int]]:
    """The rows that are drawn, each under its tag: the most confident mistakes, of each class the most confident right one,
    and the least converged; N_FIGURES of each kind, so of the first classes where there are more."""
    ranked = table.sort_values("confidence", ascending=False, kind="stable")
    kinds = {
        "mistakes": ranked[~ranked["correct"]],
        "right": ranked[ranked["correct"]].drop_duplicates("label").sort_values("label"),
        "not-converged": table[table["converged"] == 0].sort_values("quadrature_error", ascending=False),
    }
    for kind, rows in kinds.items():
        for row in rows.index[:N_FIGURES].tolist():
            yield f"{kind}/row-{row:06d}", row


def _figure(store: StoreReader, row: int) -> NDArray[np.uint8]:
    from storage.draw.figures import render
    from storage.draw.row_pictures import draw_row
    from storage.draw.row_sheet import draw_rows

    if store.has_images:
        return render(draw_row(store, row, "predicted"), DPI)
    return render(draw_rows(store, np.array([row]), "predicted"), DPI)


# For the projector.


def _write_projector(store: StoreReader, table: "pd.DataFrame", folder: Path, advance: Callable[[int], None]) -> None:
    from google.protobuf import text_format
    from PIL import Image
    from tensorboard.plugins.projector import metadata
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    rows = table.index.to_numpy()
    _write_lines(folder / "rows.tsv", _described(table))
    _write_lines(folder / "heat.tsv", _heat_lines(store, rows))
    config = ProjectorConfig()
    of_rows = config.embeddings.add(
        tensor_name="where attributions lie", tensor_path="heat.tsv", metadata_path="rows.tsv"
    )
    if store.has_images:
        sprite, height, width = _sprite(store, rows, advance)
        Image.fromarray(sprite).save(folder / "sprite.png", compress_level=1)
        of_rows.sprite.image_path = "sprite.png"
        of_rows.sprite.single_image_dim.extend((width, height))
    else:
        advance(len(rows))
    (folder / metadata.PROJECTOR_FILENAME).write_text(text_format.MessageToString(config), encoding="utf-8")


def _write_lines(path: Path, lines: Iterator[str]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _described(table: "pd.DataFrame") -> Iterator[str]:
    """A heading and a line a row; whatever is in a name, it neither ends a line nor begins a column."""
    yield "\t".join(["row", *table.columns])
    for line in table.itertuples():
        yield "\t".join(" ".join(str(value).split()) for value in line)


def _heat_lines(store: StoreReader, rows: NDArray[np.int64]) -> Iterator[str]:
    step = block_rows(store.image_shape, itemsize=4)
    for first in range(0, len(rows), step):
        for cells in pooled_heat(store.attributions(rows[first : first + step], "predicted")):
            yield "\t".join(f"{value:.4g}" for value in cells)


def _sprite(
    store: StoreReader, rows: NDArray[np.int64], advance: Callable[[int], None]
) -> tuple[NDArray[np.uint8], int, int]:
    """The images in a square, line by line from the top left, and the height and width of each."""
    columns = math.ceil(math.sqrt(len(rows)))
    side = max(1, min(THUMBNAIL_SIDE, SPRITE_SIDE // columns))
    sprite, height, width = np.zeros((0, 0, 3), np.uint8), 0, 0
    for number, picture in enumerate(_small_images(store, rows, side)):
        if not number:
            height, width = picture.shape[:2]
            sprite = np.zeros((columns * height, columns * width, 3), np.uint8)
        down, across = divmod(number, columns)
        sprite[down * height : (down + 1) * height, across * width : (across + 1) * width] = picture
        advance(1)
    return sprite, height, width


def _small_images(store: StoreReader, rows: NDArray[np.int64], side: int) -> Iterator[NDArray[np.uint8]]:
    from storage.draw.figures import as_rgb
    from storage.draw.thumbnails import fitted

    step = block_rows(store.shape_of("image")[1:], itemsize=4)
    for first in range(0, len(rows), step):
        for image in store.image[rows[first : first + step]]:
            yield fitted(as_rgb(image), side)


# Records.


@contextmanager
def _events(folder: Path, began: float) -> Iterator[Callable[[Any, int], None]]:
    """A function that adds a value at a step to a new file of events."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    with (folder / f"events.out.tfevents.{int(began):010d}.nightlens").open("wb") as stream:
        records = RecordWriter(stream)
        records.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())

        def add(value: Any, step: int) -> None:
            records.write(Event(wall_time=began, step=step, summary=Summary(value=[value])).SerializeToString())

        yield add


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.scalar.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    about = create_summary_metadata("", "")
    about.data_class = summary_pb2.DATA_CLASS_SCALAR
    return summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=make_tensor_proto(np.float32(value)))


def _picture(tag: str, pixels: NDArray[np.uint8]) -> Any:
    """As its images are stored: width, height and the bytes of a PNG."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.image.metadata import create_summary_metadata
    from tensorboard.util.tensor_util import make_tensor_proto

    from storage.draw.thumbnails import as_png

    about = create_summary_metadata("", "")
    about.data_class = summary_pb2.DATA_CLASS_BLOB_SEQUENCE
    height, width = pixels.shape[:2]
    values = [str(width).encode(), str(height).encode(), as_png(pixels)]
    return summary_pb2.Summary.Value(tag=tag, metadata=about, tensor=make_tensor_proto(values))
