"""What the explanations of an example night are worth, made up: an assessment as a night records it."""

from collections.abc import Mapping

from numpy.typing import NDArray

from tasks.worth.assessment import Assessment, StrategyNotes
from tasks.worth.controls_table import CONTROLS, FRACTIONS, METRICS, ControlsTable, Difference, Judged
from tasks.worth.estimate import Estimate
from tasks.worth.known.known_results import Canary, Graft, Sanity

NO_CLUSTERS = "too few of its rows have attributions other than 0"


def example_assessment(tables: Mapping[str, NDArray], row_numbers: NDArray, predictions: NDArray) -> Assessment:
    """Integrated Gradients better than its controls; the second strategy's first rows pasted into rows of class 1."""
    members = row_numbers[tables["clusters/of_row"] == 1] if tables else []
    hosts = row_numbers[predictions == 1]
    pairs = tuple((int(a), int(b)) for a, b in zip(members[:2], hosts[:2], strict=False))
    name = tables["clusters/name"][1] if tables else ""
    strategies = StrategyNotes(
        notes={1: NO_CLUSTERS} if tables else dict.fromkeys(range(3), NO_CLUSTERS),
        pasted={name: pairs} if tables else {},
    )
    return Assessment(
        controls=example_controls(),
        sanity=Sanity(medians=(0.03, -0.02, 0.01), n_rows=50),
        graft=Graft(error=2e-7),
        canary=Canary(mark={"Integrated Gradients": 0.81}, object={"Integrated Gradients": 0.04}, accuracy=(1.0, 0.9)),
        strategies=strategies,
    )


def example_controls() -> ControlsTable:
    """A method and the controls, each a tenth worse than the one before; the last has no fidelity."""
    judged = [
        Judged(
            name=name,
            is_control=name in CONTROLS,
            metrics={metric: _estimate(0.4 - 0.2 * place, metric, name) for metric in METRICS},
            deletion_curve=tuple(1 - fraction for fraction in FRACTIONS),
            insertion_curve=FRACTIONS,
        )
        for place, name in enumerate(("Integrated Gradients", *CONTROLS))
    ]
    differences = [
        Difference(method="Integrated Gradients", control=name, metric=metric, estimate=_estimate(0.2, metric, name))
        for name in CONTROLS
        for metric in METRICS
    ]
    return ControlsTable(n_rows=128, judged=tuple(judged), differences=tuple(differences))


def _estimate(mean: float, metric: str, name: str) -> Estimate:
    if (metric, name) == ("mu_fidelity", CONTROLS[-1]):
        return Estimate(mean=None, standard_error=None, n_rows=0, note="not defined in any of 128 rows")
    return Estimate(mean=mean, standard_error=0.02, n_rows=128)
