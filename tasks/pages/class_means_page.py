"""The page `class-means`: what an explanation of each class looks like on average, with the classes' numbers."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from storage import AttributionStore
from storage.draw.figures import summary_figure
from tasks.night.class_means import ClassMean
from tasks.pages.how_to_read import how_to_read
from tasks.pages.page import Page

__all__ = ["class_means_page"]

SHEET_CLASSES, COLUMNS = 10, 5


def class_means_page(store: AttributionStore, means: Sequence[ClassMean]) -> Page:
    """Per class the mean image and the mean picture of each method, of those that `means` has; the numbers of all."""
    page = Page("class-means", "Look for a class that is explained by the background: mean explanation of each class.")
    table, names = store.table(), store.class_names
    present = sorted(set(table["label"].tolist()))
    pictured = ["image", *(method.title for method in store.methods)]
    page.heading(f"Mean {', '.join(pictured[:-1])} and {pictured[-1]} by true class")
    for start in range(0, len(means), SHEET_CLASSES):
        sheet = means[start : start + SHEET_CLASSES]
        draw = partial(
            summary_figure,
            np.stack([mean.image for mean in sheet]),
            [(method, np.stack([mean.pictures[method] for mean in sheet])) for method in store.methods],
            [names[mean.label] for mean in sheet],
            columns=COLUMNS,
        )
        page.figure(draw, f"Means of classes {sheet[0].label} to {sheet[-1].label}", thumbnail=True)
    if len(present) > len(means):
        page.text(f"The first {len(means)} of {len(present):,} classes are drawn.")
    absent = len(names) - len(present)
    if absent:
        page.text(f"{absent:,} of {len(names):,} classes have no row here.")
    peaks = {method: column.name for method in store.methods if method.is_map for column in method.columns}
    by_class = table.assign(gap=table["gap"].abs()).groupby("label")
    page.table(
        [
            {
                "class": names[int(str(label))],
                "rows": len(of_class),
                "recognised": f"{of_class['correct'].mean():.1%}",
                "mean gap": of_class["gap"].mean(),
                "converged": f"{of_class['converged'].mean():.1%}",
            }
            | {f"empty {method.title}": f"{(of_class[peak] == 0).mean():.1%}" for method, peak in peaks.items()}
            for label, of_class in by_class
        ]
    )
    page.text(
        "The gap is an absolute value. Means are of the raw values, misclassified rows included, and each picture is then "
        "scaled by itself. A mean shows where explanations of a class agree: where objects move about, it blurs."
    )
    page.text(how_to_read(store.methods))
    return page
