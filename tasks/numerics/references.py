"""Other people's implementations: selectable engines, and the nightly audit's second opinion.

alibi 0.9.6 (Business Source License 1.1) and tf-explain 0.3.1 come with the extra `reference`; without it these functions
raise ModuleNotFoundError. What has to be worked around is written beside it.
"""

import importlib.util
import warnings
from types import SimpleNamespace
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf

from tasks.numerics.network.compiled import in_batches
from tasks.numerics.network.scores import network_of

__all__ = ["alibi_integrated_gradients", "missing_references", "tf_explain_maps"]

PATHS_BYTES = 2**28

_called: WeakKeyDictionary[keras.Model, "_Called"] = WeakKeyDictionary()  # parts of a night call the same model


def missing_references() -> list[str]:
    """The distributions of the extra `reference` that are not installed."""
    modules = {"alibi": "alibi", "tf-explain": "tf_explain", "opencv-python-headless": "cv2"}
    return [name for name, module in modules.items() if importlib.util.find_spec(module) is None]


def alibi_integrated_gradients(
    model: keras.Model,
    images: np.ndarray,
    baselines: np.ndarray,
    targets: np.ndarray,
    *,
    rule: str,
    n_steps: int,
    batch_size: int,
) -> np.ndarray:
    """alibi's attributions, float32 (row, y, x, channel).

    rule: "gausslegendre" or one of the Riemann sums, as alibi names them; its riemann_trapezoid weights sum to
    (n_steps - 1) / n_steps and its result is that much too small.
    """
    from alibi.explainers import IntegratedGradients

    if model not in _called:
        _called[model] = _Called(model)
    explainer = IntegratedGradients(_called[model], method=rule, n_steps=n_steps, internal_batch_size=batch_size)
    # It makes the paths of all its images before it computes, and keeps all their gradients.
    images_a_call = max(1, PATHS_BYTES // (n_steps * images[0].nbytes))
    explanations = [
        explainer.explain(images[rows], baselines=baselines[rows], target=targets[rows].astype(int))
        for rows in in_batches(len(images), images_a_call)
    ]
    return np.concatenate([each.attributions[0] for each in explanations]).astype(np.float32)


class _Called:
    """A score model as alibi calls it, compiled and its weights held constant; path, gradients and their sum stay alibi's.

    alibi's tape watches every variable that it meets, so that each gradient at the images came with all those at the weights,
    which nobody asked for and which took nearly half of the time.
    """

    def __init__(self, model: keras.Model):
        network = network_of(model)
        variables = network.model.variables if network else model.variables
        self.inputs, self.output_shape = model.inputs, model.output_shape

        def call(images: tf.Tensor) -> tf.Tensor:
            constant = [(variable, tf.stop_gradient(variable.value)) for variable in variables]
            with keras.StatelessScope(state_mapping=constant):
                return model(images, training=False)

        shape = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
        # Without the Python function, which would keep the model alive, and with it its entry in _called.
        self._scores = tf.function(call, autograph=False).get_concrete_function(shape)

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._scores(tf.convert_to_tensor(images))


def tf_explain_maps(model: keras.Model, images: np.ndarray, targets: np.ndarray) -> dict[str, np.ndarray]:
    """Maps by name before their ReLU, float32 (row, cam_y, cam_x), from tf-explain's code.

    An image a call, for it takes one class a call.

    model: a score model with a layer's activations, as `score_model` makes it given a layer. The guided gradients are off and the
    coloured overlay of `GradCAM.explain` is left out: what remains is sum_k weights_k A_k of Selvaraju et al. 2017,
    and, of its activations and gradients, HiResCAM's sum, which it does not have.
    """
    from tf_explain.core.grad_cam import GradCAM

    activations_tensor, scores = model.outputs
    # It takes get_layer(name).output, which of a layer within a nested model, or called elsewhere too, is not on the way.
    exposed = SimpleNamespace(
        inputs=model.inputs, output=scores, get_layer=lambda _: SimpleNamespace(output=activations_tensor)
    )
    maps: dict[str, list[np.ndarray]] = {"grad_cam": [], "hires_cam": []}
    with warnings.catch_warnings():  # it wraps the model's one input in a list, which Keras remarks on at every call
        warnings.filterwarnings("ignore", message="The structure of `inputs`", category=UserWarning)
        for image, target in zip(images, targets, strict=True):
            activations, gradients = GradCAM.get_gradients_and_filters(
                exposed, image[None], "", int(target), use_guided_grads=False
            )
            maps["grad_cam"].append(np.asarray(GradCAM.generate_ponderated_output(activations, gradients)[0]))
            maps["hires_cam"].append((np.asarray(activations[0]) * np.asarray(gradients[0])).sum(axis=-1))
    return {name: np.stack(found).astype(np.float32) for name, found in maps.items()}
