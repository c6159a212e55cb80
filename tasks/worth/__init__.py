"""What the night's explanations are worth, and what they reveal: measured before the store is sealed, and recorded in it.

assessment      what was measured, as the store records it
estimate        means with their standard errors; "too few" and "not defined" in words
controls_table  methods and controls on a sample of rows: removal curves, partial mu-fidelity
drift/          what changed since the last model
known/          whether the method and its engine can be trusted at all
strategies/     by which strategies the model recognises its classes
worth_warnings  what of it is to be looked at
worth_words     the same as sentences for people
"""
