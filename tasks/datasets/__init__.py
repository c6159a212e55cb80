"""Whatever the source, a dataset ends as a TFDS-prepared directory, a fixed order, a transform and a fingerprint.

`prepare` makes the record, `fetch` prepares a TFDS dataset from archives carried in by hand, and the rest reads rows
through the record. No Prefect here.
"""

from tasks.datasets.dataset import Dataset, DatasetError
from tasks.datasets.fetch import fetch
from tasks.datasets.prepare import prepare
from tasks.datasets.prepared_rows import mean_image, read_rows, stream
from tasks.datasets.sample import labelled_sample

__all__ = ["Dataset", "DatasetError", "fetch", "labelled_sample", "mean_image", "prepare", "read_rows", "stream"]
