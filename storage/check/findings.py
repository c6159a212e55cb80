"""A finding: one thing about a store that is not as it should be, for people and for programs.

All checks of `nightlens verify` give findings, all of theirs, and go on. None is a warning only: a store with a finding
is not sound.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.errors import StoreError, name_rows
from storage.read import checked

__all__ = ["Finding", "noted"]


@dataclass(frozen=True)
class Finding:
    """What a check found. where: the dataset, group or attribute. rows: row numbers, where it is about rows.

    check: "store" (cannot be read as one), "part" (the same of a part of one), "sha256", "schema", "checksum", "rows",
        "values", "completeness", "converged", or of recomputing "recomputed" and "contract".
    """

    check: str
    where: str
    detail: str
    rows: tuple[int, ...] = ()

    def __str__(self) -> str:
        rows = f", rows {name_rows(self.rows)}" if self.rows else ""
        return f"{self.check}: {self.where}{rows}: {self.detail}"


@contextmanager
def noted(findings: list[Finding], check: str, path: Path, where: str) -> Iterator[None]:
    """Turn damage that the block meets into a finding, and go on after the block."""
    try:
        with checked.named_damage(path, where):
            yield
    except StoreError as error:
        findings.append(Finding(check, where, str(error)))
