"""The classes' means as pictures of the page."""

from dataclasses import dataclass

from tasks.night.class_means import ClassMean
from tasks.report.picture_strips import Explanation, draw_explanation, draw_image

__all__ = ["MeanPictures", "draw_mean"]


@dataclass(frozen=True)
class MeanPictures:
    """A class that some rows have, and its means as pictures."""

    name: str
    n_rows: int
    image: str
    explanation: Explanation


def draw_mean(mean: ClassMean, name: str) -> MeanPictures:
    """name: of the class."""
    return MeanPictures(name, mean.n_rows, draw_image(mean.image), draw_explanation(mean.attribution, mean.grad_cam))
