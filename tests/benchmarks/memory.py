"""What the explainer alone adds to a process's memory, beside what was estimated: `python tests/benchmarks/memory.py --help`.

A network of Keras Applications with random weights explains random images of its own size; large.py has the whole night.
"""

import resource
import sys
import time
from typing import Annotated

import keras
import numpy as np
import typer

from tasks.numerics.batching import CPU_GB, bytes_per_image, ruled
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.scores import Network, score_model
from tasks.numerics.quadrature import Adaptive, Tolerances

N_CLASSES = 10


def peak_gb() -> float:
    """The most memory that this process has had resident, in GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main(
    network: Annotated[str, typer.Option(help="Of keras.applications, such as ResNet50 or MobileNetV2.")] = "ResNet50",
    rows: Annotated[int, typer.Option(help="Images to explain.")] = 64,
    memory_gb: Annotated[float, typer.Option(help="explanation.memory_gb.")] = CPU_GB,
) -> None:
    """Prints the batch size and why, the estimate it rests on, and the process's peak before and after."""
    keras.utils.set_random_seed(0)
    built = getattr(keras.applications, network)(weights=None, classes=N_CLASSES)
    model = score_model(built, "probability")
    shape, estimate = model.inputs[0].shape[1:], bytes_per_image(model)
    batch = ruled(model, memory_gb * 1e9)
    print(f"{network} {shape}: {batch.images} images in a call, {batch.reason}")
    print(f"estimate {estimate / 1e6:.0f} MB an image, so {batch.images * estimate / 1e9:.2f} GB")
    method = Settings(
        score="probability", rule=Adaptive(), tolerances=Tolerances(), layer=find_layer(Network(built), "auto").label,
        batch_size=batch.images,
    )  # fmt: skip
    images = np.random.default_rng(0).random((rows, *shape), np.float32)
    before, began, targets = peak_gb(), time.monotonic(), np.arange(rows) % N_CLASSES
    result = Explainer(built, method).integrated_gradients(images, np.zeros_like(images), targets)
    print(
        f"{rows} images in {time.monotonic() - began:.0f} s, {result.n_gradients.mean():.1f} gradients an image, "
        f"{result.converged.mean():.0%} converged; peak {before:.2f} GB before, {peak_gb():.2f} GB after"
    )


if __name__ == "__main__":
    typer.run(main)
