"""Commands that come before a night: `doctor` and `fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.terminal.options import DEFAULT_ROOT, DataDirOption, RootOption

__all__ = ["doctor", "fetch"]


def doctor(
    root: RootOption = DEFAULT_ROOT,
    dataset: Annotated[str, typer.Option(metavar="NAME|PATH", help="The dataset to look for.")] = "digits",
    data_dir: DataDirOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Say how this model would be fed and read on the dataset, and nothing else."
        ),
    ] = None,
    model_input: Annotated[
        str | None,
        typer.Option(
            "--input", metavar="RANGE", help="With --model: auto, unit, raw, signed, torch or caffe. [default: auto]"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.yaml", help="With --model: the night's parameters, as of `run`.", show_default=False
        ),
    ] = None,
) -> None:
    """Checks dependencies, dataset, models, server and root, and says what to do about each ✗.

    With `--model` it says instead how that model would be fed and read on the dataset, and why, without a night: what it is
    fed, what its outputs are, order of classes, Grad-CAM's layer, and what labelled images say of each feed.

    Examples:

    - `nightlens doctor --dataset cifar10 --root /data/nightlens`

    - `nightlens doctor --model my_model.keras --dataset photos/`
    """
    if model:
        from flows.commands.model_contract import examine_model

        given = {"--dataset": dataset, "--data-dir": data_dir, "--root": root, "--input": model_input}
        options = {name: value for name, value in given.items() if value is not None}
        examine_model(model, root=root, options=options, config=config)
        return
    if config or model_input:
        raise ValueError("--config and --input say how a model is fed and read, and need --model")
    from flows.commands.doctor import examine

    if not examine(root=root, dataset=dataset, data_dir=data_dir):
        raise typer.Exit(1)


def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A TFDS name, such as cifar10.")],
    archive: Annotated[
        list[Path], typer.Option(metavar="FILE", help="An archive as TFDS would download it; may be repeated.")
    ],
    root: RootOption = DEFAULT_ROOT,
    data_dir: DataDirOption = None,
) -> None:
    """Prepares a dataset from archives carried in by hand, where there is no network.

    Each is recognised by the checksum that TFDS has on record, whatever the file is called.

    Example: `nightlens fetch cifar10 --archive cifar-10-binary.tar.gz`
    """
    from flows.commands.doctor import refuse_unusable
    from flows.terminal.progress_bars import quiet_tensorflow

    refuse_unusable(data_dir or root)
    with quiet_tensorflow():
        import tasks.datasets
    print(tasks.datasets.fetch(name, archive, root, data_dir))
