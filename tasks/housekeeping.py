"""Housekeeping of a root, and its page in the UI: what went, what was spared and why, and how much room there is."""

import shutil

from prefect import task
from prefect.logging import get_run_logger
from rich.filesize import decimal

from storage import Catalog, Pruning, pruning, remove
from tasks.config import PruneConfig
from tasks.pages.page import Page, escape

__all__ = ["prune_nights"]


@task(name="prune")
def prune_nights(config: PruneConfig) -> None:
    """Removes what storage.pruning decides, or, in a dry run, only says so; the artifact `housekeeping` lists it.

    Raises FileNotFoundError if the root is not there, LockBusy if another clean-up goes on.
    """
    root = config.root.expanduser().absolute()
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder to prune; set prune.root to the root of the nights")
    catalog, logger = Catalog(root), get_run_logger()
    with pruning(catalog, config.keep) as decided:
        for removal in decided.removals:
            logger.info("%s  %s  %s", decimal(removal.bytes), removal.path.relative_to(root), removal.why)
        if not config.dry_run:
            remove(catalog, decided.removals)
    verb = "would be removed" if config.dry_run else "removed"
    summary = f"{len(decided.removals)} {verb}, {decimal(decided.bytes)}"
    logger.info("%s of %s", summary, root)
    _publish(config, decided, summary)


def _publish(config: PruneConfig, decided: Pruning, summary: str) -> None:
    page = Page("housekeeping", "What was removed from the root. Look for nights that should have been pinned.")
    page.heading(summary)
    root = config.root.expanduser().absolute()
    usage = shutil.disk_usage(root)
    page.table(
        [
            {"what": "root", "value": str(root)},
            {"what": "sealed nights kept", "value": config.keep},
            {"what": "free on the disk", "value": f"{decimal(usage.free)} of {decimal(usage.total)}"},
        ]
    )
    page.table(
        [
            {"what": str(removal.path.relative_to(root)), "size": decimal(removal.bytes), "why": removal.why}
            for removal in decided.removals
        ]
    )
    for spared in decided.spared:
        page.text(f"Kept: {escape(spared)}")
    page.publish()
