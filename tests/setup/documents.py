"""The project's Markdown: its files, their headings, links, code blocks and tables."""

import re
from collections.abc import Iterator
from pathlib import Path

from places import REPOSITORY

NOT_OURS = ("nightlens-data", "node_modules")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def documents() -> list[Path]:
    """Every Markdown file of the checkout, but those of environments and nights."""
    found = (path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.md"))
    return sorted(path for path in found if not any(p.startswith(".") or p in NOT_OURS for p in path.parts))


def text_of(document: str | Path) -> str:
    return (REPOSITORY / document).read_text(encoding="utf-8")


def fenced(text: str, language: str) -> list[str]:
    """The contents of the blocks of a language."""
    return [block for name, block in FENCED.findall(text) if name == language]


def anchors(text: str) -> set[str]:
    """The headings as code hosts spell them in links: lower case, hyphens for spaces, without punctuation."""
    headings = re.findall(r"^#+ +(.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text: str) -> list[str]:
    """Where links and pictures point, but not those to the web."""
    targets = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))
    return [target for target in targets if not re.match(r"https?://", target)]


def table(text: str, *head: str) -> list[list[str]]:
    """The rows of all tables with this head, each a list of cells."""
    rows: list[list[str]] = []
    inside = False
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
        if cells == list(head):
            inside = True
        elif not cells:
            inside = False
        elif inside and not set(line) <= set("|- "):
            rows.append(cells)
    return rows


def command_lines(text: str) -> Iterator[str]:
    """What a reader would type: lines of indented blocks, and what stands between backticks."""
    prose = FENCED.sub("", text)
    yield from (line.strip() for line in prose.splitlines() if line.startswith("    "))
    yield from (" ".join(code.split()) for code in re.findall(r"`([^`\n]+)`", prose))
