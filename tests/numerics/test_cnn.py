"""The notebook's network, layer by layer, and training batches that a seed decides."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tasks.numerics.network.cnn import build_cnn, count_parameters, to_input, training_batches, validation_batches

LAYERS = [
    "Input_Layer",
    "Conv2D_Block1_Layer1",
    "BatchNorm_Block1_Layer1",
    "Conv2D_Block1_Layer2",
    "BatchNorm_Block1_Layer2",
    "MaxPool_Block1",
    "Conv2D_Block2_Layer1",
    "BatchNorm_Block2_Layer1",
    "Conv2D_Block2_Layer2",
    "BatchNorm_Block2_Layer2",
    "MaxPool_Block2",
    "Conv2D_Block3_Layer1",
    "BatchNorm_Block3_Layer1",
    "Conv2D_Block3_Layer2",
    "BatchNorm_Block3_Layer2",
    "MaxPool_Block3",
    "Flatten",
    "Dropout_Flatten",
    "Dense_Hidden",
    "Dropout_Hidden",
    "Output_Layer",
]
SHAPE, N, BATCH = (16, 16, 3), 40, 8


def images_of(pixels: np.ndarray) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((pixels, np.arange(len(pixels), dtype=np.int64)))


def gradients_of_grey(n: int = N) -> np.ndarray:
    """Images that rise to the right and faster down, each brighter than the one before: no two shifts or flips look alike."""
    y, x = np.indices(SHAPE[:2])
    return np.stack([np.repeat((5 * x + 8 * y + k)[..., None], 3, axis=2) for k in range(n)]).astype(np.uint8)


def epoch(pixels: np.ndarray, *, shift: float = 0.0, flip: bool = False, seed: int = 0) -> dict[int, np.ndarray]:
    """One epoch of training images by label, in the order of training."""
    batches = training_batches(
        images_of(pixels), n=len(pixels), shape=SHAPE, batch_size=BATCH, shift=shift, flip=flip, seed=seed
    )
    return {
        int(label): image for images, labels in batches for image, label in zip(images.numpy(), labels, strict=True)
    }


# The network


def test_the_notebook_s_network_has_its_parameters_and_names():
    model = build_cnn((32, 32, 3), 10)
    assert model.count_params() == 2_397_226
    assert sum(int(np.prod(weights.shape)) for weights in model.non_trainable_weights) == 896
    assert [layer.name for layer in model.layers] == LAYERS


def test_the_notebook_s_network_layer_by_layer():
    model = build_cnn((32, 32, 3), 10)
    assert model.input_shape == (None, 32, 32, 3) and model.output_shape == (None, 10)
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 32, 64, 64, 128, 128]
    for layer in convolutions:
        assert (layer.kernel_size, layer.padding, layer.activation.__name__) == ((3, 3), "same", "relu")
    assert [model.get_layer(f"MaxPool_Block{k}").output.shape[1] for k in (1, 2, 3)] == [16, 8, 4]
    assert [model.get_layer(name).rate for name in ("Dropout_Flatten", "Dropout_Hidden")] == [0.2, 0.2]
    hidden, last = model.get_layer("Dense_Hidden"), model.get_layer("Output_Layer")
    assert (hidden.units, hidden.activation.__name__) == (1024, "relu")
    assert (last.units, last.activation.__name__) == (10, "softmax")
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert model.loss == "sparse_categorical_crossentropy"


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (13, 9, 3)], ids=str)
def test_other_image_sizes(shape):
    model = build_cnn(shape, 3)
    probabilities = model(np.zeros((2, *shape), np.float32)).numpy()
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("shape", [(7, 32, 3), (32, 4, 1)], ids=str)
def test_images_too_small_to_be_pooled_are_refused(shape):
    with pytest.raises(ValueError, match=r"pools 3 times and needs images of at least 8x8 pixels, got \("):
        build_cnn(shape, 10)


# Batches


def test_the_input_is_float32_in_zero_to_one():
    stored = tf.constant([[[[0, 51, 255]]]], tf.uint8)
    result = to_input(stored)
    assert result.dtype == tf.float32
    np.testing.assert_allclose(result, [[[[0, 0.2, 1]]]], atol=1e-7)
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(
        to_input(tf.constant(every)), every.astype(np.float32) / 255
    )  # as explain computes it


def test_without_shift_and_flip_images_are_what_they_were_in_another_order():
    pixels = gradients_of_grey()
    result = epoch(pixels)
    assert sorted(result) == list(range(N))
    assert list(result) != list(range(N))
    for label, image in result.items():
        np.testing.assert_allclose(image, pixels[label] / np.float32(255), atol=1e-6)


def test_flip_mirrors_about_half_from_left_to_right_and_nothing_else():
    pixels = gradients_of_grey()
    mirrored = 0
    for label, image in epoch(pixels, flip=True).items():
        original = pixels[label] / np.float32(255)
        is_mirrored = np.allclose(image, original[:, ::-1], atol=1e-5)
        assert is_mirrored or np.allclose(image, original, atol=1e-5)
        mirrored += is_mirrored
    assert 5 <= mirrored <= 35


def test_flip_off_never_mirrors_even_when_shifted():
    for image in epoch(gradients_of_grey(), shift=0.1).values():
        assert (np.diff(image, axis=1) >= -1e-5).all() and (np.diff(image, axis=0) >= -1e-5).all()
        assert image[8, -1, 0] > image[8, 0, 0]


@pytest.mark.parametrize("shift", [0.1, 0.25])
def test_shift_moves_at_most_that_much_in_both_axes(shift):
    pixels = gradients_of_grey()
    moves = []
    for label, image in epoch(pixels, shift=shift).items():
        grey = image[6:10, 6:10, 0] * 255 - pixels[label][6:10, 6:10, 0]  # the middle, where no edge is repeated
        assert np.ptp(grey) < 1e-2, "a plane that moves keeps its slope"
        right, down = np.diff(image[6:10, 6:10, 0] * 255, axis=1), np.diff(image[6:10, 6:10, 0] * 255, axis=0)
        np.testing.assert_allclose(right, 5, atol=1e-2)
        np.testing.assert_allclose(down, 8, atol=1e-2)
        moves.append(grey.mean())
    assert np.abs(moves).max() <= (5 + 8) * 16 * shift + 1e-2
    assert np.abs(moves).max() > 0.3 * (5 + 8) * 16 * shift
    assert len(np.unique(np.round(moves, 3))) > N / 2, "every image is moved on its own"


@pytest.mark.parametrize("axis", [0, 1], ids=["down", "right"])
def test_shift_reaches_each_axis(axis):
    ramp = np.indices(SHAPE[:2])[axis] * 10
    pixels = np.repeat(np.stack([ramp] * N)[..., None], 3, axis=3).astype(np.uint8)
    moves = [image[8, 8, 0] * 25.5 - 8 for image in epoch(pixels, shift=0.125).values()]  # in pixels
    assert min(moves) < -1 and max(moves) > 1
    assert np.abs(moves).max() <= 2 + 1e-3


def test_one_seed_gives_the_same_epoch_and_another_seed_another():
    pixels = gradients_of_grey()
    one, same, other = (epoch(pixels, shift=0.1, flip=True, seed=seed) for seed in (3, 3, 4))
    assert list(one) == list(same) != list(other)
    for label in one:
        np.testing.assert_array_equal(one[label], same[label])
    assert sum(np.allclose(one[label], other[label]) for label in one) < N / 4


def test_every_epoch_is_shuffled_and_augmented_anew():
    pixels = gradients_of_grey()
    batches = training_batches(images_of(pixels), n=N, shape=SHAPE, batch_size=BATCH, shift=0.1, flip=True, seed=0)
    first, second = (
        {int(label): image for images, labels in batches for image, label in zip(images.numpy(), labels, strict=True)}
        for _ in range(2)
    )
    assert sorted(first) == sorted(second) == list(range(N))
    assert list(first) != list(second)
    assert sum(np.allclose(first[label], second[label]) for label in first) < N / 4


def test_validation_batches_keep_order_and_pixels():
    pixels = gradients_of_grey(10)
    images, labels = (
        np.concatenate(parts) for parts in zip(*validation_batches(images_of(pixels), batch_size=4), strict=True)
    )
    np.testing.assert_array_equal(labels, np.arange(10))
    np.testing.assert_array_equal(images, pixels.astype(np.float32) / 255)


@pytest.mark.slow
def test_training_twice_from_one_seed_gives_the_same_weights():
    shape = (8, 8, 1)
    pixels = np.random.default_rng(0).integers(0, 256, (80, *shape), dtype=np.uint8)
    labels = np.arange(80, dtype=np.int64) % 4

    def trained(seed: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(seed)
        model = build_cnn(shape, 4)
        batches = training_batches(
            tf.data.Dataset.from_tensor_slices((pixels, labels)),
            n=80, shape=shape, batch_size=BATCH, shift=0.1, flip=True, seed=seed,
        )  # fmt: skip
        model.fit(batches, epochs=1, verbose=0)
        assert int(model.optimizer.iterations) == 10
        return model.get_weights()

    for weights, again in zip(trained(1), trained(1), strict=True):
        np.testing.assert_array_equal(weights, again)


@pytest.mark.parametrize(("shape", "n_classes"), [((32, 32, 3), 10), ((28, 28, 1), 7), ((64, 40, 3), 2)], ids=str)
def test_parameters_are_counted_without_building(shape: tuple[int, int, int], n_classes: int) -> None:
    assert count_parameters(shape, n_classes) == build_cnn(shape, n_classes).count_params()
