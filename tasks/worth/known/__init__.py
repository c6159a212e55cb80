"""Whether the method and its engine can be trusted at all: what is measured once a model or a configuration.

sanity         attributions of random networks beside the model's own
known_answers  a graft on the model, and a canary pair of networks
known_results  what came of them, as stores record it
kept_results   the results, kept under the root
"""
