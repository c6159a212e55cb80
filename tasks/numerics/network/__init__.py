"""A Keras network as the explanations need it.

cnn               the notebook's network and its training batches
training_network  that network in training, by faster operations
feed              what a network is fed for an image
outputs           what a classifier's outputs are, judged on images
scores            the score of a target class, from images in image space
graph             a model as a graph of calls, nested models unfolded
compiled          a function of a model in batches of fixed shape, halved where one does not fit
precision         the same weights in another precision
tensor_float_32   TF32, which a GPU must not use unless it is asked for
device            the device that computes, by its name

Whoever imports any of it has float32 computed as float32, on a GPU too.
"""

from tasks.numerics.network.tensor_float_32 import forbid_tensor_float_32

forbid_tensor_float_32()
