"""Slow float64 twins, written from the papers in NumPy, and the small networks they are held against.

`Twin` computes a small Keras CNN and its derivatives layer by layer, an image at a time, without TensorFlow. On top of it are
Integrated Gradients (Sundararajan et al. 2017, equation 1, for given nodes) and Grad-CAM (Selvaraju et al. 2017, equations 1
and 2). `drive` runs a quadrature rule on a path integrand in closed form, and `textbook_trapezoids` recomputes from the nodes
alone what the adaptive trapezoid should have made of them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from slow_integrals import Integral, integral_of
from tasks.numerics.quadrature import Rule, Tolerances

SHAPE = (10, 8, 2)
N_CLASSES = 4
NEVER = Tolerances(gap=1e-12, error=1e-12)  # no rule meets these: it goes on to its last node


def small_cnn(seed: int, *, ending: str = "softmax", sharpness: float = 1.0) -> keras.Model:
    """A CNN for images of SHAPE with every kind of layer of the notebook's; dimensions and channels all differ.

    ending: "softmax" (in the Dense), "softmax layer", "activation" or "logits", all with the same weights for a seed.
    sharpness: factor on the last weights; the larger, the more abrupt is the score along a path.
    """
    images = x = keras.Input(SHAPE, name="images")
    x = keras.layers.Conv2D(5, 3, padding="same", activation="relu", name="conv_1")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.MaxPooling2D(2, name="pool")(x)
    x = keras.layers.Conv2D(6, 3, padding="same", activation="relu", name="conv_2")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.Dense(7, activation="relu", name="hidden")(x)
    x = keras.layers.Dense(N_CLASSES, activation="softmax" if ending == "softmax" else None, name="scores")(x)
    if ending == "softmax layer":
        x = keras.layers.Softmax(name="probabilities")(x)
    if ending == "activation":
        x = keras.layers.Activation("softmax", name="probabilities")(x)
    model = keras.Model(images, x)
    randomise(model, seed)
    last = model.get_layer("scores")
    last.set_weights([weights * sharpness for weights in last.get_weights()])
    return model


def randomise(model: keras.Model, seed: int) -> None:
    """Sets all weights, also biases and the moments of batch normalisations, which start trivial."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        shape, name = tuple(variable.shape), variable.path.split("/")[-1]
        scale = np.sqrt(2 / np.prod(shape[:-1])) if len(shape) > 1 else 0.3
        values = rng.normal(size=shape) * scale
        variable.assign(0.5 + np.abs(values) if name in ("gamma", "moving_variance") else values)


def random_images(n: int, seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.float32]:
    """Images in 0..1, float32 (row, y, x, channel)."""
    return np.random.default_rng(seed).random((n, *shape), dtype=np.float32)


@dataclass
class _Step:
    """One layer: its output from its input, and dF/dinput from dF/doutput at that input."""

    name: str
    forward: Callable[[NDArray], NDArray]
    backward: Callable[[NDArray, NDArray], NDArray]


class Twin:
    """A Keras CNN of convolutions (3x3 same), batch normalisations, poolings, Dense and softmax layers, in float64.

    Images are (y, x, channel). score: "probability" or "logit".
    """

    def __init__(self, model: keras.Model, score: str):
        self.steps = [step for layer in model.layers for step in _steps(layer)]
        softmax_at_end = self.steps[-1].name == "softmax"
        if score == "logit" and softmax_at_end:
            self.steps.pop()
        if score == "probability" and not softmax_at_end:
            self.steps.append(_softmax_step())

    def _inputs(self, image: NDArray) -> list[NDArray]:
        values = [image.astype(np.float64)]
        for step in self.steps:
            values.append(step.forward(values[-1]))
        return values

    def scores(self, image: NDArray) -> NDArray[np.float64]:
        """(class,)."""
        return self._inputs(image)[-1]

    def gradient(self, image: NDArray, target: int, layer: str | None = None) -> NDArray[np.float64]:
        """dF_t/dx, or dF_t/dA for the output A of a layer (after its activation)."""
        values, gradient = self._inputs(image), np.eye(N_CLASSES)[target]
        for k in reversed(range(len(self.steps))):
            if self.steps[k].name == layer:
                return gradient
            gradient = self.steps[k].backward(values[k], gradient)
        return gradient

    def integrated_gradients(
        self, image: NDArray, baseline: NDArray, target: int, alphas: NDArray, weights: NDArray
    ) -> NDArray[np.float64]:
        """(x - x') * sum_k w_k dF_t/dx(x' + a_k (x - x'))."""
        x, b = image.astype(np.float64), baseline.astype(np.float64)
        return (x - b) * sum(w * self.gradient(b + a * (x - b), target) for a, w in zip(alphas, weights, strict=True))

    def grad_cam(self, image: NDArray, target: int, layer: str) -> NDArray[np.float64]:
        """ReLU(sum_k weights_k A_k), weights_k the spatial mean of dF_t/dA_k."""
        last = max(k for k, step in enumerate(self.steps) if step.name == layer)
        activations = self._inputs(image)[last + 1]
        weights = self.gradient(image, target, layer).sum((0, 1)) / activations[..., 0].size
        return np.maximum((activations * weights).sum(-1), 0)

    def hires_cam(self, image: NDArray, target: int, layer: str) -> NDArray[np.float64]:
        """ReLU(sum_k A_k dF_t/dA_k), cell by cell."""
        last = max(k for k, step in enumerate(self.steps) if step.name == layer)
        return np.maximum((self._inputs(image)[last + 1] * self.gradient(image, target, layer)).sum(-1), 0)


