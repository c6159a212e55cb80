"""A store in the formats of other programs: a ViRelAy project, a Zarr group, a Parquet table, PNG figures.

`export_rows` writes chosen rows of an open store into a folder that is there whole or not at all. Only this package knows
those formats; what each of them needs is imported when it is written.
"""

from storage.export.destination import default_destination, prepared_destination
from storage.export.formats import FORMATS, Format, export_rows

__all__ = ["FORMATS", "Format", "default_destination", "export_rows", "prepared_destination"]
