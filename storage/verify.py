"""Verifying a store: everything that can be known of it without the model, and all that is wrong at once.

In this order, each check collecting what it finds: the checksum file, the structure against the schema, every chunk's
checksum, the rows, the values, and whether the certificates agree with the attributions. The sha256 finds every change of
the bytes; the others say which rows are lost, and find what was wrong before the store was sealed. A store without its
checksum file is not sound: seal always writes one.
"""

import hashlib
import json
import re
from pathlib import Path

import h5py

from storage import reading
from storage.catalog import resolve_store
from storage.conformity import check_structure
from storage.consistency import check_consistency
from storage.contents import read_columns
from storage.errors import StoreError, StoreFormatError
from storage.findings import Finding, Progress
from storage.layout import read_attributes
from storage.rounding import EXPLICIT_BITS
from storage.schema import OLDEST_SCHEMA

__all__ = ["Finding", "verify_store"]

SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]?(\S.*)\n?")
BLOCK_BYTES = 1 << 20


def verify_store(path: Path | str, progress: Progress = lambda what, done, total: None) -> tuple[Finding, ...]:
    """All that is wrong with the store at `path`, () if it is sound.

    path: as open_store takes it. progress: called with what is read ("sha256", then "datasets"), bytes done, bytes in all.
    A file that is no store, or not one that this version reads, is a finding of the check "store".
    Raises StoreNotFound if there is nothing at `path`, OSError for what the system refuses.
    """
    resolved = resolve_store(path)
    checksum_file = resolved.with_name(f"{resolved.name}.sha256")
    findings = _check_sum(resolved, checksum_file, progress) if checksum_file.is_file() else []
    try:
        with reading.open_file(resolved) as file:
            attributes, schema = _check_header(file, resolved)
            if not checksum_file.is_file():
                detail = (
                    f"no checksum file {checksum_file.name} beside the store, which seal writes; restore it from a copy"
                )
                findings.append(Finding("sha256", "the file", detail))
            findings += _check_contents(file, resolved, attributes, schema, progress)
    except StoreError as error:
        findings.append(Finding("store", "the file", str(error)))
    return tuple(findings)


def _check_sum(path: Path, checksum_file: Path, progress: Progress) -> list[Finding]:
    """The sha256 of the file against the one in its checksum file, which has the format of sha256sum."""
    line = SUM_LINE.fullmatch(checksum_file.read_text(encoding="utf-8", errors="replace"))
    if line is None:
        detail = f"{checksum_file.name}: expected a line of sha256sum, a checksum and the name; restore it from a copy"
        return [Finding("sha256", "the checksum file", detail)]
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            progress("sha256", done, total)
    if digest.hexdigest() == line[1]:
        return []
    detail = (
        f"expected {line[1]}, got {digest.hexdigest()}: the bytes are not those that were sealed; {reading.RESTORE}"
    )
    return [Finding("sha256", "the file", detail)]


def _check_header(file: h5py.File, path: Path) -> tuple[dict[str, object], int]:
    with reading.named_damage(path, "the root attributes"):
        attributes = read_attributes(file)
    if "part_rows" in attributes:
        raise StoreFormatError(f"{path}: expected a sealed store, got one of its parts; verify attributions.h5")
    schema = reading.check_header(path, attributes, ["complete"], "a sealed store", oldest=OLDEST_SCHEMA)
    return attributes, schema


def _check_contents(
    file: h5py.File, path: Path, attributes: dict[str, object], schema: int, progress: Progress
) -> list[Finding]:
    findings, usable = check_structure(file, path, schema)
    bits = attributes.get("significant_bits")
    kept_bits = bits - 1 if isinstance(bits, int) and 2 <= bits <= EXPLICIT_BITS else None
    if isinstance(bits, int) and not 2 <= bits <= EXPLICIT_BITS + 1:
        findings.append(Finding("values", "significant_bits", f"expected 2 to {EXPLICIT_BITS + 1}, got {bits}"))
    columns, damage = read_columns(file, path, usable, kept_bits, progress)
    classes = columns["class"]
    n_classes = None if classes is None else len(classes.values)
    return findings + damage + check_consistency(columns, n_classes, _parsed(attributes.get("configuration")))


def _parsed(configuration: object) -> object:
    try:
        return json.loads(str(configuration))
    except ValueError:
        return None
