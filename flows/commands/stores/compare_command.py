"""`nightlens compare`: two stores of the same images, what changed in their predictions and in the reasons for them."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["compare"]

MOST_LINES = 20


def compare(
    before: Annotated[str, typer.Argument(metavar="A", help="A store, a night's folder, a root, or an address.")],
    after: Annotated[
        str, typer.Argument(metavar="B", help="Another store of the same images, also from another root.")
    ],
    to: Annotated[
        Path | None, typer.Option(metavar="HTML", help="Draw it, too, as one page.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(min=0, max=100, metavar="N", help="Rows to show whose reasons moved most.")] = 12,
) -> None:
    """Compares two stores of the same images: changed predictions, and reasons that changed where predictions did not.

    Two trainings that differ in their seed alone share less than half of their reasons. Where B's night measured a floor,
    changes are shown as multiples of it; without one no number of these is an alarm.

    Example: `nightlens compare nightlens-data/nights/A nightlens-data/latest --to drift.html`
    """
    from flows.terminal.finding_lines import reading_progress
    from storage import open_store
    from tasks.report.sections.recorded_worth import read_worth
    from tasks.report.two_stores import write_comparison
    from tasks.worth.drift.night_drift import DriftFloor
    from tasks.worth.drift.store_drift import compare_stores, same_settings

    with open_store(before) as one, open_store(after) as other:
        with reading_progress() as progress:
            found = compare_stores(one, other, lambda share: progress("attributions", round(100 * share), 100))
        names = other.class_names
        print(f"before  {one.attributes['run_id']}, model {one.attributes['model_name']}")
        print(f"after   {other.attributes['run_id']}, model {other.attributes['model_name']}")
        if found.same_model:
            print("the same model explained both: what differs is the settings, or rounding")
        if not same_settings(one, other):
            print("they explain another score, or from another baseline: what differs is not the model alone")
        print(f"\n{len(found.rows):,} rows, of which {len(found.rows) - len(found.stayed):,} changed their prediction")
        for was, now, n_rows in found.flows()[:MOST_LINES]:
            print(f"  {n_rows:6,}  {names[was]} -> {names[now]}")
        if len(found.stayed):
            alike = found.likeness[found.stayed].mean()
            print(f"\nreasons of the others: cosine {alike:.3f} in the mean, over 8x8 cells")
        drift = read_worth(other)[0].drift
        floor = drift.floor if drift and same_settings(one, other) else DriftFloor()
        print(floor.about)
        changes = sorted(found.changes.items(), key=lambda item: -item[1].share)
        if changes:
            print("\nclass                 rows  share moved  x floor  at cell  energy distance")
        for number, change in changes:
            at = f"{change.cell[0]},{change.cell[1]}"
            times = f"{change.share / floor.shares[number]:.2f}" if floor.shares.get(number) else "-"
            print(
                f"{names[number][:20]:20} {change.n_rows:5,}  {change.share:11.3f}  {times:>7}  {at:>7}  {change.energy:15.3f}"
            )
        for number, note in found.notes.items():
            print(f"{names[number][:20]:20} {note}")
        moved = found.moved_most(rows)
        if len(moved):
            print(f"\nmoved most: rows {', '.join(map(str, moved.tolist()))}")
        if to is not None:
            path = write_comparison(one, other, found, floor, to, rows)
            print(f"\n{path}: {path.stat().st_size / 1e6:.1f} MB")
