"""The network of the twins with a model within it, as people bring networks with a backbone."""

import keras

from reference import SHAPE, small_cnn


def with_backbone(outer: str, inner: str, inputs: tuple) -> keras.Model:
    """`small_cnn(3)` with everything before its Flatten in a nested model named backbone; either is of the given kind."""
    layers = small_cnn(3).layers[1:]
    backbone = chain(inner, inputs, layers[:4], name="backbone")
    return chain(outer, SHAPE, [backbone, *layers[4:]])


def chain(kind: str, inputs: tuple, layers: list, name: str = "chain") -> keras.Model:
    if kind == "sequential":
        return keras.Sequential([keras.Input(inputs), *layers], name=name)
    x = images = keras.Input(inputs)
    for layer in layers:
        x = layer(x)
    return keras.Model(images, x, name=name)
