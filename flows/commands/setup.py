"""Commands that come before a night: `doctor` and `fetch`."""

from pathlib import Path
from typing import Annotated

import typer

from flows.commands.options import DEFAULT_ROOT, DataDirOption, RootOption

__all__ = ["doctor", "fetch"]


def doctor(
    root: RootOption = DEFAULT_ROOT,
    dataset: Annotated[str, typer.Option(metavar="NAME|PATH", help="The dataset to look for.")] = "digits",
    data_dir: DataDirOption = None,
) -> None:
    """Checks dependencies, dataset, models, server and root, and says what to do about each ✗.

    Example: `nightlens doctor --dataset cifar10 --root /data/nightlens`
    """
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
    from flows.commands.terminal import quiet_tensorflow

    refuse_unusable(data_dir or root)
    with quiet_tensorflow():
        import tasks.datasets
    print(tasks.datasets.fetch(name, archive, root, data_dir))
