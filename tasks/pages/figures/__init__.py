"""Figures that pages are made of; those of explained rows are in storage/draw/figures.py.

page_figures      of the dataset, the training, the evaluation, the audit and the night
worth_figures     of methods beside their controls
strategy_figures  of clusters and their regions
"""
