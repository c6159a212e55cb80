"""Whether the numbers of a store agree with each other: rows, classes, maps, and the certificate of every attribution.

    gap = sum(attribution) - (score - score_baseline)

is computed again in float64 from what is stored. The stored gap is a float32 of a sum over float32 values, so the two may
differ by rounding, which is bounded by epsilon * (sum |attribution| + |score| + |score_baseline|), epsilon = 2^-23. That is
far below any gap that matters and far above the rounding of the gap alone.
`converged` is judged against the tolerances that the configuration in the file records, where it records them; values
within a few epsilon of a tolerance may be either, because they were judged before they were rounded to float32.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from storage.check.columns import AT_PREDICTION, LARGEST, MAGNITUDE, SMALLEST, TOTAL, Columns
from storage.check.findings import Finding
from storage.file.methods import METHODS, StoredMethod
from storage.file.schema import predicted_scales
from storage.file.variable import Variable

__all__ = ["check_consistency"]

EPSILON = float(np.finfo(np.float32).eps)
TOLERANCE_ROUNDING = 4 * EPSILON


def check_consistency(columns: Columns, n_classes: int | None, configuration: object) -> list[Finding]:
    """All findings. n_classes: length of the axis class. configuration: the parsed root attribute, of any shape."""
    return [
        *_check_coordinates(columns),
        *_check_predicted_rows(columns),
        *_check_classes(columns, n_classes),
        *_check_clusters(columns),
        *_check_drift(columns, n_classes),
        *(found for method in METHODS for found in _check_method(columns, method, configuration)),
        *(found for variable in columns.variables.values() for found in _check_range(columns, variable)),
    ]


def _check_method(columns: Columns, method: StoredMethod, configuration: object) -> Iterable[Finding]:
    """For the true and for the predicted class. What a store does not have has no columns, and so no findings."""
    for group in (method.group, f"{method.group}/predicted"):
        if method.is_map:
            picture, peak = (variable.name for variable in method.variables[:2])
            yield from _check_peaks(columns, f"{group}/{picture}", f"{group}/{peak}")
        else:
            yield from _check_gaps(columns, group)
            yield from _check_flags(columns, group, configuration)


def _check_coordinates(columns: Columns) -> Iterable[Finding]:
    """`row` counts on from its first number, every other coordinate from 0."""
    for path, variable in columns.variables.items():
        column = columns[path]
        if not variable.is_coordinate or variable.is_ragged or column is None:
            continue
        expected = columns.numbers.get(path, np.arange(len(column.values)))
        wrong = np.flatnonzero(column.intact & (column.values != expected))
        if path == "row" and len(expected) and expected[0] < 0:
            yield Finding("rows", path, f"expected row numbers from 0 on, got {expected[0]}")
        if len(wrong):
            first = f"got {column.values[wrong[0]]} for {expected[wrong[0]]}"
            rows = tuple(expected[wrong].tolist()) if path == "row" else ()
            yield Finding("rows", path, f"expected {expected[0]}, {expected[0] + 1}, ... each once, {first}", rows)


def _check_predicted_rows(columns: Columns) -> Iterable[Finding]:
    label, prediction, numbers = columns["label"], columns["prediction"], columns.numbers.get("row")
    if label is None or prediction is None or numbers is None:
        return
    known = label.intact & prediction.intact
    misclassified = numbers[known & (label.values != prediction.values)]
    for path in predicted_scales(columns.variables.values()):
        column = columns[path]
        if column is None or not column.intact.all():
            continue
        judged = column.values[~np.isin(column.values, numbers[~known])]
        differing = np.setxor1d(judged, misclassified)
        expected = "expected the rows whose prediction is not their label"
        if len(differing):
            yield Finding("rows", path, f"{expected}, each in ascending order", tuple(differing.tolist()))
        elif not (np.diff(column.values) > 0).all():
            yield Finding("rows", path, f"{expected} once and ascending", tuple(np.sort(column.values).tolist()))


def _check_classes(columns: Columns, n_classes: int | None) -> Iterable[Finding]:
    for path in ("label", "prediction"):
        column = columns[path]
        if column is not None and n_classes is not None:
            outside = (column.values < 0) | (column.values >= n_classes)
            yield from _named(columns, path, f"not in 0..{n_classes - 1}", column.intact & outside)
    largest, chosen = columns["probability", LARGEST], columns["probability", AT_PREDICTION]
    prediction = columns["prediction"]
    if largest is not None and chosen is not None and prediction is not None:
        wrong = largest.intact & prediction.intact & (chosen.values < largest.values)
        yield from _named(columns, "prediction", "not the class with the largest probability", wrong)


def _check_clusters(columns: Columns) -> Iterable[Finding]:
    """Whether each row's cluster is one, and clusters have as many rows as they say."""
    of_row, n_rows = columns["clusters/of_row"], columns["clusters/n_rows"]
    if of_row is None or n_rows is None:
        return
    outside = (of_row.values < -1) | (of_row.values >= len(n_rows.values))
    yield from _named(columns, "clusters/of_row", f"not in -1..{len(n_rows.values) - 1}", of_row.intact & outside)
    if of_row.intact.all() and n_rows.intact.all() and not outside.any():
        counted = np.bincount(of_row.values[of_row.values >= 0], minlength=len(n_rows.values))
        for number in np.flatnonzero(counted != n_rows.values):
            detail = f"expected {counted[number]} rows in cluster {number}, as of_row says, got {n_rows.values[number]}"
            yield Finding("rows", "clusters/n_rows", detail)


