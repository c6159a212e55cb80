"""Preparing a TFDS dataset from archives that somebody carried in by hand, where the machine has no network.

Convention: an archive is recognised by its size and SHA-256 as TFDS recorded them, never by its name, and before
anything is unpacked. TFDS's own code does the rest, so the result is what a download would have given.
"""

import hashlib
import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tensorflow_datasets as tfds
from etils import epath

from tasks.datasets.conversion import is_prepared, locked, quiet
from tasks.datasets.dataset import DatasetError
from tasks.datasets.formats.named import construct, refuse_half_prepared
from tasks.datasets.prepared_rows import classification_keys, one_line

__all__ = ["fetch"]

logger = logging.getLogger("nightlens")


def fetch(name: str, archives: Path | Sequence[Path], root: Path, data_dir: Path | None = None) -> Path:
    """Prepares a TFDS dataset from its archives, whatever they are called, and returns the prepared directory.

    It goes to data_dir or root/datasets, where `prepare` finds it.
    Raises DatasetError for an archive that is not TFDS's (with both checksums), for archives that are missing (with
    their URLs), and for a dataset that TFDS has no checksums of or that is not for image classification.
    """
    folder = (data_dir or root / "datasets").expanduser().resolve()
    builder = construct(name, folder)
    classification_keys(builder.info)
    url_infos = builder.url_infos
    if not url_infos:
        raise DatasetError(
            f"{name}: TFDS has recorded no checksums to recognise its archives by; prepare it where there is a network "
            "and pass its folder with --data-dir"
        )
    carried = _match(name, [archives] if isinstance(archives, Path) else archives, url_infos)
    directory = Path(builder.data_dir)
    with locked(folder, re.sub(r"\W", "-", name)):
        if is_prepared(directory):
            return directory
        refuse_half_prepared(directory)
        logger.info("preparing %s from %d archives in %s", name, len(set(carried.values())), directory)
        # Unpacked into a folder of its own: TFDS would reuse an older unpacking of any archive with the same file name.
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            _prepare(name, builder, carried, Path(scratch))
    return directory


def _match(name: str, archives: Sequence[Path], url_infos: Mapping[str, Any]) -> dict[str, Path]:
    """The archive of each URL that one was given for."""
    carried: dict[str, Path] = {}
    for path in archives:
        if not path.is_file():
            raise DatasetError(f"{path}: no such file; expected an archive of {name}: {_expected(url_infos)}")
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        urls = [
            url
            for url, info in url_infos.items()
            if info.checksum == checksum and int(info.size) == path.stat().st_size
        ]
        if not urls:
            raise DatasetError(
                f"{path}: not an archive of {name}, found {path.stat().st_size} bytes with sha256 {checksum}; "
                f"expected {_expected(url_infos)}; download it again"
            )
        carried |= dict.fromkeys(urls, path.resolve())
    return carried


def _expected(url_infos: Mapping[str, Any]) -> str:
    found = [
        f"{url} ({int(info.size)} bytes, sha256 {info.checksum})" if info else f"{url} (no checksum recorded)"
        for url, info in url_infos.items()
    ]
    return " or ".join(found[:4]) + (f" or one of {len(found) - 4} more" if len(found) > 4 else "")


def _prepare(name: str, builder: Any, carried: Mapping[str, Path], scratch: Path) -> None:
    manager = _CarriedIn(name, builder, carried, scratch)
    # TFDS has no public way to hand a builder another download manager.
    builder._make_download_manager = lambda **_: manager
    try:
        with quiet():
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"{name}: TFDS could not prepare it from the archives ({one_line(error)})") from error


class _CarriedIn(tfds.download.DownloadManager):
    """A TFDS download manager that finds the archives carried in and refuses to download any other."""

    def __init__(self, name: str, builder: Any, carried: Mapping[str, Path], scratch: Path) -> None:
        self._name, self._known, self._carried = name, builder.url_infos, carried
        self._links: dict[str, Any] = {}
        manual = scratch / "manual"
        for url, archive in carried.items():
            info = builder.url_infos[url]
            # TFDS tells how to unpack a file from its name, and users rename files.
            file_name = info.filename or Path(urlsplit(url).path).name
            for link in (scratch / info.checksum / file_name, manual / file_name):
                link.parent.mkdir(parents=True, exist_ok=True)
                link.unlink(missing_ok=True)
                link.symlink_to(archive)
            self._links[info.checksum] = epath.Path(scratch / info.checksum / file_name)
        super().__init__(
            download_dir=scratch / "downloads",
            manual_dir=manual,
            manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
            url_infos=builder.url_infos,
            dataset_name=builder.name,
        )

    def download(self, url_or_urls: Any) -> Any:
        """The paths of the archives, in the structure of the URLs. Raises DatasetError naming those not carried in."""
        self._refuse_missing(url_or_urls)
        return super().download(url_or_urls)

    def download_and_extract(self, url_or_urls: Any) -> Any:
        """The paths of the unpacked archives, likewise."""
        self._refuse_missing(url_or_urls)
        return super().download_and_extract(url_or_urls)

    def _get_manually_downloaded_path(self, expected_url_info: Any) -> Any:
        return self._links.get(expected_url_info.checksum) if expected_url_info else None

    def _refuse_missing(self, url_or_urls: Any) -> None:
        missing = {url: self._known.get(url) for url in _flat(url_or_urls) if url not in self._carried}
        if missing:
            raise DatasetError(
                f"{self._name}: {len(missing)} archives are missing: {_expected(missing)}; pass each with --archive"
            )


def _flat(urls: Any) -> Iterator[str]:
    """The URLs in a structure of strings and TFDS resources."""
    if isinstance(urls, Mapping):
        urls = list(urls.values())
    if isinstance(urls, (list, tuple)):
        for item in urls:
            yield from _flat(item)
    else:
        yield urls if isinstance(urls, str) else urls.url
