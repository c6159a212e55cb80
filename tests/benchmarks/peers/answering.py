"""What each peer's process does: a question is a line of JSON on stdin, its answer a line on stdout; arrays go in .npy files.

    ask      with                                                       answer
    load     layers: [{kind, shape, settings, weights: {name: file}}]   versions, rule, ways: [name]
    predict  images: file, into: file                                   nothing
    explain  images, targets, into: file, n_nodes, way                  seconds

The seconds are the engine's alone: from arrays in memory to an array in memory. A process that cannot go on ends, and the last
line on its stderr says why. Nothing of the project is imported here, nor in the peers' own files.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np


class Engine(Protocol):
    """A library with a network that it built.

    rule: "legendre" or "trapezoid". ways: names of ways to compute, of which the asker chooses the fastest.
    """

    versions: str
    rule: str
    ways: tuple[str, ...]

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """(row, class), of float32 images (row, y, x, channel)."""

    def explain(self, images: np.ndarray, targets: np.ndarray, n_nodes: int, way: str) -> np.ndarray:
        """Integrated Gradients against black of the targets' (row,) probabilities: (row, y, x, channel)."""


def answer(make: Callable[[list[dict[str, Any]]], Engine]) -> None:
    """Answers until stdin ends. make: the engine from the layers, with arrays for weights."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; what they print is no answer
    engine: Engine | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["ask"] == "load":
            engine = make([_with_arrays(layer) for layer in asked["layers"]])
            answered: dict[str, Any] = {"versions": engine.versions, "rule": engine.rule, "ways": engine.ways}
        elif engine is None:
            raise SystemExit("expected a network to be loaded first")
        elif asked["ask"] == "predict":
            np.save(asked["into"], engine.probabilities(np.load(asked["images"])))
            answered = {}
        else:
            images, targets = np.load(asked["images"]), np.load(asked["targets"])
            began = time.perf_counter()
            attributions = engine.explain(images, targets, asked["n_nodes"], asked["way"])
            answered = {"seconds": time.perf_counter() - began}
            np.save(asked["into"], attributions)
        print(json.dumps(answered), file=answers, flush=True)


def _with_arrays(layer: dict[str, Any]) -> dict[str, Any]:
    return layer | {"weights": {name: np.load(file) for name, file in layer["weights"].items()}}
