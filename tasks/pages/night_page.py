"""The page `night` of a sealed night: the verdict first, then what a person would ask next."""

import shlex
from collections.abc import Callable
from functools import partial

from matplotlib.figure import Figure

from storage import METHODS
from storage.file.catalog import REPORT_NAME
from storage.nights.browse_record import browse_address
from tasks.night.result import NightResult
from tasks.pages.figures.page_figures import duration, stages_figure
from tasks.pages.how_to_read import how_to_read
from tasks.pages.page import Page, escape
from tasks.parts.plan import Plan

__all__ = ["night_page"]


def night_page(plan: Plan, result: NightResult, draw: Callable[[], Figure]) -> Page:
    """Verdict, warnings, figures, durations and how to load the store. draw: makes the picture of some of its rows."""
    verdict = "Sealed with warnings" if result.warnings else "Sealed"
    empty = {f"empty {title} maps": f"{n:,} ({n / result.n_rows:.1%})" for title, n in result.zero_maps.items()}
    page = Page(
        "night", f"{verdict}, {_accuracy(result)}. Look at the {'warnings' if result.warnings else 'verdict'} first."
    )
    page.heading(verdict)
    page.table([_warning(warning.kind, warning.message, warning.threshold) for warning in result.warnings])
    stages = ", ".join(f"{stage} {duration(seconds)}" for stage, seconds in result.stage_seconds.items())
    facts = {
        "accuracy": _accuracy(result).removeprefix("accuracy "),
        "compared with": result.compared_with or "no earlier night on these images",
        "rows explained": f"{result.n_rows:,} ({plan.start} to {plan.stop - 1})",
        "converged": f"{result.converged_share:.2%}, worst gap {result.worst_gap:.4f}",
        "gradients an image": f"{result.gradients_per_image:.1f}",
        **(empty if result.has_grad_cam else {"Grad-CAM": "none: Integrated Gradients alone"}),
        "audit": result.audit,
        "duration": f"{duration(result.seconds)}: {stages}",
        "dataset": f"{plan.dataset.name} {plan.dataset.version}",
        "model": plan.model.name,
        "computed": f"on {result.device}, in {result.precision}",
        "store": f"{result.store} ({_size(result.store_bytes)})",
    }
    if result.gallery.is_dir():
        facts |= {"pictures": str(result.gallery), "report": str(result.store.with_name(REPORT_NAME))}
    page.table([{"what": what, "value": value} for what, value in facts.items()])
    if address := browse_address(plan.root):
        page.text(f"Every row, with its pictures: [{escape(address)}]({address}/nights/{result.night_id}/)")
    else:
        page.text("Every row, with its pictures, in the browser:")
        page.code(f"nightlens browse {shlex.quote(str(plan.root))}")
    page.text("Load it:")
    page.code(
        f"import nightlens\n\nwith nightlens.open_store({str(result.store)!r}) as store:\n    print(store.table())"
    )
    page.figure(partial(stages_figure, result.stage_seconds), "Seconds by stage")
    methods = [method for method in METHODS if result.has_grad_cam or not method.is_map]
    titles = ["Images", *(method.title for method in methods)]
    page.figure(draw, f"{', '.join(titles[:-1])} and {titles[-1]} of some rows", thumbnail=True)
    page.text(how_to_read(methods))
    page.text(f"Night {escape(result.night_id)}.")
    return page


def _accuracy(result: NightResult) -> str:
    change = result.accuracy_change
    if change is None:
        return f"accuracy {result.accuracy:.2%}"
    return f"accuracy {result.accuracy:.2%}, {100 * change:+.2f} points since the last night"


def _warning(kind: str, message: str, threshold: float | None) -> dict[str, str]:
    return {"warning": kind, "what came": message, "allowed": "" if threshold is None else f"{threshold:.1%}"}


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"
