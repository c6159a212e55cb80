"""Figures of explained rows, as matplotlib figures or RGB arrays.

row_pictures    the pictures of a store's rows, with captions
panels          the notebook's two figures of a row, set up once for many rows
change_figures  what changed between two stores
thumbnails      small pictures without captions, for other programs
figures         what they are made of: colours, scales, overlays, sheets
"""
