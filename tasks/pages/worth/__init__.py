"""Pages of what a night's explanations are worth, and of what they reveal.

worth_page       `worth`
strategies_page  `strategies`
drift_page       `drift`, since another model
"""
