"""Datasets that TFDS knows by name: found where they are prepared, or downloaded and prepared by TFDS itself.

Convention: a name is NAME, NAME/CONFIG, NAME:VERSION or NAME/CONFIG:VERSION. TFDS left alone tries for 200 s to reach a
host that is not there and probes Google's storage besides; so the hosts are asked first, for a few seconds, and the
storage never. Classes whose names are all lower-case words are shown with capitals (airplane: Airplane); the prepared
directory keeps the names as TFDS has them.
"""

import difflib
import logging
import re
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import tensorflow_datasets as tfds

from tasks.datasets.conversion import is_prepared, locked, quiet
from tasks.datasets.dataset import DatasetError
from tasks.datasets.prepared_rows import classification_keys, one_line

__all__ = [
    "NAME",
    "construct",
    "display_names",
    "find_prepared",
    "is_known",
    "prepare_named",
    "refuse_unreachable",
]

logger = logging.getLogger("nightlens")

NAME = re.compile(r"[A-Za-z]\w*(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+)?")
OTHER_SOURCES = (
    "digits (offline), a Keras-layout .npz, a folder of images as SPLIT/CLASS/*.png, or a TFDS-prepared directory"
)
PROBE_TIMEOUT_S = 4.0


def is_known(name: str) -> bool:
    """Whether TFDS has a dataset of this name, whatever the configuration and version."""
    first = re.split("[/:]", name)[0]
    # The list takes half a second, for it imports every dataset; paths cannot be on it.
    return first.isidentifier() and first in tfds.list_builders(with_community_datasets=False)


def display_names(name: str, class_names: Iterable[str]) -> tuple[str, ...]:
    """Class names as shown: capitals for a dataset that TFDS knows if all its classes are lower-case words."""
    names = tuple(class_names)
    if all(re.fullmatch("[a-z]+([ _][a-z]+)*", class_name) for class_name in names) and is_known(name):
        return tuple(class_name.replace("_", " ").title() for class_name in names)
    return names


def prepare_named(name: str, data_dir: Path | None, root: Path) -> Path:
    """The prepared directory of a TFDS dataset: found, else downloaded into data_dir or root/datasets.

    Looked for in data_dir if given, else in root/datasets and in TFDS's default folder.
    Raises DatasetError for an unknown name, a dataset that is not for image classification, and, within 10 s, a host
    that cannot be reached.
    """
    folders = [data_dir] if data_dir else [root / "datasets", Path(tfds.core.constants.DATA_DIR)]
    folders = [folder.expanduser().resolve() for folder in folders]
    for folder in folders:
        if found := find_prepared(name, folder):
            return found
    builder = construct(name, folders[0])
    classification_keys(builder.info)
    refuse_unreachable(name, builder, folders)
    with locked(folders[0], re.sub(r"\W", "-", name)):
        refuse_half_prepared(Path(builder.data_dir))
        logger.info("downloading %s with TFDS into %s", name, builder.data_dir)
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
        except Exception as error:
            raise DatasetError(
                f"{name}: TFDS could not download and prepare it in {folders[0]} ({one_line(error)}); "
                f"{_ways_out(name, builder)}"
            ) from error
    return Path(builder.data_dir)


def construct(name: str, data_dir: Path) -> Any:
    """The TFDS builder of a name, nothing downloaded. Raises DatasetError if TFDS does not know it."""
    try:
        with quiet():
            return tfds.builder(name, data_dir=str(data_dir), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        close = difflib.get_close_matches(name, tfds.list_builders(with_community_datasets=False), n=5)
        hint = f"close names: {', '.join(close)}" if close else "no name is close"
        raise DatasetError(
            f"{name}: TFDS has no dataset of this name; {hint}; other sources: {OTHER_SOURCES}"
        ) from error
    except Exception as error:
        raise DatasetError(
            f"{name}: TFDS cannot load it ({one_line(error)}); other sources: {OTHER_SOURCES}"
        ) from error


def find_prepared(name: str, data_dir: Path) -> Path | None:
    """The prepared directory of a name in a data_dir: the version TFDS would make, else the newest there, else None."""
    base = data_dir / re.split("[/:]", name)[0]
    if not base.is_dir():
        return None
    try:
        directory = Path(construct(name, data_dir).data_dir)
    except DatasetError:
        return None
    if is_prepared(directory):
        return directory
    if ":" in name:
        return None
    versions = [path for path in directory.parent.glob("*.*.*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    versions = sorted(filter(is_prepared, versions), key=lambda path: [int(part) for part in path.name.split(".")])
    return versions[-1] if versions else None


def refuse_half_prepared(directory: Path) -> None:
    """Raises DatasetError for a directory without TFDS's descriptions, which TFDS would take for whole."""
    if directory.exists() and not is_prepared(directory):
        raise DatasetError(
            f"{directory}: expected a TFDS-prepared directory or none, it lacks dataset_info.json or features.json; "
            "remove it or choose another --data-dir"
        )


def refuse_unreachable(name: str, builder: Any, folders: list[Path]) -> None:
    """Raises DatasetError if TFDS cannot download this dataset by itself or none of its hosts answers."""
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        instructions = " ".join(builder.MANUAL_DOWNLOAD_INSTRUCTIONS.split())[:300]
        raise DatasetError(f"{name}: TFDS cannot download it by itself: {instructions}; {_ways_out(name, builder)}")
    urls = {urlsplit(url).netloc: url for url in builder.url_infos or {} if url.startswith(("http://", "https://"))}
    reasons = _probe(urls)
    if urls and len(reasons) == len(urls):
        host, reason = next(iter(reasons.items()))
        looked = " or ".join(str(folder) for folder in folders)
        raise DatasetError(
            f"{name}: not prepared in {looked}, and its download host {host} cannot be reached ({reason}); "
            f"{_ways_out(name, builder)}"
        )


def _ways_out(name: str, builder: Any) -> str:
    fetch = f"carry its archive in with `nightlens fetch {name} --archive FILE`, " if builder.url_infos else ""
    return (
        f"prepare it elsewhere and pass its folder with --data-dir, {fetch}or use an .npz, a folder of images, or "
        "--dataset digits"
    )


def _probe(urls: dict[str, str]) -> dict[str, str]:
    """Why each host, given with one of its URLs, does not answer; one that answers, whatever it says, is left out."""
    reasons = dict.fromkeys(urls, f"no answer within {PROBE_TIMEOUT_S:g} s")

    def ask(host: str, url: str) -> None:
        try:
            requests.head(url, timeout=PROBE_TIMEOUT_S).close()
            del reasons[host]
        except requests.RequestException as error:
            reasons[host] = type(error).__name__

    # Threads that nobody joins: a name server that does not answer blocks for longer than any timeout we can set.
    threads = [threading.Thread(target=ask, args=item, daemon=True) for item in urls.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PROBE_TIMEOUT_S + 1
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(reasons)
