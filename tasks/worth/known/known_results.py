"""What was measured where the right answer is known, as stores record it: read without TensorFlow."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Canary", "Graft", "Sanity"]


class Sanity(BaseModel):
    """medians: of each random network, Spearman's correlation with the model's attributions; none where `note` says why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    medians: tuple[float, ...]
    n_rows: int
    note: str = ""

    @property
    def largest(self) -> float | None:
        return max(self.medians) if self.medians else None


class Graft(BaseModel):
    """error: of the added attribution, at most, over the largest attribution; None where `note` says why there is none."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: float | None
    note: str = ""


class Canary(BaseModel):
    """Of a method by its title: the median share of its positive relevance that is in the mark, of the network that knows the
    mark and of the one that knows the object; of a map in the cells that the mark touches and those around.

    accuracy: of both, by what they know. note: why there is none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mark: dict[str, float]
    object: dict[str, float]
    accuracy: tuple[float, float] | None
    note: str = ""

    def contrast(self, method: str) -> float | None:
        return self.mark[method] - self.object[method] if method in self.mark else None
