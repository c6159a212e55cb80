"""Stores by address, read by ranges through fsspec and never copied whole.

address   which addresses there are, and a file behind one
refusals  what can go wrong on the way, as the store's own errors and without secrets
"""
