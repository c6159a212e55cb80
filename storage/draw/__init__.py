"""Figures of explained rows, as matplotlib figures or RGB arrays, and what a notebook shows of a store.

row_pictures    the pictures of a store's rows, with captions
row_sheet       several rows in one figure, a line a row
panels          the notebook's two figures of a row, set up once for many rows
change_figures  what changed between two stores
thumbnails      small pictures without captions, for other programs
figures         what they are made of: colours, scales, overlays, sheets
notebook_cards  a store and its rows as HTML for a notebook
"""
