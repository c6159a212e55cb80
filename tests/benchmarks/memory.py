"""Peak memory of explaining large images: a network of Keras Applications with random weights, 224x224x3, random images.

    python tests/benchmarks/memory.py --network ResNet50 --rows 64 --memory-gb 1

prints the batch size and why, the estimate it rests on, and the process's peak before and after everything is explained.
"""

import argparse
import resource
import sys
import time

import keras
import numpy as np

from tasks.config import ExplanationConfig
from tasks.numerics.batching import bytes_per_image, choose_batch_size
from tasks.numerics.explainer import Explainer, Method
from tasks.numerics.grad_cam import find_layer
from tasks.numerics.quadrature import Adaptive, Tolerances
from tasks.numerics.scores import score_model

N_CLASSES = 10
GRADIENTS_A_ROW = 24


def peak_gb() -> float:
    """The most memory that this process has had resident, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="ResNet50", help="its name in keras.applications")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--memory-gb", type=float, default=ExplanationConfig().memory_gb)
    options = parser.parse_args()
    keras.utils.set_random_seed(0)
    network = getattr(keras.applications, options.network)(weights=None, classes=N_CLASSES)
    model = score_model(network, "probability")
    shape = model.inputs[0].shape[1:]
    batch = choose_batch_size(model, options.memory_gb * 1e9, options.rows * GRADIENTS_A_ROW)
    print(f"{options.network} {shape}: {batch.images} images in a call, {batch.reason}")
    print(
        f"estimate {bytes_per_image(model) / 1e6:.0f} MB an image, so {batch.images * bytes_per_image(model) / 1e9:.2f} GB"
    )
    method = Method(
        score="probability", rule=Adaptive(), tolerances=Tolerances(), layer=find_layer(model, "auto"),
        batch_size=batch.images,
    )  # fmt: skip
    images = np.random.default_rng(0).random((options.rows, *shape), np.float32)
    before, began, targets = peak_gb(), time.monotonic(), np.arange(options.rows) % N_CLASSES
    explainer = Explainer(network, method)
    explainer.probabilities(images)
    explainer.grad_cam(images, targets)
    result = explainer.integrated_gradients(images, np.zeros_like(images), targets)
    print(
        f"{options.rows} images in {time.monotonic() - began:.0f} s, {result.n_gradients.mean():.1f} gradients an image, "
        f"{result.converged.mean():.0%} converged; peak {before:.2f} GB before, {peak_gb():.2f} GB after"
    )


if __name__ == "__main__":
    main()