def _steps(layer: keras.layers.Layer) -> list[_Step]:
    weights = [value.astype(np.float64) for value in layer.get_weights()]
    if isinstance(layer, keras.layers.Conv2D):
        return [_convolution_step(layer.name, *weights), *_activation_steps(layer)]
    if isinstance(layer, keras.layers.Dense):
        kernel, bias = weights
        dense = _Step(layer.name, lambda x: x @ kernel + bias, lambda x, g: kernel @ g)
        return [dense, *_activation_steps(layer)]
    if isinstance(layer, keras.layers.BatchNormalization):
        gamma, beta, mean, variance = weights
        slope = gamma / np.sqrt(variance + layer.epsilon)
        return [_Step(layer.name, lambda x: (x - mean) * slope + beta, lambda x, g: g * slope)]
    if isinstance(layer, keras.layers.MaxPooling2D):
        return [_Step(layer.name, _pool, _unpool)]
    if isinstance(layer, keras.layers.Flatten):
        return [_Step(layer.name, np.ravel, lambda x, g: g.reshape(x.shape))]
    if isinstance(layer, keras.layers.Softmax | keras.layers.Activation):
        return [_softmax_step()]
    assert isinstance(layer, keras.layers.InputLayer | keras.layers.Dropout), f"no twin of {layer}"
    return []


def _activation_steps(layer: keras.layers.Layer) -> list[_Step]:
    name = layer.activation.__name__
    if name == "relu":
        return [_Step(layer.name, lambda x: np.maximum(x, 0), lambda x, g: g * (x > 0))]
    return {"linear": [], "softmax": [_softmax_step()]}[name]


def _softmax_step() -> _Step:
    def forward(x: NDArray) -> NDArray:
        e = np.exp(x - x.max())
        return e / e.sum()

    def backward(x: NDArray, g: NDArray) -> NDArray:
        p = forward(x)
        return p * (g - p @ g)

    return _Step("softmax", forward, backward)


def _convolution_step(name: str, kernel: NDArray, bias: NDArray) -> _Step:
    def forward(x: NDArray) -> NDArray:
        height, width = x.shape[:2]
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        return bias + sum(
            padded[dy : dy + height, dx : dx + width] @ kernel[dy, dx] for dy in range(3) for dx in range(3)
        )

    def backward(x: NDArray, g: NDArray) -> NDArray:
        height, width = x.shape[:2]
        padded = np.zeros((height + 2, width + 2, x.shape[2]))
        for dy in range(3):
            for dx in range(3):
                padded[dy : dy + height, dx : dx + width] += g @ kernel[dy, dx].T
        return padded[1:-1, 1:-1]

    return _Step(name, forward, backward)


