"""How a picture of an attribution or a map is read; at the end of every page that has some."""

__all__ = ["NO_GRAD_CAM", "how_to_read"]

INTEGRATED_GRADIENTS = """
**Integrated Gradients** shares the score of the explained class out among the input values: green pixels raise it compared with a
black (or the configured) baseline, red pixels lower it, and white ones do not matter. The sum over a picture is the score minus
the baseline's score, up to the row's *gap*. Colours are scaled picture by picture: compare patterns, not strengths, between rows.
""".strip()

GRAD_CAM = """
**Grad-CAM** shows where the explained convolution layer speaks for that class, on that layer's coarse grid, enlarged:
red is the row's own maximum and blue is nothing. It knows no red-for-against: what speaks against the class is cut off at
zero, and a row where nothing speaks for it has an *empty map*. The two methods answer different questions and may disagree.
""".strip()

NO_GRAD_CAM = "This night has no Grad-CAM: its model has no map to explain, or `grad_cam.layer` is `none`."


def how_to_read(*, grad_cam: bool) -> str:
    """Of both methods; in a night without Grad-CAM, of Integrated Gradients and that there is no other."""
    return f"{INTEGRATED_GRADIENTS}\n\n{GRAD_CAM if grad_cam else NO_GRAD_CAM}"
