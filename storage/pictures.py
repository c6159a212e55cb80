"""The pictures of a store's rows, captioned: what the reader's `figure`, the gallery and `nightlens show` draw."""

from typing import TYPE_CHECKING, Any, cast

from matplotlib.figure import Figure

from storage.figures import attribution_figure, grad_cam_figure, row_figure

if TYPE_CHECKING:
    from storage.store import AttributionStore, Target

__all__ = ["draw_row", "row_caption", "row_figures"]


def row_caption(store: "AttributionStore", row: int, target: "Target" = "true") -> str:
    """What there is to say of a row in two lines: classes and confidence, and how far to trust its attribution.

    Raises IndexError if the store has no such row.
    """
    names, certificate = store.class_names, store.certificate(target, rows=[row]).iloc[0]
    position = row - int(store.row_numbers[0])
    label, prediction = names[store.labels[position]], names[store.predictions[position]]
    trust = f"gap {certificate['gap']:+.3f}, error {certificate['quadrature_error']:.3f}"
    return (
        f"Row {row}: {label}, predicted {prediction} ({store.confidences[position]:.1%}), "
        f"explained {label if target == 'true' else prediction}\n"
        f"{trust}, {'converged' if certificate['converged'] else 'NOT CONVERGED'}"
    )


def row_figures(store: "AttributionStore", row: int, target: "Target" = "true") -> dict[str, Figure]:
    """The seed's two figures of a row, by method.

    Raises IndexError if the store has no such row.
    """
    pixels, caption, units = store.image[row], row_caption(store, row, target), _units(store)
    attribution, grad_cam = store.attributions([row], target)[0], store.maps([row], target)[0]
    return {
        "integrated-gradients": attribution_figure(pixels, attribution, title=caption, units=units),
        "grad-cam": grad_cam_figure(pixels, grad_cam, title=caption.splitlines()[0]),
    }


def draw_row(store: "AttributionStore", row: int, target: "Target" = "true") -> Figure:
    """Both figures of a row in one.

    Raises IndexError if the store has no such row.
    """
    attribution, grad_cam = store.attributions([row], target)[0], store.maps([row], target)[0]
    caption = row_caption(store, row, target)
    return row_figure(store.image[row], attribution, grad_cam, title=caption, units=_units(store))


def _units(store: "AttributionStore") -> str:
    """What is explained: "probability" or "logit"."""
    return cast(dict[str, Any], store.attributes["configuration"]).get("explanation", {}).get("score", "score")
