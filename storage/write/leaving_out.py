"""A sealed store written again without its images, for whoever may see explanations and no pictures.

It is another file with another sha256, and says so: the root attribute `left_out` is `image`, and there is no such dataset, so
that no program takes black for a picture. Nothing else changes. What is read is checked on the way; a store of several files
becomes one.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from storage.file.chunks import n_processors
from storage.file.disk.durable import sync
from storage.file.layout import create_reserved, lay_out, read_attributes, write_attributes
from storage.file.schema import IMAGE, LEFT_OUT
from storage.file.variable import TEXT, Variable
from storage.read import checked
from storage.read.progress_line import Progress
from storage.read.row_means import block_rows
from storage.read.store_file import StoreFile
from storage.write.chunk_writer import ChunkWriter

__all__ = ["write_without_images"]

SLACK_BYTES = 4 << 20


def write_without_images(store: StoreFile, path: Path, progress: Progress = lambda what, done, total: None) -> None:
    """Write the store's rows to the file `path`, on the disk and complete, but for its images.

    store: on this machine. progress: called with "without images", bytes done and bytes in all.
    Raises ValueError for a store that is without them already, StoreCorrupt naming damaged rows, OSError for a full disk.
    """
    if not store.has_images:
        raise ValueError(f"{store.path}: this store is without its images already; pack it as it is")
    with checked.open_file(Path(store.path)) as source, checked.named_damage(store.path, "the root attributes"):
        about = read_attributes(source) | {"complete": 0, LEFT_OUT: IMAGE}
    variables = [variable for variable in store.all_variables if variable.path != IMAGE]
    sizes = {variable.path: store.shape_of(variable.path)[0] for variable in variables if variable.is_coordinate}
    texts = {variable.path: store.column(variable.path).dtype for variable in variables if variable.dtype == TEXT}
    n_bytes = {variable: _bytes(store, variable) for variable in variables}
    done, total = 0, sum(n_bytes.values())
    with create_reserved(path, total + SLACK_BYTES) as file, ThreadPoolExecutor(n_processors()) as packers:
        write_attributes(file, about)
        lay_out(file, variables, sizes, part_rows=len(store), text_dtypes=texts, schema=int(str(about["schema"])))
        for variable in variables:
            dataset = file[variable.path]
            if variable.is_per_row:
                _copy_rows(store, variable, ChunkWriter(dataset, packers))
            else:
                dataset[...] = store.column(variable.path)
            done += n_bytes[variable]
            progress("without images", done, total)
        file.flush()
        sync(path)
        file.attrs.modify("complete", np.int64(1))


def _bytes(store: StoreFile, variable: Variable) -> int:
    itemsize = (
        store.column(variable.path).dtype.itemsize if variable.dtype == TEXT else np.dtype(variable.dtype).itemsize
    )
    return int(np.prod(store.shape_of(variable.path))) * itemsize


def _copy_rows(store: StoreFile, variable: Variable, writer: ChunkWriter) -> None:
    n_rows, *row_shape = store.shape_of(variable.path)
    step = block_rows(tuple(row_shape), np.dtype(variable.dtype).itemsize)
    for start in range(0, n_rows, step):
        writer.append(store.gather(variable.path, np.arange(start, min(start + step, n_rows))))
    writer.finish()
