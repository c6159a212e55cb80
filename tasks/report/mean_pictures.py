"""The classes' means as pictures of the page."""

from collections.abc import Mapping
from dataclasses import dataclass

from tasks.night.class_means import ClassMean
from tasks.report.picture_strips import Heat, draw_heat, draw_image

__all__ = ["MeanPictures", "draw_mean"]


@dataclass(frozen=True)
class MeanPictures:
    """A class that some rows have, and its means as pictures. heats: by the group of their method."""

    name: str
    n_rows: int
    image: str
    heats: Mapping[str, Heat]


def draw_mean(mean: ClassMean, name: str) -> MeanPictures:
    """name: of the class."""
    heats = {method.group: draw_heat(method, picture, mean.image.shape) for method, picture in mean.pictures.items()}
    return MeanPictures(name, mean.n_rows, draw_image(mean.image), heats)
