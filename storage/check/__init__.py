"""Verifying a store: everything that can be known of it without the model, and all that is wrong at once.

verify       verify_store, and the order of the checks
findings     a finding: one thing that is not as it should be
conformity   whether the file is what the schema says
columns      all values read once, kept as a few numbers a row
consistency  whether the numbers agree with each other
part_check   the files of a virtual store
"""
