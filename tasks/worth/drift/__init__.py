"""What changed since the last model: predictions, and the reasons for those that stayed.

store_drift         two stores of the same images, row by row and class by class
night_drift         the same of a night, as its store records it
drift_floor         how much networks differ where nothing but chance made them differ
reference_networks  networks of one recipe, to measure that
earlier_stores      the nights that a night is compared with
"""
