"""What explanations are worth, in sentences for people: never a number without its controls."""

from collections.abc import Iterator

from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import CONTROLS, ControlsTable, Judged

__all__ = ["METRIC_ABOUT", "METRIC_TITLES", "say_worth"]

METRIC_TITLES = {
    "relevance_gain": "relevance gain",
    "mu_fidelity": "partial mu-fidelity",
    "insertion": "insertion",
    "deletion": "deletion",
}
METRIC_ABOUT = {
    "relevance_gain": "score kept by the first pixels less score left without them, averaged over how many they are",
    "mu_fidelity": "correlation, over random masks, of the attribution removed with the fall of the score, the brightness "
    "removed taken out of both",
    "insertion": "mean score while pixels are put onto the baseline, the most relevant first",
    "deletion": "mean score while pixels are replaced by the baseline, the most relevant first: the lower, the better",
}


def say_worth(found: Assessment) -> Iterator[str]:
    """A sentence for each method: what it is worth by relevance gain, and which controls do as well."""
    table = found.controls
    if table is None:
        yield "What explanations are worth was not measured: worth.level was not full."
        return
    controls = [each for each in table.judged if each.is_control]
    for each in table.judged:
        if not each.is_control:
            yield _sentence(table, each, controls)


def _sentence(table: ControlsTable, method: Judged, controls: list[Judged]) -> str:
    own = method.metrics["relevance_gain"]
    if own.mean is None:
        return f"{method.name}: what it is worth cannot be said, {own.note}."
    others = [f"of {each.name} {_number(each)}" for each in controls if each.metrics["relevance_gain"].mean is not None]
    text = (
        f"Keeping the pixels that {method.name} puts first, and not the others, is worth {own.mean:+.3f} of the score"
        f"{'; ' if others else ''}{', '.join(others)}."
    )
    return f"{text} {_verdict(table, method)}".strip()


def _number(judged: Judged) -> str:
    mean = judged.metrics["relevance_gain"].mean
    return f"{mean:+.3f}"


def _verdict(table: ControlsTable, method: Judged) -> str:
    """Which controls the method does not beat by three standard errors, on two measures."""
    differences = {name: table.difference(method.name, name, "relevance_gain") for name in CONTROLS}
    better = [name for name, estimate in differences.items() if estimate.is_negative]
    equal = [
        name
        for name, estimate in differences.items()
        if estimate.mean is not None and not (estimate.is_negative or estimate.is_positive)
    ]
    said = [f"{_and(better)} {'does' if len(better) == 1 else 'do'} better than {method.name} here."] if better else []
    said += [f"{_and(equal)} cannot be told from it on {table.n_rows} rows."] if equal else []
    known = [estimate for estimate in differences.values() if estimate.mean is not None]
    if known and not said:
        said = ["It does better than all of these controls."]
    text = " ".join(said)
    return text[:1].upper() + text[1:]


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
