"""A store in the formats of other programs: ViRelAy, Zarr, Parquet, PNG figures, Embedding Atlas, TensorBoard.

`export_rows` writes chosen rows of an open store into a folder that is there whole or not at all. Only this package knows
those formats; what each of them needs is imported when it is written.

formats           the formats by name, and export_rows
destination       the folder that an export goes to
parquet_table     a line per image, as Parquet
zarr_group        the same paths and values, as Zarr
row_figures       one PNG a row
virelay_project   a project for ViRelAy
analysis          the project's embeddings and clusterings
embedding         principal components of where the attribution lies
atlas_table       a table with pictures for Embedding Atlas
neighbourhood     the rows most like each row, and a plane where such rows lie near
tensorboard_logs  curves, figures and the projector for TensorBoard
"""

from storage.export.destination import default_destination, prepared_destination
from storage.export.formats import FORMATS, Format, export_rows

__all__ = ["FORMATS", "Format", "default_destination", "export_rows", "prepared_destination"]
