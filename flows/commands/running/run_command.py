"""`nightlens run`: a night in the foreground, its progress on the terminal and its record on a server."""

from pathlib import Path
from typing import Annotated, Any

import typer

from flows.commands.running.foreground import run_in_foreground
from flows.parameters import read_parameters, resumed_parameters
from flows.terminal.options import DEFAULT_ROOT, DataDirOption

__all__ = ["run"]

NIGHTLY = "flows.nightly:nightly"


def run(
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="digits, a TFDS name, an .npz, or a folder of images. [default: digits]"
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="auto|train|PATH", help="Reuse a matching model, train one, or load. [default: auto]"),
    ] = None,
    model_input: Annotated[
        str | None,
        typer.Option(
            "--input",
            metavar="RANGE",
            help="What a given model is fed: auto, unit (0..1), raw (0..255), signed (-1..1), torch or caffe. [default: auto]",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs of training.", show_default=False)] = None,
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help=f"Folder of everything written. [default: {DEFAULT_ROOT}]")
    ] = None,
    rows: Annotated[
        str | None, typer.Option(metavar="A:B", help="Rows of the test split to explain. [default: all]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE.yaml", help="The flow's parameters; options override it.", show_default=False),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="single|virtual", help="The store as one file, or over those of the parts. [default: single]"
        ),
    ] = None,
    runner: Annotated[
        str | None, typer.Option(metavar="threads|dask", help="How parts run in parallel. [default: threads]")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", help="Threads, or processes of a local Dask cluster. [default: 2]")
    ] = None,
    dask_address: Annotated[
        str | None, typer.Option(metavar="tcp://HOST:PORT", help="With --runner dask: the scheduler of a cluster.")
    ] = None,
    data_dir: DataDirOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest unfinished night, as it was begun.")
    ] = False,
    night: Annotated[
        str | None, typer.Option(metavar="ID", help="With --resume: another unfinished night.", show_default=False)
    ] = None,
    offline_ok: Annotated[
        bool, typer.Option("--offline-ok", help="Go on where the configured Prefect API does not answer.")
    ] = False,
    json_logs: Annotated[
        bool, typer.Option("--json-logs", help="Log JSON lines to stderr; the result is one on stdout.")
    ] = False,
) -> None:
    """Runs a night: ingest, train or reuse, evaluate, explain, seal, audit, publish.

    Parts that are done are kept: after an interruption the same command starts a new night that computes only what is
    missing, and `--resume` goes on with the one that was interrupted.

    Examples:

    - `nightlens run` explains the embedded digits, in about two minutes

    - `nightlens run --dataset fashion_mnist.npz --rows 0:500`

    - `nightlens run --dataset cifar10 --model model.keras --root /data/nightlens`

    - `nightlens run --config night.yaml --epochs 3`

    - `nightlens run --runner dask --workers 4`

    - `nightlens run --resume --root /data/nightlens`

    With a Prefect API configured (PREFECT_API_URL or a profile) the night is recorded there, otherwise by a server of
    its own under the root, which `nightlens ui` brings back up. An API that does not answer is an error before any work;
    with `--offline-ok` the night is recorded under the root instead, and what no server recorded is no error.
    """
    if json_logs:
        from flows.terminal.logs import write_json_logs

        write_json_logs()
    options = {
        "--dataset": dataset,
        "--data-dir": data_dir,
        "--model": model,
        "--input": model_input,
        "--epochs": epochs,
        "--root": root,
        "--rows": rows,
        "--layout": layout,
        "--runner": runner,
        "--workers": workers,
        "--dask-address": dask_address,
    }
    given = {name: value for name, value in options.items() if value is not None}
    if night and not resume:
        raise ValueError("--night names the night to go on with, and needs --resume")
    if resume:
        others = [*(given.keys() - {"--root"}), *(["--config"] if config else [])]
        if others:
            raise ValueError(f"--resume goes on with a night as it was begun; leave out {', '.join(sorted(others))}")
        run_in_foreground(
            NIGHTLY,
            resumed_parameters(root or DEFAULT_ROOT, night),
            offline_ok=offline_ok,
            say=_print_result,
            json_logs=json_logs,
        )
    else:
        run_in_foreground(
            NIGHTLY, read_parameters(config, given), offline_ok=offline_ok, say=_print_result, json_logs=json_logs
        )


def _print_result(result: Any, where: str) -> None:
    from storage.file.catalog import REPORT_NAME

    print(f"verdict   {result.verdict}")
    print(
        f"night     {result.night_id}: {result.n_rows:,} rows, accuracy {result.accuracy:.4f}, {result.seconds:,.0f} s"
    )
    if not result.has_grad_cam:
        print("Grad-CAM  none: Integrated Gradients alone")
    print(f"store     {result.store}")
    if result.gallery.is_dir():
        print(f"pictures  {result.gallery}")
        print(f"report    {result.store.with_name(REPORT_NAME)}")
    print(f"rows      every one in a browser: `nightlens browse {result.store.parents[2]}`")
    print(f"record    {where}", flush=True)
