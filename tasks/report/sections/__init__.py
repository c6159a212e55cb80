"""Sections of the page of a night, as its templates take them.

recorded_worth  what the store records of the worth, or why it cannot be read
worth_section   what the explanations are worth, beside controls
strategy_cards  by which strategies the model recognises its classes
"""
