"""What the night's explanations are worth, and what they reveal: measured before the store is sealed, and recorded in it.

assessment      what was measured, as the store records it
estimate        means with their standard errors; "too few" and "not defined" in words
class_strategies  clusters of each class's explanations, and their transplants
strategy_names  the same strategy has the same name every night
shortcuts       strategies whose small region alone makes the class
sanity          attributions of random networks beside the model's own
known_answers   a graft on the model, and a canary pair of networks
kept_results    what is measured once a model or configuration
controls_table  methods and controls on a sample of rows: removal curves, partial mu-fidelity
worth_warnings  what of it is to be looked at
worth_words     the same as sentences for people
"""
