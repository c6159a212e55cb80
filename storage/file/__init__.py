"""What is on the disk. Everything else of storage builds on this and on nothing else.

variable        what the schema says of a dataset, an attribute, and a number of each row as people see it
methods         the methods that explain a row: their datasets, how they are drawn and read
added_tables    what a store has or has not as a group with an axis of its own
schema          every dataset and attribute: dtype, axes, unit, meaning
schema_listing  the schema as text, for README and tests
layout          how the schema becomes HDF5
chunks          chunks as they lie in the file: their checksum, and many unpacked side by side
rounding        float32 to fewer significant bits, with a stated bound
catalog         where things lie under the root, and which night is the latest
disk/           files and folders, whatever is in them
"""
