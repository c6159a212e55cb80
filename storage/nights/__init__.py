"""The nights of a root: what has become of each, which may go, and one as a file to hand over.

night_entries    each night's state, from its folder alone; pins
night_records    run.json and night.json, read and checked
night_marks      what a night says of itself while it runs, for the case that it is killed
browse_record    where `nightlens browse` shows the root
prune            old nights, parts and models that no night refers to, and leftovers
training_record  how a store's model was trained, from the record beside it
packing          a night as one file
unpacking        such a file made a night of a root
packed_files     which files make a night that can be handed over
pack_manifest    the checksums of a packed night, and which of its entries may be written
pack_texts       what a packed night says to the person who receives it
"""
