"""How fast `nightlens browse` is in a real browser: to open a night, to show the rows of a place, and what memory it takes.

    python tests/benchmarks/browse.py --rows 10000 --rows 60000 --side 32

The store has random images and attributions, rounded as a night's; its size is printed, and it is removed again.
"""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import typer
from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "setup"))

from command import nightlens_arguments, running
from example_store import ATTRIBUTES, CLASS_NAMES, DIGEST, example_arrays
from storage import part_path, seal_store, write_part

PART_ROWS = 500
PLACES = 40  # of the grid that are scrolled to


def make_store(folder: Path, n_rows: int, side: int) -> Path:
    """A sealed store of n_rows; its parts repeat the arrays of one."""
    arrays = example_arrays(0, PART_ROWS, side=side)
    parts = []
    for start in range(0, n_rows, PART_ROWS):
        arrays["predicted_row"] = arrays["predicted_row"] % PART_ROWS + start
        parts.append(part_path(folder / "parts", start, start + PART_ROWS))
        write_part(parts[-1], start, start + PART_ROWS, arrays, digest=DIGEST, part_rows=PART_ROWS)
    path = folder / "attributions.h5"
    seal_store(path, parts, class_names=CLASS_NAMES, attributes=ATTRIBUTES)
    shutil.rmtree(folder / "parts")
    return path


def show(page: Page) -> float:
    """Seconds until every card that is in the page has its pictures."""
    began = time.perf_counter()
    page.locator("#gallery .awaited").first.wait_for(state="detached", timeout=60_000)
    while page.locator("#gallery .awaited").count():
        time.sleep(0.005)
    return time.perf_counter() - began


def scroll(page: Page, places: Sequence[float]) -> list[float]:
    """Seconds from each jump to a place, 0 to 1, until its rows are there."""
    waits = []
    for place in places:
        page.locator("#window").evaluate(
            "(box, place) => { box.scrollTop = place * (box.scrollHeight - box.clientHeight);"
            " return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))); }",
            place,
        )
        waits.append(show(page))
    return waits


def main(
    rows: Annotated[list[int], typer.Option()] = [10_000, 60_000],  # noqa: B006
    side: int = 32,
    chromium: str = shutil.which("chromium") or "chromium",
) -> None:
    """Prints a line a store."""
    places = np.random.default_rng(0).random(PLACES)
    print("rows    MB    opened  again  jump: median, worst  slow scroll: worst  order by gap  browse MB  page MB")
    for n_rows in rows:
        with tempfile.TemporaryDirectory(prefix="nightlens-") as folder:
            store = make_store(Path(folder), n_rows, side)
            command = nightlens_arguments("browse", store, "--port", "0")
            with running(*command) as process, sync_playwright() as playwright:
                assert process.stdout
                address = process.stdout.readline().split()[0]
                browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 900})
                opened = []
                for _ in range(2):
                    began = time.perf_counter()
                    page.goto(address)
                    page.locator("#gallery .card img").first.wait_for(timeout=120_000)
                    opened.append(time.perf_counter() - began)
                jumps = scroll(page, places)
                slow = scroll(page, [0.5 + k * 0.5 * 700 / (n_rows * 45) for k in range(PLACES)])
                began = time.perf_counter()
                page.locator("#sort").select_option("gap -1")
                show(page)
                ordered = time.perf_counter() - began
                jumps += scroll(page, places)
                heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
                own = psutil.Process(process.pid).memory_info().rss / 1e6
                browser.close()
            print(
                f"{n_rows:6,}  {store.stat().st_size / 1e6:5,.0f}  {opened[0]:5.2f} s  {opened[1]:4.2f} s  "
                f"{statistics.median(jumps):.3f}, {max(jumps):.3f} s  {max(slow):.3f} s  {ordered:.2f} s  {own:.0f}  {heap:.0f}",
                flush=True,
            )


if __name__ == "__main__":
    typer.run(main)
