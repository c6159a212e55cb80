"""Other people's Integrated Gradients, each in a process and an environment of its own: captum and xplique, by `make peers`.

They want another NumPy, and PyTorch. A process is started once and gets the network's layers and weights, then images and
targets; peers/answering.py says how, and nothing is pickled. It times itself, without the way there and back. A peer whose
probabilities are not ours explains another network, and is left out.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chain import ChainLayer
from contest import Explain, Timed, least_ms

__all__ = ["PEERS", "Peer", "PeerError", "open_peers"]

# The Python that `make peers` gives each, in the checkout.
PEERS = {"captum": ".venv-captum/bin/python", "xplique": ".venv-xplique/bin/python"}
PROGRAMS = Path(__file__).parent / "peers"
CHECKED_ROWS, MOST_APART = 16, 1e-4
LEAVE_TIMEOUT_S = 10.0


class PeerError(RuntimeError):
    """A peer's process ended, or computes something else than we do."""


class Peer:
    """A peer's process with a network in it, until it is left.

    rule: the method of exact.Integrals that is its rule. ways: names of ways to compute, such as batch sizes.

    Raises PeerError if the process ends before it has answered.
    """

    def __init__(self, name: str, python: str | Path, layers: Sequence[ChainLayer]):
        self.name = name
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{name}-")))
            self._said = self._folder / "stderr.txt"
            self._process = subprocess.Popen(
                [str(python), str(PROGRAMS / f"{name}_process.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(self._said.open("w")),
                env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
                text=True,
            )
            stack.callback(self._end)
            about = self._ask("load", layers=[self._written(number, layer) for number, layer in enumerate(layers)])
            self.versions, self.rule, self.ways = about["versions"], about["rule"], tuple(about["ways"])
            self.best_way = self.ways[0]
            self._leave = stack.pop_all()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.close()

    def probabilities(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """(row, class), of images (row, y, x, channel)."""
        self._ask("predict", images=self._saved("images", images), into=str(self._folder / "probabilities.npy"))
        return np.load(self._folder / "probabilities.npy")

    def check(self, images: NDArray[np.float32], probabilities: NDArray) -> None:
        """Raises PeerError unless the peer's probabilities of these images are these, within MOST_APART."""
        apart = float(np.abs(self.probabilities(images) - probabilities).max())
        if not apart <= MOST_APART:
            raise PeerError(f"its probabilities differ from ours by {apart:.2g}, expected at most {MOST_APART:g}")

    def explain(self, n_nodes: int, way: str | None = None) -> Explain:
        """The peer's attributions against black, timed by itself. way: the best one, where none is named."""

        def explained(images: NDArray, targets: NDArray) -> Timed:
            files = {"images": self._saved("images", images), "targets": self._saved("targets", targets)}
            into = str(self._folder / "attributions.npy")
            answered = self._ask("explain", **files, n_nodes=n_nodes, way=way or self.best_way, into=into)
            return Timed(np.load(into), answered["seconds"])

        return explained

    def choose_way(self, images: NDArray, targets: NDArray, n_nodes: int) -> dict[str, float]:
        """Tries every way on these rows and keeps the fastest. Returns ms an image by way."""
        cost = least_ms({way: self.explain(n_nodes, way) for way in self.ways}, images, targets)
        self.best_way = min(cost, key=lambda way: cost[way])
        return cost

    def _written(self, number: int, layer: ChainLayer) -> dict[str, Any]:
        weights = {name: self._saved(f"{number}-{name}", values) for name, values in layer.weights.items()}
        return {"kind": layer.kind, "shape": layer.shape, "settings": layer.settings, "weights": weights}

    def _saved(self, name: str, values: NDArray) -> str:
        path = self._folder / f"{name}.npy"
        np.save(path, values)
        return str(path)

    def _ask(self, ask: str, **asked: Any) -> dict[str, Any]:
        with suppress(BrokenPipeError):  # it ended, and gives no answer either
            self._process.stdin.write(json.dumps({"ask": ask} | asked) + "\n")
            self._process.stdin.flush()
        if line := self._process.stdout.readline():
            return json.loads(line)
        code = self._process.wait()
        last = self._said.read_text(errors="replace").strip().rpartition("\n")[2]
        raise PeerError(f"its process ended with {code}: {last or 'it said nothing'}")

    def _end(self) -> None:
        """Ends the process, by the end of its questions or, if that takes long, by force."""
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(LEAVE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def open_peers(
    stack: ExitStack,
    pythons: Mapping[str, str | Path],
    layers: Sequence[ChainLayer],
    images: NDArray[np.float32],
    probabilities: NDArray,
    say: Callable[[str], object],
) -> list[Peer]:
    """The peers that are installed and compute the same probabilities; of each other one it is said why it is not here.

    stack: ends the processes. pythons: of each peer, a path or a command.
    """
    peers = []
    for name, python in pythons.items():
        found = shutil.which(python)
        if found is None:
            say(f"{name}: not installed (make peers)")
            continue
        with ExitStack() as opened:
            try:
                peer = opened.enter_context(Peer(name, found, layers))
                peer.check(images[:CHECKED_ROWS], probabilities[:CHECKED_ROWS])
            except PeerError as reason:
                say(f"{name}: left out, {reason}")
                continue
            stack.push(opened.pop_all())
        peers.append(peer)
    return peers
