"""By which strategies the model recognises its classes.

class_strategies   clusters of each class's explanations, and their transplants
strategy_names     the same strategy has the same name every night
strategy_pictures  what there is to see of one
shortcuts          strategies whose small region alone makes the class
"""
