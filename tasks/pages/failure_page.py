"""The page `night` of a night that failed: where, why, and which night the analysts still have."""

import shlex
from functools import partial
from pathlib import Path

from storage import Catalog, StoreNotFound
from tasks.night.result import NightFailure
from tasks.pages.figures.page_figures import stages_figure
from tasks.pages.page import Page, escape

__all__ = ["failure_page", "name_latest", "publish_failure"]

HEADING_CHARACTERS = 160


def failure_page(failure: NightFailure, root: Path) -> Page:
    """Verdict, stage and reason in the first line, and the stages as far as they came. root: where the night is."""
    latest = f"{failure.latest}{' (this one)' if failure.latest == failure.night_id else ''}"
    page = Page("night", f"Failed in {escape(failure.stage)}; latest is {escape(latest)}. Look at the reason first.")
    reason = failure.reason
    short = reason if len(reason) <= HEADING_CHARACTERS else reason[: HEADING_CHARACTERS - 1] + "…"
    page.heading(f"Failed in {failure.stage}: {short}")
    page.table(
        [
            {"what": "latest is", "value": latest},
            {"what": "this night", "value": failure.night_id},
            {"what": "stage", "value": failure.stage},
        ]
    )
    page.text(escape(reason))
    seconds = failure.stage_seconds | {failure.stage: failure.failed_seconds}
    page.figure(partial(stages_figure, seconds, failed=failure.stage), "Seconds by stage", thumbnail=True)
    if failure.can_resume:
        page.text(
            "Parts that are done are kept: the next night with the same settings computes only what is missing, "
            "and this one goes on with:"
        )
        page.code(f"nightlens run --resume --night {failure.night_id} --root {shlex.quote(str(root.absolute()))}")
    else:
        page.text("Nothing was explained yet: mend the cause, and run it again.")
    return page


def name_latest(catalog: Catalog) -> str:
    """What `latest` is, in words."""
    try:
        latest = catalog.latest()
    except StoreNotFound as error:
        return str(error)
    return latest.name if latest else "none yet"


def publish_failure(failure: NightFailure, root: Path) -> None:
    """Uploads the page; a server that will not take it is logged."""
    failure_page(failure, root).publish()