def _check_drift(columns: Columns, n_classes: int | None) -> Iterable[Finding]:
    """Whether what was predicted before is a class, and likeness a cosine."""
    before, alike = columns["drift/prediction_before"], columns["drift/likeness"]
    if before is not None and n_classes is not None:
        yield from _named(
            columns,
            "drift/prediction_before",
            f"not in -1..{n_classes - 1}",
            before.intact & (before.values >= n_classes),
        )
    if alike is not None:
        yield from _named(columns, "drift/likeness", "no cosine", alike.intact & (np.abs(alike.values) > 1 + 1e-5))


def _check_peaks(columns: Columns, picture: str, peak: str) -> Iterable[Finding]:
    """Whether the maximum of each map is what is stored as such."""
    largest, stored = columns[picture, LARGEST], columns[peak]
    if largest is not None and stored is not None:
        wrong = largest.intact & stored.intact & (largest.values != stored.values)
        yield from _named(columns, peak, "not the maximum of the map", wrong)


def _check_range(columns: Columns, variable: Variable) -> Iterable[Finding]:
    """Whether no value is below what the schema allows, and flags are flags."""
    if variable.least is not None:
        smallest = columns[variable.path, SMALLEST] or columns[variable.path]
        if smallest is not None:
            said = "negative values" if variable.least == 0 else f"values below {variable.least:g}"
            yield from _named(columns, variable.path, said, smallest.intact & (smallest.values < variable.least))
    if variable.is_flag and (flag := columns[variable.path]) is not None:
        yield from _named(columns, variable.path, "neither 0 nor 1", flag.intact & (flag.values > 1))


def _check_gaps(columns: Columns, group: str) -> Iterable[Finding]:
    total, magnitude = columns[f"{group}/attribution", TOTAL], columns[f"{group}/attribution", MAGNITUDE]
    gap, score, baseline = (columns[f"{group}/{name}"] for name in ("gap", "score", "score_baseline"))
    if total is None or magnitude is None or gap is None or score is None or baseline is None:
        return
    intact = total.intact & gap.intact & score.intact & baseline.intact
    at_image, at_baseline = score.values.astype(np.float64), baseline.values.astype(np.float64)
    expected = total.values - (at_image - at_baseline)
    allowed = EPSILON * (magnitude.values + np.abs(at_image) + np.abs(at_baseline))
    off = np.abs(gap.values - expected)
    wrong = intact & ~(off <= allowed)
    if wrong.any():
        worst = np.flatnonzero(wrong)[off[wrong].argmax()]
        detail = (
            "not sum(attribution) - (score - score_baseline): at worst "
            f"{gap.values[worst]:.6g} is stored where {expected[worst]:.6g} comes out (rounding: {allowed[worst]:.1g})"
        )
        yield from _named(columns, f"{group}/gap", detail, wrong, check="completeness")


def _check_flags(columns: Columns, group: str, configuration: object) -> Iterable[Finding]:
    path = f"{group}/converged"
    flag, gap, error, score, baseline = (
        columns[f"{group}/{name}"] for name in ("converged", "gap", "quadrature_error", "score", "score_baseline")
    )
    if flag is None:
        return
    tolerances = _tolerances(configuration)
    if tolerances is None or gap is None or error is None or score is None or baseline is None:
        return
    intact = flag.intact & gap.intact & error.intact & score.intact & baseline.intact
    difference = np.abs(score.values.astype(np.float64) - baseline.values)
    # 1 is a quantity at its tolerance.
    gap_share = np.abs(gap.values.astype(np.float64)) / (tolerances[0] * np.maximum(1, difference))
    worst = np.maximum(gap_share, error.values / tolerances[1])
    allowed_text = f"the tolerances of the configuration (gap {tolerances[0]:g}, quadrature_error {tolerances[1]:g})"
    for value, wrong, detail in (
        (1, worst > 1 + TOLERANCE_ROUNDING, f"1, but gap or quadrature_error exceeds {allowed_text}"),
        (0, worst < 1 - TOLERANCE_ROUNDING, f"0, but gap and quadrature_error are within {allowed_text}"),
    ):
        yield from _named(columns, path, detail, intact & wrong & (flag.values == value), check="converged")


def _tolerances(configuration: object) -> tuple[float, float] | None:
    """Of gap and quadrature_error, as a night records them; None where the configuration has no such numbers."""
    section = configuration.get("integrated_gradients") if isinstance(configuration, Mapping) else None
    if not isinstance(section, Mapping):
        return None
    gap, error = section.get("gap_tolerance"), section.get("error_tolerance")
    if not isinstance(gap, int | float) or not isinstance(error, int | float) or not (gap > 0 and error > 0):
        return None
    return float(gap), float(error)


def _named(columns: Columns, path: str, detail: str, wrong: NDArray[np.bool_], check: str = "values") -> list[Finding]:
    """A finding for the positions that are wrong, if there are any."""
    positions = np.flatnonzero(wrong)
    if not len(positions):
        return []
    rows = columns.named(path, positions)
    return [Finding(check, path, detail if rows else f"{detail}; positions {positions.tolist()[:8]}", rows)]
