"""The page `worth`: what the night's explanations are worth, never without the controls that explain nothing."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from storage import AttributionStore
from storage.file.methods import INTEGRATED_GRADIENTS
from tasks.pages.figures.worth_figures import classes_figure, controls_figure, nights_figure, removal_figure
from tasks.pages.page import Page, escape
from tasks.worth.assessment import Assessment
from tasks.worth.controls_table import CONTROLS, ControlsTable
from tasks.worth.worth_words import METRIC_ABOUT, METRIC_TITLES, known_checks, say_worth

__all__ = ["worth_page"]

LEAST_NIGHTS = 2


def worth_page(
    store: AttributionStore, found: Assessment, earlier: Sequence[tuple[str, Mapping[str, float]]] = ()
) -> Page:
    """Sentences, bars beside controls, curves, the relevance gain of every class, and the line over nights.

    earlier: nights on the same images, the oldest first and this one last: id and mean relevance gain by name.
    """
    page = Page("worth", "Look for a control that does as well as the explanations.")
    page.heading("What the explanations are worth")
    page.text(" ".join(escape(sentence) for sentence in say_worth(found)))
    if found.controls:
        _add_controls(page, found.controls)
    if checks := list(known_checks(found)):
        page.heading("Where the right answer is known", level=2)
        page.table([{"check": check.name, "what came": check.came, "right is": check.right} for check in checks])
    page.heading(f"Relevance gain of {INTEGRATED_GRADIENTS.title}, every row", level=2)
    table, names = store.table(), store.class_names
    gains = [(names[int(str(k))], rows["relevance_gain"].to_numpy()) for k, rows in table.groupby("prediction")]
    if not table["relevance_gain"].isna().any():
        page.figure(partial(classes_figure, gains), "Relevance gain by predicted class", thumbnail=True)
        page.table([_class(name, values) for name, values in gains])
    page.text(
        "Relevance gain of a row: half the difference between the score with the better half of the pixels alone, and without "
        "it. Above 0 the explanation puts pixels first that speak for the class. The column is there for every row: "
        "`store.table()['relevance_gain']`."
    )
    if len(earlier) >= LEAST_NIGHTS:
        names = list(dict.fromkeys(name for _, values in earlier for name in values))
        lines = {name: [values.get(name, np.nan) for _, values in earlier] for name in names}
        page.heading("Over nights", level=2)
        page.figure(partial(nights_figure, [night for night, _ in earlier], lines), "Relevance gain by night")
    return page


def _add_controls(page: Page, table: ControlsTable) -> None:
    page.figure(partial(controls_figure, table), "Methods and controls by every measure", thumbnail=True)
    page.figure(partial(removal_figure, table), "Score while pixels are removed, and while they are kept")
    page.table(
        [
            {"explanation": each.name, "kind": "control" if each.is_control else "method"}
            | {title: str(each.metrics[metric]) for metric, title in METRIC_TITLES.items()}
            for each in table.judged
        ]
    )
    page.text(
        f"Means over {table.n_rows} rows, the same every night for the same images, each for its predicted class, with standard "
        "errors; bars show two of them. Controls are made of Integrated Gradients or of the image and explain nothing: "
        f"{', '.join(CONTROLS)}. On dark images brightness alone often does better than every explanation in all but "
        "partial mu-fidelity: a number means nothing without its controls."
    )
    page.table([{"measure": METRIC_TITLES[name], "what it is": about} for name, about in METRIC_ABOUT.items()])
    page.heading("Better than its controls?", level=2)
    page.table(
        [
            {"method": d.method, "control": d.control, "measure": METRIC_TITLES[d.metric], "advantage": str(d.estimate)}
            | {"says": "better" if d.estimate.is_positive else "worse" if d.estimate.is_negative else "cannot tell"}
            for d in table.differences
            if d.metric in ("relevance_gain", "mu_fidelity")
        ]
    )


def _class(name: str, gains: NDArray) -> dict[str, object]:
    """By predicted class, for that is what is judged."""
    return {
        "predicted class": name,
        "rows": len(gains),
        "relevance gain": float(gains.mean()),
        "least": float(gains.min()),
        "below 0": f"{(gains < 0).mean():.1%}",
    }
