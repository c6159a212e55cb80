"""The device that computes: TensorFlow takes a GPU where it sees one, and the CPU otherwise.

Two devices round differently, and TensorFlow's own choices differ between them, so the name is part of what decides a number.
How TensorFlow describes a GPU is NVIDIA's driver's; no GPU was at hand to see it.
"""

import tensorflow as tf

__all__ = ["CPU", "device_name", "has_tensor_float_32", "places"]

CPU = "CPU"
UNNAMED_GPU = "GPU"
AMPERE = (8, 0)  # the first compute capability with TF32


def device_name() -> str:
    """ "CPU", or the name of the GPUs that this process may use, as "NVIDIA H200"; several names with " + " between them."""
    names = {str(details.get("device_name") or UNNAMED_GPU) for details in _gpu_details()}
    return " + ".join(sorted(names)) or CPU


def places() -> list[str | None]:
    """Where parts are explained, as `tf.device` takes it: each of several GPUs; None, TensorFlow's own choice, otherwise."""
    gpus = [gpu.name for gpu in tf.config.list_logical_devices("GPU")]
    return [*gpus] if len(gpus) > 1 else [None]


def has_tensor_float_32() -> bool:
    """Whether the device multiplies in TF32 where it may: NVIDIA's GPUs of compute capability 8.0 and above, all of them."""
    capabilities = [details.get("compute_capability") or (0, 0) for details in _gpu_details()]
    return bool(capabilities) and min(capabilities) >= AMPERE


def _gpu_details() -> list[dict]:
    return [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.get_visible_devices("GPU")]
