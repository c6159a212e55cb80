"""captum's Integrated Gradients, by Gauss-Legendre, on a network built in PyTorch from the layers that it is given."""

import os
from typing import Any

import captum
import numpy as np
import torch
from answering import answer
from captum.attr import IntegratedGradients
from torch import nn

BATCH_SIZES = (64, 128, 256, 512, 1024)
FORMATS = {"": torch.contiguous_format, " channels last": torch.channels_last}
ACTIVATIONS = {"relu": nn.ReLU, "softmax": lambda: nn.Softmax(1), "linear": nn.Identity}


class Affine(nn.Module):
    """scale * x + offset of each channel."""

    def __init__(self, scale: np.ndarray, offset: np.ndarray):
        super().__init__()
        self.register_buffer("scale", torch.from_numpy(scale)[:, None, None])
        self.register_buffer("offset", torch.from_numpy(offset)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * self.scale + self.offset


class FlattenPixels(nn.Module):
    """(row, channel, y, x) to (row, feature) in the order of Keras: the channels of a pixel side by side."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.permute(0, 2, 3, 1).flatten(1)


class CaptumEngine:
    rule = "legendre"

    def __init__(self, layers: list[dict[str, Any]]):
        torch.set_num_threads(os.cpu_count() or 1)
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.versions = f"captum {captum.__version__}, torch {torch.__version__} on {self.device.type}"
        self.network = nn.Sequential(*(module for layer in layers for module in modules_of(**layer)))
        self.network.eval().requires_grad_(False).to(self.device)
        self._ways = {f"{size}{text}": (size, layout) for text, layout in FORMATS.items() for size in BATCH_SIZES}
        self.ways = tuple(self._ways)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.network(self._inputs(images, torch.contiguous_format)).cpu().numpy()

    def explain(self, images: np.ndarray, targets: np.ndarray, n_nodes: int, way: str) -> np.ndarray:
        batch_size, layout = self._ways[way]
        found = IntegratedGradients(self.network.to(memory_format=layout)).attribute(
            self._inputs(images, layout),
            baselines=0.0,
            target=torch.from_numpy(targets.astype(np.int64)).to(self.device),
            n_steps=n_nodes,
            method="gausslegendre",
            internal_batch_size=batch_size,
        )
        return found.permute(0, 2, 3, 1).cpu().numpy()

    def _inputs(self, images: np.ndarray, layout: torch.memory_format) -> torch.Tensor:
        return torch.from_numpy(images).permute(0, 3, 1, 2).to(self.device).contiguous(memory_format=layout)


def modules_of(
    kind: str, shape: list[int], settings: dict[str, Any], weights: dict[str, np.ndarray]
) -> list[nn.Module]:
    """What computes the same as a layer of Keras, for maps (row, channel, y, x)."""
    if kind == "Conv2D":
        modules = _convolution(shape, settings, weights)
    elif kind == "MaxPooling2D":
        modules = [nn.MaxPool2d(tuple(settings["pool_size"]), tuple(settings["strides"]))]
    elif kind == "BatchNormalization":
        modules = [_batch_normalization(shape, settings["epsilon"], weights)]
    elif kind == "Affine":
        modules = [Affine(**weights)]
    elif kind == "Flatten":
        modules = [FlattenPixels()]
    elif kind == "Dense":
        dense = nn.Linear(*weights["kernel"].shape, bias="bias" in weights)
        modules = [_filled(dense, weight=weights["kernel"].T, bias=weights.get("bias"))]
    elif kind == "Activation":
        modules = []
    else:
        raise ValueError(f"expected a layer that is known here, got {kind}")
    return [*modules, *([ACTIVATIONS[settings["activation"]]()] if "activation" in settings else [])]


def _convolution(shape: list[int], settings: dict[str, Any], weights: dict[str, np.ndarray]) -> list[nn.Module]:
    """ "same" as TensorFlow pads: as many pixels as the stride needs, the odd one below and on the right."""
    kernel, strides = weights["kernel"], settings["strides"]
    before, after = [0, 0], [0, 0]
    if settings["padding"] == "same":
        for axis, stride in enumerate(strides):
            n_steps = -(-shape[axis] // stride)
            total = max((n_steps - 1) * stride + kernel.shape[axis] - shape[axis], 0)
            before[axis], after[axis] = total // 2, total - total // 2
    even = before == after
    convolution = nn.Conv2d(
        kernel.shape[2],
        kernel.shape[3],
        kernel.shape[:2],
        tuple(strides),
        padding=tuple(before) if even else 0,
        bias="bias" in weights,
    )
    _filled(convolution, weight=kernel.transpose(3, 2, 0, 1), bias=weights.get("bias"))
    padding = [] if even else [nn.ZeroPad2d((before[1], after[1], before[0], after[0]))]
    return [*padding, convolution]


def _batch_normalization(shape: list[int], epsilon: float, weights: dict[str, np.ndarray]) -> nn.Module:
    made = (nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d)(shape[-1], eps=epsilon)
    return _filled(
        made,
        running_mean=weights["moving_mean"],
        running_var=weights["moving_variance"],
        weight=weights.get("gamma"),
        bias=weights.get("beta"),
    )


def _filled(module: nn.Module, **values: np.ndarray | None) -> nn.Module:
    """With these values; None leaves what the module was made with."""
    with torch.no_grad():
        for name, value in values.items():
            if value is not None:
                getattr(module, name).copy_(torch.from_numpy(np.ascontiguousarray(value)))
    return module


if __name__ == "__main__":
    answer(CaptumEngine)
