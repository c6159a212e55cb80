"""Commands on a root: its nights and models. They need neither TensorFlow nor Prefect, but for `models`."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.terminal.complaints import complain
from flows.terminal.options import DEFAULT_ROOT, RootOption

if TYPE_CHECKING:
    from storage import NightEntry, Pruning

__all__ = ["models", "nights", "pin", "prune", "unpin"]

NightArgument = Annotated[str, typer.Argument(metavar="NIGHT", help="A night's id, as `nightlens nights` lists it.")]
PIPED_WIDTH = 1000
STATE_STYLES = {"sealed": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "damaged": "red"}


def nights(root: RootOption = DEFAULT_ROOT) -> None:
    """Lists the nights, newest first: state, rows, accuracy, relevance gain, size, age, and kinds of warnings.

    A night is running, sealed (and audited), failed, interrupted, or damaged, where its records cannot be read; what is
    unfinished `nightlens run --resume` goes on with.
    """
    from rich.console import Console
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from storage import Catalog, read_nights

    entries = read_nights(Catalog(_existing(root)))
    if not entries:
        print(f"no night in {root} yet; `nightlens run --root {root}` starts one")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("night", "state", "rows", "accuracy", "worth", "size", "age", ""):
        justify: Literal["left", "right"] = "right" if name in ("rows", "accuracy", "worth", "size", "age") else "left"
        table.add_column(name, justify=justify, no_wrap=bool(name), overflow="fold")
    now = datetime.now(UTC)
    for night in entries:
        table.add_row(
            Text(night.id),
            Text(night.state, style=STATE_STYLES[night.state]),
            "" if night.n_rows is None else f"{night.n_rows:,}",
            "" if night.accuracy is None else f"{night.accuracy:.4f}",
            "" if night.relevance_gain is None else f"{night.relevance_gain:+.3f}",
            decimal(night.bytes),
            _age((now - night.began).total_seconds()) if night.began else "",
            Text(_remarks(night)),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)


def _remarks(night: "NightEntry") -> str:
    marks = ["latest"] * night.is_latest + ["pinned"] * night.is_pinned
    kinds = ", ".join(dict.fromkeys(night.warnings))
    return "; ".join([*marks, *([f"warns: {kinds}"] if kinds else []), *([night.note] if night.note else [])])


def pin(night: NightArgument, root: RootOption = DEFAULT_ROOT) -> None:
    """Protects a night: `nightlens prune` never removes it.

    Example: `nightlens pin 20261123T020000Z-ab12cd`
    """
    _pin(root, night, pinned=True)


def unpin(night: NightArgument, root: RootOption = DEFAULT_ROOT) -> None:
    """Takes a night's protection back."""
    _pin(root, night, pinned=False)


def _pin(root: Path, night: str, *, pinned: bool) -> None:
    import storage

    storage.pin(storage.Catalog(_existing(root)), night, pinned=pinned)
    print(f"{night}: pinned, never pruned" if pinned else f"{night}: not pinned")


def prune(
    keep: Annotated[int, typer.Option(min=1, metavar="N", help="Sealed nights to keep, counted from the newest.")],
    root: RootOption = DEFAULT_ROOT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Removes old nights, the parts and models that no night refers to, and what killed writers left behind.

    Never removed: the latest night, pinned and running ones, unfinished ones newer than the last sealed night, and what
    cannot be read. A night that failed its audit is kept as long as a sealed one would be.

    Example: `nightlens prune --keep 14 --dry-run`
    """
    from rich.filesize import decimal

    from storage import Catalog, pruning, remove

    catalog = Catalog(_existing(root))
    with pruning(catalog, keep) as decided:
        _tell(decided, root)
        if not dry_run:
            remove(catalog, decided.removals)
    verb = "would be removed" if dry_run else "removed"
    print(f"{len(decided.removals)} {verb}, {decimal(decided.bytes)}")


def _tell(decided: "Pruning", root: Path) -> None:
    from rich.filesize import decimal

    for removal in decided.removals:
        print(f"{decimal(removal.bytes):>9}  {removal.path.relative_to(root)}  {removal.why}")
    for spared in decided.spared:
        print(f"{'kept':>9}  {spared}")


def models(root: RootOption = DEFAULT_ROOT) -> None:
    """Lists the trained models, newest first."""
    from flows.terminal.progress_bars import quiet_tensorflow
    from storage import Catalog

    folder = Catalog(root).models
    with quiet_tensorflow():
        from tasks.models.registry import list_models
    records = list_models(folder, complain)
    for record in records:
        accuracy = record.history.get("val_accuracy", [])
        reached = f"accuracy {accuracy[-1]:.4f}" if accuracy else "accuracy unknown"
        print(f"{record.name}  {record.dataset_name}  {record.epochs} epochs  {reached}  {record.created_utc}")
        print(f"    {record.path}")
    if not records:
        print(f"no model in {folder} yet; `nightlens run --root {root}` trains one")


def _existing(root: Path) -> Path:
    if not root.is_dir():
        raise ValueError(f"{root}: no such folder; give the --root of your nights, `nightlens run` makes one")
    return root


def _age(seconds: float) -> str:
    for n_seconds, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= n_seconds:
            return f"{seconds / n_seconds:.0f} {unit}"
    return "now"
