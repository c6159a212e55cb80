"""How a picture of an attribution or a map is read; at the end of every page that has some."""

__all__ = ["HOW_TO_READ"]

HOW_TO_READ = """
**Integrated Gradients** shares the score of the explained class out among the input values: green pixels raise it compared with a
black (or the configured) baseline, red pixels lower it, and white ones do not matter. The sum over a picture is the score minus
the baseline's score, up to the row's *gap*. Colours are scaled picture by picture: compare patterns, not strengths, between rows.

**Grad-CAM** shows where the explained convolution layer speaks for that class, on that layer's coarse grid, enlarged:
red is the row's own maximum and blue is nothing. It knows no red-for-against: what speaks against the class is cut off at
zero, and a row where nothing speaks for it has an *empty map*. The two methods answer different questions and may disagree.
""".strip()
