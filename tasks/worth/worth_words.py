"""What explanations are worth, in sentences for people: never a number without its controls."""

from collections.abc import Iterator
from dataclasses import dataclass

from storage import AttributionStore
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import CONTROLS, ControlsTable, Judged
from tasks.worth.strategies.shortcuts import find_shortcuts

__all__ = ["METRIC_ABOUT", "METRIC_TITLES", "Check", "known_checks", "say_strategies", "say_worth"]

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


@dataclass(frozen=True)
class Check:
    """Something whose right answer is known. came, right: in words."""

    name: str
    came: str
    right: str


def known_checks(found: Assessment) -> Iterator[Check]:
    """What the random networks, the graft and the canary pair say of the method and its engine."""
    if found.sanity is not None:
        values = ", ".join(f"{median:+.2f}" for median in found.sanity.medians)
        yield Check(
            "random networks",
            found.sanity.note
            or f"rank correlation {values} with the model's own attributions ({found.sanity.n_rows} rows)",
            "near 0: an explanation must depend on what the network has learned",
        )
    if found.graft is not None:
        yield Check(
            "graft",
            found.graft.note or f"off by {found.graft.error:.1g} of the largest attribution",
            "exact to rounding: what was added to the model's logit is known to the last pixel",
        )
    if found.canary is not None:
        came = "; ".join(
            f"{title} {found.canary.mark[title]:.2f} and {found.canary.object[title]:.2f}"
            for title in found.canary.mark
        )
        yield Check(
            "canary networks",
            found.canary.note or f"share of the heat in a mark, known and not known to the network: {came}",
            "far apart: only one of the two networks looks at the mark",
        )


def say_strategies(store: AttributionStore) -> Iterator[str]:
    """How many strategies there are, and each shortcut among them."""
    table = store.clusters()
    if table.empty:
        yield "No strategies were found, or looked for."
        return
    yield f"{len(table)} strategies of {table['class'].nunique()} classes."
    for shortcut in find_shortcuts(store):
        yield shortcut.sentence


def _sentence(table: ControlsTable, method: Judged, controls: list[Judged]) -> str:
    own = method.metrics["relevance_gain"]
    if own.mean is None:
        return f"{method.name}: what it is worth cannot be said, {own.note}."
    known = [each for each in controls if each.metrics["relevance_gain"].mean is not None]
    others = f" ({', '.join(f'{each.name}: {_number(each)}' for each in known)})" if known else ""
    text = f"Keeping the pixels that {method.name} puts first, and not the others, is worth {own.mean:+.3f} of the score{others}."
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
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in said)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
