"""Pages from templates: names are escaped, and a page names by their hashes the style and the script that may run in it."""

import base64
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import jinja2
import matplotlib as mpl
import numpy as np
from markupsafe import Markup

from storage.draw.figures import HEAT, RED_GREEN, short_name

__all__ = ["render_page"]


def render_page(template: str, context: Mapping[str, Any], *, size: tuple[int, int] = (1, 1)) -> str:
    """The page of one of our templates, as HTML. size: width and height of the pictures in it, for their shape.

    Raises jinja2.UndefinedError for a context in which something is missing.
    """
    environment = _environment()
    style = environment.get_template("report.css").render(
        signed=_gradient(RED_GREEN), warm=_gradient(HEAT), shades=_shades(), size=size
    )
    script = environment.get_template("report.js").render(live=context.get("live"))
    return environment.get_template(template).render(
        context,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


@functools.cache
def _environment() -> jinja2.Environment:
    """One for all pages: it keeps the templates compiled, which takes longer than to fill them."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tasks.report"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short_name
    return environment


def _hash(text: str) -> str:
    """As a Content-Security-Policy names what may be used inline."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _gradient(colours: mpl.colors.Colormap, n_stops: int = 17) -> str:
    return ", ".join(mpl.colors.to_hex(colours(position)) for position in np.linspace(0, 1, n_stops))


def _shades() -> tuple[int, ...]:
    """Shares of the accent colour in per cent, by shade; the gap keeps the numbers on them readable in both themes."""
    return (10, 15, 20, 25, 30, 35, 40, 84, 92, 100)
