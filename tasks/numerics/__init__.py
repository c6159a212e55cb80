"""Pure functions over arrays and Keras models: no Prefect, no files, no settings read from elsewhere.

integrated_gradients  Integrated Gradients with a certificate for every row
quadrature            where the nodes of the integral go, and when there are enough
baselines             the image that means "nothing there"
endpoint              what a network says at the images themselves
cams                  maps from a layer's activations and their gradients
map_layers            the layers that can have maps, and the one that is explained
explainer             one model ready to explain, with its compiled functions
batching              how many images go into one compiled call
quality               how good a classifier's probabilities are
references            other people's implementations, for engines and audit
engine/               the integrals of many rows at once, on the device
worth/                what an explanation is worth, beside controls
network/              a Keras network: graph, feed, outputs, scores, precision
"""
