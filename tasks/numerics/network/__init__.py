"""A Keras network as the explanations need it.

cnn               the notebook's network and its training batches
training_network  that network in training, by faster operations
feed              what a network is fed for an image
outputs           what a classifier's outputs are, judged on images
scores            the score of a target class, from images in image space
graph             a model as a graph of calls, nested models unfolded
compiled          a function of a model in batches of fixed shape, halved where one does not fit
precision         the same weights in another precision
"""
