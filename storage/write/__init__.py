"""Writing: parts, and the seal that makes one store of them. Nobody ever sees half of either.

part_writer   a part: checked, written, read back, and only then named
arrays        what may enter the store
table_arrays  what may enter the tables that a store has or has not
chunk_writer  a dataset filled chunk by chunk, packed beside the writing
sealing       the parts of a night become one store
filling       a store filled from parts, marked complete at the end
draft         the parts as one store, where they lie, for a look at all rows before the seal
leaving_out   a sealed store written again without its images
part_links    the same with the layout `virtual`: the parts are linked beside the store
"""
