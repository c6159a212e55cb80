"""The configuration of a model that Keras 2 wrote, as Keras 3 spells it.

keras2_graphs     models and their graphs
keras2_layers     layers with other arguments, names or meanings
keras2_calls      calls of TensorFlow's functions in a graph, as layers
tensorflow_calls  the layers that make those calls
"""
