"""The nights of a root: what has become of each, and which may go.

night_entries    each night's state, from its folder alone; pins
night_records    run.json and night.json, read and checked
night_marks      what a night says of itself while it runs, for the case that it is killed
browse_record    where `nightlens browse` shows the root
prune            old nights, parts and models that no night refers to, and leftovers
training_record  how a store's model was trained, from the record beside it
"""
