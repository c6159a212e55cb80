"""The page `class-means`: what an explanation of each class looks like on average, with the classes' numbers."""

from functools import partial

import numpy as np

from storage import AttributionStore
from storage.figures import summary_figure
from storage.means import means_by_group
from tasks.artifacts import Page
from tasks.pages.reading import HOW_TO_READ

__all__ = ["class_means_page"]

SHEET_CLASSES, COLUMNS = 10, 5
MOST_CLASSES = 40


def class_means_page(store: AttributionStore) -> Page:
    """Per class the mean image, the mean attribution and the mean map, of up to MOST_CLASSES; the numbers of all.

    The store is read once, a block at a time.
    """
    page = Page("class-means", "Look for a class that is explained by the background: mean explanation of each class.")
    table, names = store.table(), store.class_names
    present = sorted(set(table["label"].tolist()))
    page.heading("Mean image, attribution and map by true class")
    shown = present[:MOST_CLASSES]
    rows = store.row_numbers[np.isin(store.labels, shown)]
    groups = table["label"].loc[rows].to_numpy(np.int64)
    images, attributions, maps = (
        means_by_group(partial(store.values, path), rows, groups, store.shape_of(path)[1:])
        for path in ("image", "integrated_gradients/attribution", "grad_cam/map")
    )
    for start in range(0, len(shown), SHEET_CLASSES):
        sheet = shown[start : start + SHEET_CLASSES]
        draw = partial(
            summary_figure,
            np.stack([np.rint(images[k]).astype(np.uint8) for k in sheet]),
            np.stack([attributions[k] for k in sheet]),
            np.stack([maps[k] for k in sheet]),
            [names[k] for k in sheet],
            columns=COLUMNS,
        )
        page.figure(draw, f"Means of classes {sheet[0]} to {sheet[-1]}", thumbnail=True)
    if len(present) > len(shown):
        page.text(f"The first {len(shown)} of {len(present):,} classes are drawn.")
    absent = len(names) - len(present)
    if absent:
        page.text(f"{absent:,} of {len(names):,} classes have no row here.")
    by_class = table.assign(gap=table["gap"].abs(), empty=table["cam_max"] == 0).groupby("label")
    page.table(
        [
            {
                "class": names[int(str(label))],
                "rows": len(of_class),
                "recognised": f"{of_class['correct'].mean():.1%}",
                "mean gap": of_class["gap"].mean(),
                "converged": f"{of_class['converged'].mean():.1%}",
                "empty maps": f"{of_class['empty'].mean():.1%}",
            }
            for label, of_class in by_class
        ]
    )
    page.text(
        "The gap is an absolute value. Means are of the raw values, misclassified rows included, and each picture is then "
        "scaled by itself. A mean shows where explanations of a class agree: where objects move about, it blurs."
    )
    page.text(HOW_TO_READ)
    return page
