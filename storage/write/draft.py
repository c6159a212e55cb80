"""A draft: the parts of a night as one store, where they lie, for what looks at all rows before they are sealed.

It is a virtual store (see storage.read.parts.linked_parts) beside the folder of its parts, of which nothing is copied but what
is a few numbers a row. Its attributes say of the night what its maker gives, and it goes when it was looked at.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from storage.file.layout import fixed_texts, to_json
from storage.file.schema import ROOT_ATTRIBUTES, SCHEMA_VERSION
from storage.read.parts.linked_parts import LinkedPart
from storage.read.parts.part_summary import PartSummary
from storage.write.filling import check_parts, fill_store

__all__ = ["drafted"]

NO_ATTRIBUTES: Mapping[str, str] = {}
NOTHING: dict[str, str | int] = {"text": "", "integer": 0, "json": to_json({})}


@contextmanager
def drafted(
    parts: Sequence[Path],
    name: str,
    *,
    class_names: Sequence[str],
    expected_rows: tuple[int, int],
    attributes: Mapping[str, str] = NO_ATTRIBUTES,
) -> Iterator[Path]:
    """The path of a store of the parts, while the context lasts. name: nobody else's who drafts the same parts.

    attributes: texts that are known already. parts, class_names, expected_rows: as of `seal_store`, and so what is raised.
    """
    summaries = check_parts(parts, expected_rows)
    folder = summaries[0].path.parent
    path = folder.parent / f"{folder.name}.{name}.draft.h5"
    given = {attribute.name: NOTHING[attribute.kind] for attribute in ROOT_ATTRIBUTES if attribute.given}
    about = {
        "schema": SCHEMA_VERSION,
        "complete": 0,
        "title": "draft",
        "digest": summaries[0].digest,
        **given,
        **attributes,
    }
    path.unlink(missing_ok=True)
    try:
        lines = [_line(summary) for summary in summaries]
        fill_store(path, summaries, summaries[0].sizes, fixed_texts(class_names), about, lines)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _line(part: PartSummary) -> LinkedPart:
    name = f"{part.path.parent.name}/{part.path.name}"
    return LinkedPart(name, part.start, part.stop, part.path.stat().st_size, sha256="")