def _windows(x: NDArray) -> NDArray:
    height, width, channels = x.shape
    return x.reshape(height // 2, 2, width // 2, 2, channels).transpose(0, 2, 4, 1, 3)


def _pool(x: NDArray) -> NDArray:
    return _windows(x).max((3, 4))


def _unpool(x: NDArray, g: NDArray) -> NDArray:
    windows = _windows(x)
    is_peak = windows == windows.max((3, 4), keepdims=True)
    shared = is_peak * (g / is_peak.sum((3, 4)))[..., None, None]  # by thirds at a tie, which random images do not have
    return shared.transpose(0, 3, 1, 4, 2).reshape(x.shape)


@dataclass
class Path:
    """A path in closed form: F(a) and f(a), whose features add up to dF/da. Both take (node,), f gives (node, feature).

    integral: (feature,), the exact one of f.
    """

    score: Callable[[NDArray], NDArray]
    slopes: Callable[[NDArray], NDArray]
    integral: NDArray[np.float64]

    @property
    def difference(self) -> float:
        return float(self.integral.sum())


def additive_path(*features: tuple[Callable[[NDArray], NDArray], Callable[[NDArray], NDArray]]) -> Path:
    """The path whose score is a sum of features, each given as (antiderivative, derivative)."""
    ends = np.array([0.0, 1.0])
    return Path(
        score=lambda a: sum(antiderivative(a) for antiderivative, _ in features),
        slopes=lambda a: np.stack([derivative(a) for _, derivative in features], axis=1),
        integral=np.array([np.diff(antiderivative(ends))[0] for antiderivative, _ in features]),
    )


def sigmoid_feature(centre: float, width: float, height: float = 1.0) -> tuple[Callable, Callable]:
    """height * sigmoid((a - centre) / width) and its derivative."""

    def value(a: NDArray) -> NDArray:
        return height / 2 * (1 + np.tanh((np.asarray(a, np.float64) - centre) / (2 * width)))

    return value, lambda a: value(a) * (1 - value(a) / height) / width


@dataclass
class Driven:
    """What became of a rule on a path: its results, all nodes it asked for, and in how many rounds."""

    fine: NDArray[np.float64]
    coarse: NDArray[np.float64]
    alphas: NDArray[np.float64]
    n_nodes: int
    n_rounds: int
    converged: bool

    @property
    def quadrature_error(self) -> float:
        return float(np.linalg.norm(self.fine - self.coarse) / np.linalg.norm(self.fine))


def drive(rule: Rule, path: Path, tolerances: Tolerances = NEVER, *, piece: int = 10**9) -> Driven:
    """Integrates the path, handing over `piece` nodes at a time, until both tolerances hold or the rule gives up."""
    score, score_baseline = path.score(np.array([1.0, 0.0]))
    integral: Integral = integral_of(rule, len(path.integral), float(score), float(score_baseline))
    asked: list[NDArray] = []
    while True:
        alphas = np.array(integral.alphas)
        asked.append(alphas)
        for start in range(0, len(alphas), piece):
            now = alphas[start : start + piece]
            complete = integral.add(path.slopes(now).astype(np.float32), path.score(now).astype(np.float32))
            assert complete == (start + piece >= len(alphas))
        gap = integral.fine.sum() - path.difference
        change = np.linalg.norm(integral.fine - integral.coarse)
        converged = bool(
            abs(gap) <= tolerances.gap * max(1, abs(path.difference))
            and change <= tolerances.error * np.linalg.norm(integral.fine)
        )
        if converged or not integral.refine(tolerances):
            break
    return Driven(integral.fine, integral.coarse, np.concatenate(asked), integral.n_nodes, len(asked), converged)


def doubling(path: Path, exponent: int, tolerances: Tolerances, n_max: int = 2**14) -> int:
    """The nodes that the rule of whole doublings needs: the trapezoid in u with n = 16, 32, ... nodes against its half."""
    coarse, n = None, 8
    while n <= n_max:
        u = np.arange(1, n + 1) / n
        weights = exponent * u ** (exponent - 1) / n
        weights[-1] /= 2
        fine = weights @ path.slopes(u**exponent)
        if exponent == 1:
            fine += path.slopes(np.zeros(1))[0] / (2 * n)
        if coarse is not None:
            gap, change = fine.sum() - path.difference, np.linalg.norm(fine - coarse)
            allowed = tolerances.gap * max(1, abs(path.difference)), tolerances.error * np.linalg.norm(fine)
            if abs(gap) <= allowed[0] and change <= allowed[1]:
                return n
        coarse, n = fine, 2 * n
    raise ValueError(f"{n_max} nodes are not enough")


def u_key(alpha: float, exponent: int) -> float:
    """u = a^(1/p) as a key of `textbook_trapezoids`."""
    return round(float(alpha) ** (1 / exponent), 13)


def textbook_trapezoids(alphas: NDArray, exponent: int, n_start: int) -> tuple[dict[float, float], dict[float, float]]:
    """The weight of f at each node in the fine and the coarse trapezoid, from nothing but the nodes that were asked for.

    The ends of the first panels are k / n_start. A panel whose quarters are nodes was halved, and its halves are panels.
    Fine is the trapezoid over a panel's left, middle and right, coarse over its left and right, both in u = a^(1/p) with
    da = p u^(p-1) du. Keys are u = a^(1/p), rounded by `u_key`.
    """
    known = {u_key(a, exponent) for a in alphas}
    fine: dict[float, float] = {}
    coarse: dict[float, float] = {}

    def add(weights: dict[float, float], left: float, right: float) -> None:
        for u in (left, right):
            key = round(u, 13)
            weights[key] = weights.get(key, 0.0) + (right - left) / 2 * exponent * u ** (exponent - 1)

    def panel(left: float, right: float) -> None:
        middle = (left + right) / 2
        assert round(middle, 13) in known, f"[{left}, {right}] has no middle"
        if round((left + middle) / 2, 13) in known:
            panel(left, middle)
            panel(middle, right)
            return
        add(fine, left, middle)
        add(fine, middle, right)
        add(coarse, left, right)

    for k in range(n_start):
        panel(k / n_start, (k + 1) / n_start)
    return fine, coarse
