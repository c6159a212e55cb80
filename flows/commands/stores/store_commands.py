"""Commands on one store: they need neither TensorFlow nor Prefect, but where they say so."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.terminal.options import StoreArgument

if TYPE_CHECKING:
    from storage import Finding

__all__ = ["report", "show", "verify"]

DPI = 100


def show(
    store: StoreArgument,
    row: Annotated[int, typer.Option(metavar="N", help="Row of the test split.")],
    target: Annotated[
        Literal["true", "predicted"], typer.Option(metavar="true|predicted", help="The class that is explained.")
    ] = "true",
    out: Annotated[Path | None, typer.Option(metavar="PNG", help="[default: row-N.png]", show_default=False)] = None,
) -> None:
    """Draws one row: its image, Integrated Gradients and Grad-CAM, if the night has it. Needs neither TensorFlow nor Prefect.

    Example: `nightlens show nightlens-data/latest --row 91 --target predicted --out row.png`
    """
    from storage import open_store
    from storage.draw.row_pictures import row_caption

    with open_store(store) as opened:
        try:
            figure, caption = opened.figure(row, target), row_caption(opened, row, target)
            caption += "" if opened.has_grad_cam else "; this night has no Grad-CAM"
            caption += "" if opened.has_images else "; drawn without its images"
        except IndexError as error:
            raise ValueError(f"--row: {error}") from error
    path = out or Path(f"row-{row}.png")
    figure.savefig(path, format="png", dpi=DPI)
    print(f"{path}: {caption}")


def report(
    store: StoreArgument,
    out: Annotated[
        Path | None, typer.Option(metavar="HTML", help="[default: report.html beside the store]", show_default=False)
    ] = None,
) -> None:
    """Writes a sealed night's page again, from its files alone: report.html, which opens in any browser.

    The model's figures are those of the explained rows; the training curves are there if its record is where it was.

    Example: `nightlens report nightlens-data/latest`
    """
    from storage import open_store
    from tasks.night.evaluation import measure
    from tasks.report import read_history, write_report

    with open_store(store) as opened:
        evaluation = measure(opened.probabilities, opened.labels, tuple(opened.class_names), seed=0)
        path = write_report(opened, opened.night(), evaluation, read_history(opened), out)
    print(f"{path}: {len(opened):,} rows, {path.stat().st_size / 1e6:.1f} MB")


def verify(
    store: StoreArgument,
    recompute: Annotated[
        int | None,
        typer.Option(min=1, metavar="K", help="Compute K random rows again, too.", show_default=False),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Chooses the rows. [default: from the night's id]")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the model and the dataset are. [default: as recorded]"),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The model's file or folder. [default: found by its sha256]")
    ] = None,
    code: Annotated[
        Path | None,
        typer.Option(metavar="FILE.py", help="The model's own layers, to be executed.", show_default=False),
    ] = None,
) -> None:
    """Checks a store: its sha256, structure, checksums, values and certificates; says what is wrong and in which rows.

    Exit code 0 if it is sound, 1 if not. With --recompute random rows are computed again from the recorded model,
    dataset and settings; that needs the extra 'pipeline', the rest needs neither TensorFlow nor Prefect.

    Example: `nightlens verify nightlens-data/latest --recompute 8`
    """
    from flows.terminal.finding_lines import print_findings, reading_progress
    from storage import StoreError, resolve_store, verify_store

    options = (("--seed", seed), ("--root", root), ("--model", model), ("--code", code))
    unused = [name for name, value in options if value is not None]
    if unused and recompute is None:
        raise ValueError(f"{unused[0]}: only of use with --recompute K")
    path = resolve_store(store)
    with reading_progress() as progress:
        findings = verify_store(path, progress)
    print_findings(findings)
    done = "sound"
    if recompute is not None and not any(finding.check == "store" for finding in findings):
        try:
            n_rows, more = _recompute(path, recompute, seed, root, model, code)
        except StoreError as error:
            if not findings:
                raise
            print(f"not recomputed: {error}", file=sys.stderr)
        else:
            print_findings(more)
            findings += more
            done = f"sound, {n_rows:,} rows recomputed"
    if findings:
        raise typer.Exit(1)
    print(f"{path}: {done}")


def _recompute(
    path: Path, n_rows: int, seed: int | None, root: Path | None, model: Path | None, code: Path | None
) -> "tuple[int, tuple[Finding, ...]]":
    from flows.terminal.progress_bars import quiet_tensorflow

    with quiet_tensorflow():
        from tasks.recompute import other_device, own_images, recompute_rows

        for said in (other_device(path), "" if root else own_images(path)):
            if said:
                print(f"{path}: {said}")
        rows, findings = recompute_rows(path, n_rows, seed=seed, root=root, model=model, code=code)
    return len(rows), findings
