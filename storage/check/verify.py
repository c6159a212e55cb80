"""Verifying a store: everything that can be known of it without the model, and all that is wrong at once.

In this order, each check collecting what it finds: the checksum file, the structure against the schema, every chunk's
checksum, the rows, the values, and whether the certificates agree with the attributions. The sha256 finds every change of
the bytes; the others say which rows are lost, and find what was wrong before the store was sealed. A store without its
checksum file is not sound: seal always writes one. Of a virtual store the files of the parts are checked likewise, each by
its own sha256, before what is in them.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import h5py

from storage.check.columns import read_columns
from storage.check.conformity import check_structure
from storage.check.consistency import check_consistency
from storage.check.findings import Finding, noted
from storage.check.part_check import CheckedParts
from storage.errors import StoreError, StoreFormatError
from storage.file.added_tables import PARTS
from storage.file.catalog import resolve_store
from storage.file.layout import read_attributes
from storage.file.rounding import EXPLICIT_BITS
from storage.file.schema import OLDEST_SCHEMA
from storage.read import checked
from storage.read.parts.linked_parts import LinkedPart, read_table
from storage.read.parts.part_files import PartFiles
from storage.read.progress_line import Progress, reporting

__all__ = ["Finding", "verify_store"]

SUM_LINE = re.compile(r"([0-9a-f]{64}) [ *]?(\S.*)\n?")
BLOCK_BYTES = 1 << 20


def verify_store(path: Path | str, progress: Progress | bool = False) -> tuple[Finding, ...]:
    """All that is wrong with the store at `path`, () if it is sound.

    path: as open_store takes it.
    progress: called with what is read ("sha256", "parts" if there are, then "datasets"), bytes done, bytes in all; True writes
        that on stderr.
    A file that is no store, or not one that this version reads, is a finding of the check "store".
    Raises StoreNotFound if there is nothing at `path`, OSError for what the system refuses.
    """
    resolved, report = resolve_store(path), reporting(progress)
    checksum_file = resolved.with_name(f"{resolved.name}.sha256")
    findings = _check_sum(resolved, checksum_file, report) if checksum_file.is_file() else []
    table: tuple[LinkedPart, ...] = ()
    try:
        with checked.open_file(resolved) as file:
            attributes, schema = _check_header(file, resolved)
            if not checksum_file.is_file():
                detail = (
                    f"no checksum file {checksum_file.name} beside the store, which seal writes; restore it from a copy"
                )
                findings.append(Finding("sha256", "the file", detail))
            with noted(findings, "schema", resolved, PARTS.group):
                table = read_table(file, resolved)
            findings += _check_lines(checksum_file, table)
            findings += _check_contents(file, resolved, attributes, schema, table, report)
    except StoreError as error:
        findings.append(Finding("store", "the file", str(error)))
    return tuple(findings)


def _check_sum(path: Path, checksum_file: Path, progress: Progress) -> list[Finding]:
    """The sha256 of the file against the one in its checksum file, which has the format of sha256sum."""
    lines = _sums(checksum_file)
    if not lines:
        detail = "expected a line of sha256sum for each file, a checksum and its name; restore it from a copy"
        return [Finding("sha256", "the checksum file", f"{checksum_file.name}: {detail}")]
    expected = lines[0][0]
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            progress("sha256", done, total)
    if digest.hexdigest() == expected:
        return []
    detail = (
        f"expected {expected}, got {digest.hexdigest()}: the bytes are not those that were sealed; {checked.RESTORE}"
    )
    return [Finding("sha256", "the file", detail)]


def _sums(checksum_file: Path) -> list[tuple[str, str]]:
    """Checksum and name of each line, the store's first; empty if any of them is not a line of sha256sum."""
    lines = checksum_file.read_text(encoding="utf-8", errors="replace").splitlines()
    found = [match for line in lines if (match := SUM_LINE.fullmatch(line))]
    return [(match[1], match[2]) for match in found] if len(found) == len(lines) else []


def _check_lines(checksum_file: Path, table: Sequence[LinkedPart]) -> list[Finding]:
    """Whether the checksum file has after the store's own line those of its parts, as the table has them."""
    lines = _sums(checksum_file) if checksum_file.is_file() else []
    if not lines or lines[1:] == [(part.sha256, part.name) for part in table]:
        return []
    expected = f"the store's line and those of its {len(table)} parts" if table else "one line, the store's"
    detail = f"{checksum_file.name}: expected {expected}, got {len(lines)} lines with others; restore it from a copy"
    return [Finding("sha256", "the checksum file", detail)]


def _check_header(file: h5py.File, path: Path) -> tuple[dict[str, object], int]:
    with checked.named_damage(path, "the root attributes"):
        attributes = read_attributes(file)
    if "part_rows" in attributes:
        raise StoreFormatError(f"{path}: expected a sealed store, got one of its parts; verify attributions.h5")
    schema = checked.check_header(path, attributes, ["complete"], "a sealed store", oldest=OLDEST_SCHEMA)
    return attributes, schema


def _check_contents(
    file: h5py.File,
    path: Path,
    attributes: dict[str, object],
    schema: int,
    table: Sequence[LinkedPart],
    progress: Progress,
) -> list[Finding]:
    findings, usable = check_structure(file, path, schema, is_virtual=bool(table))
    bits = attributes.get("significant_bits")
    kept_bits = bits - 1 if isinstance(bits, int) and 2 <= bits <= EXPLICIT_BITS else None
    if isinstance(bits, int) and not 2 <= bits <= EXPLICIT_BITS + 1:
        findings.append(Finding("values", "significant_bits", f"expected 2 to {EXPLICIT_BITS + 1}, got {bits}"))
    sizes = {variable.path: len(file[variable.path]) for variable in usable if variable.is_coordinate}
    with closing(PartFiles(path, table, str(attributes.get("digest")), sizes)) as files:
        parts = CheckedParts(files, path.parent) if table else None
        findings += parts.check_files(progress) if parts else []
        columns, damage = read_columns(file, path, usable, kept_bits, progress, parts)
        damage += parts.check_mappings(file, path, usable, columns.numbers) if parts else []
    classes = columns["class"]
    n_classes = None if classes is None else len(classes.values)
    return findings + damage + check_consistency(columns, n_classes, _parsed(attributes.get("configuration")))


def _parsed(configuration: object) -> object:
    try:
        return json.loads(str(configuration))
    except ValueError:
        return None
