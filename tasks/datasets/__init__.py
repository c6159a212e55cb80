"""Whatever the source, a dataset ends as a TFDS-prepared directory, a fixed order, a transform and a fingerprint.

No Prefect here.

prepare        from a configured source to a prepared dataset and its record
fetch          a TFDS dataset from archives that somebody carried in by hand
dataset        the record, which tasks hand to each other instead of arrays
prepared_rows  rows by range, as a stream, or as their mean
sample         a small labelled sample of the training images
conversion     images that are not TFDS's, written as TFDS writes them
survey         what is in a dataset, read once from the first image to the last
splits         which stored rows a split has
transform      how images reach the model's shape
class_order    which output of the model means which class
counting       how far a long pass is
formats/       the sources: names, folders, arrays, digits
"""

from tasks.datasets.dataset import Dataset, DatasetError
from tasks.datasets.fetch import fetch
from tasks.datasets.prepare import prepare
from tasks.datasets.prepared_rows import mean_image, read_rows, stream
from tasks.datasets.sample import labelled_sample

__all__ = ["Dataset", "DatasetError", "fetch", "labelled_sample", "mean_image", "prepare", "read_rows", "stream"]
