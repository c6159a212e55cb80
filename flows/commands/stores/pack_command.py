"""`nightlens pack` and `nightlens unpack`: a night as one file for other machines. Neither needs TensorFlow or Prefect."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.options import DEFAULT_ROOT

__all__ = ["night_place", "pack", "unpack"]


def pack(
    night: Annotated[
        str,
        typer.Argument(metavar="NIGHT", help="A night's folder, its store, a root for its latest, or a night's id."),
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="[default: NIGHT.nightlens.zip]", show_default=False)
    ] = None,
    without: Annotated[
        list[str] | None,
        typer.Option(
            metavar="model|images",
            help="Leave out the model, or the images and all that shows them. May be given twice.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The model's file or folder. [default: found by its sha256]")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="Where the night of that id and its model are.", show_default=False),
    ] = None,
) -> None:
    """Makes one file of a sealed night, to hand over: store, report, gallery, model, contract, environment, checksums.

    Whoever gets it runs `nightlens unpack FILE`, looks at any row by `nightlens browse`, and computes rows again from the
    model by `nightlens verify --recompute`. It holds a sample of the training images; without
    images neither these nor the store's, the report's or the gallery's are in it, only explanations, in which shapes of an image
    can still be seen.

    Examples:

    - `nightlens pack nightlens-data/latest`

    - `nightlens pack 20261123T020000Z-ab12cd to-anna.nightlens.zip --without images`
    """
    from flows.terminal.finding_lines import reading_progress
    from storage import resolve_store
    from storage.nights.packing import pack_night

    store = resolve_store(night_place(night, root))
    with reading_progress() as progress:
        made = pack_night(store, file, root=root, model=model, without=without or (), progress=progress)
    left = f", without {' and '.join(made.without)}" if made.without else ""
    print(f"{made.path}: night {made.night}{left}, {made.n_files:,} files, {made.bytes / 1e6:,.1f} MB")
    print(f"manifest sha256 {made.sha256}")
    print(f"whoever gets it: nightlens unpack {shlex.quote(made.path.name)}")


def night_place(night: str, root: Path | None) -> Path:
    """What NIGHT means: a path that is there, or the night of that id in the root."""
    from storage import Catalog, find_night

    path = Path(night)
    if path.exists() or "/" in night:
        return path
    return find_night(Catalog(root or DEFAULT_ROOT), night).folder


def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A night as `nightlens pack` makes it.")],
    root: Annotated[
        Path, typer.Argument(metavar="[ROOT]", help="Where it goes; made if it is not there.")
    ] = DEFAULT_ROOT,
) -> None:
    """Adds a packed night to a root, once every checksum was compared: a changed file is refused by name, and nothing is written.

    A night that the root has already is never replaced. `latest` stays where it is, if there is one.

    Example: `nightlens unpack 20261123T020000Z-ab12cd.nightlens.zip`
    """
    from flows.terminal.finding_lines import reading_progress
    from storage.nights.unpacking import unpack_night

    with reading_progress() as progress:
        made = unpack_night(file, root, progress=progress)
    left = f", without {' and '.join(made.without)}" if made.without else ""
    print(f"{made.folder}: {made.n_files:,} files{left}, {made.bytes / 1e6:,.1f} MB, every checksum as packed")
    print(f"manifest sha256 {made.sha256}")
    for model in made.models[:1]:
        print(f"{model}: {'was there already' if made.was_there else 'the model'}")
    print(f"look at it: nightlens browse {shlex.quote(str(root if made.is_latest else made.folder))}")
