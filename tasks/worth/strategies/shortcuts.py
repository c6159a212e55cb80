"""Shortcuts: strategies whose small region alone makes the class.

`python tests/benchmarks/planted_shortcuts.py` prints what spoiled and clean networks reach.
"""

from dataclasses import dataclass

from storage import AttributionStore

__all__ = ["LARGEST_REGION", "NOTED", "Shortcut", "find_shortcuts"]

NOTED = 0.25  # transplant score from which one is noted
LARGEST_REGION = 0.05  # of the pixels


@dataclass(frozen=True)
class Shortcut:
    """A strategy whose small region alone makes the class. name: of the strategy. score: of its transplant."""

    name: str
    class_name: str
    score: float
    region_share: float
    n_rows: int

    @property
    def sentence(self) -> str:
        return (
            f"{self.score:.0%} of images that are called something else become {self.class_name} when a region of "
            f"{self.region_share:.1%} of the pixels is pasted into them (strategy {self.name}, {self.n_rows} rows)."
        )


def find_shortcuts(store: AttributionStore, least: float = NOTED) -> list[Shortcut]:
    """The strategies with at least that transplant score and a region of at most LARGEST_REGION, the highest score first."""
    table = store.clusters()
    chosen = table[(table["transplant_score"] >= least) & (table["region_share"] <= LARGEST_REGION)]
    lines = chosen.sort_values("transplant_score", ascending=False, kind="stable").to_dict("records")
    return [
        Shortcut(line["name"], line["class_name"], line["transplant_score"], line["region_share"], line["n_rows"])
        for line in lines
    ]
