"""The doors of the house: a short README, rooms that are named, links that lead somewhere, messages that are the code's."""

import ast
import re
from pathlib import Path

import pytest

from documents import anchors, documents, fenced, links, table, text_of
from places import REPOSITORY

PACKAGES = sorted(
    path.parent.relative_to(REPOSITORY)
    for p in ("flows", "tasks", "storage")
    for path in (REPOSITORY / p).rglob("__init__.py")
)
MOST_LINES = 120
SOURCES = [path for package in ("flows", "tasks", "storage") for path in sorted((REPOSITORY / package).rglob("*.py"))]
OPERATORS = text_of("flows/README.md")
SYMPTOMS = [cells[0].strip("`") for cells in table(OPERATORS, "it says", "do")]


def rooms(docstring: str) -> dict[str, int]:
    """The modules and packages/ that a docstring has a line for, with the column in which what they are begins."""
    found = re.finditer(r"^(\w+/?) {2,}(?=\S)", docstring, re.MULTILINE)
    return {line.group(1): len(line.group()) for line in found}


def texts(source: str) -> list[str]:
    """Every string of a source, the values that are put into it as an ellipsis."""
    return [
        "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
        if isinstance(node, ast.JoinedStr)
        else str(node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    ]


def said_by(symptom: str, said: list[str]) -> bool:
    """Whether one of the texts is what the symptom quotes, an ellipsis for whatever stands there."""
    quoted = re.compile(".{0,80}?".join(re.escape(piece) for piece in symptom.split("…")), re.DOTALL)
    return any(quoted.search(re.sub(r"%(\.\d+)?[sdf]", "…", text)) for text in said)


@pytest.fixture(scope="module")
def said() -> list[str]:
    return [*(text for path in SOURCES for text in texts(path.read_text())), (REPOSITORY / "Makefile").read_text()]


def calls(name: str) -> set[str]:
    """The texts that functions of this name are called with first, or as `kind`."""
    return {
        value.value
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == name
        for value in (*node.args[:1], *(keyword.value for keyword in node.keywords if keyword.arg == "kind"))
        if isinstance(value, ast.Constant) and isinstance(value.value, str)
    }


def test_the_readme_is_a_door() -> None:
    assert len(text_of("README.md").splitlines()) <= MOST_LINES


def test_the_drawn_night_has_the_stages_of_the_flow() -> None:
    (drawing,) = fenced(text_of("README.md"), "mermaid")
    stages = re.findall(r'night\.stage\("(\w+)"\)', text_of("flows/nightly.py"))
    assert len(stages) == 10
    drawn = re.findall(rf"\b({'|'.join(stages)})\b", drawing)
    assert list(dict.fromkeys(drawn)) == stages


@pytest.mark.parametrize("package", PACKAGES, ids=str)
def test_a_package_says_what_its_rooms_are(package: Path) -> None:
    folder = REPOSITORY / package
    there = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    there |= {f"{path.parent.name}/" for path in folder.glob("*/__init__.py")}
    named = rooms(ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or "")
    assert set(named) == there
    assert len(set(named.values())) == 1, "the lines are not aligned"


def test_there_is_a_readme_in_each_package() -> None:
    expected = {"README.md", "CONTRIBUTING.md", "flows/README.md", "tasks/README.md", "tasks/numerics/README.md"}
    assert {*map(str, documents())} >= expected | {"storage/README.md", "tests/benchmarks/README.md"}


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_somewhere(document: Path) -> None:
    lost = []
    for link in links(text_of(document)):
        path, _, anchor = link.partition("#")
        target = (REPOSITORY / document).parent / path if path else REPOSITORY / document
        if not target.exists() or (anchor and anchor not in anchors(text_of(target))):
            lost.append(link)
    assert lost == []


def test_contributing_names_what_is_there() -> None:
    contributing = text_of("CONTRIBUTING.md")
    named = {
        code for code in re.findall(r"`([\w./-]+)`", contributing) if "/" in code or code.endswith((".py", ".toml"))
    }
    assert len(named) > 20
    assert {path for path in named if not (REPOSITORY / path).exists()} == set()


def test_contributing_names_what_is_in_the_files() -> None:
    rows = table(text_of("CONTRIBUTING.md"), "file", "what")
    assert len(rows) > 20
    for file, what in rows:
        path = REPOSITORY / file.strip("`")
        if path.suffix == ".py":
            names = re.findall(r"`(\w+)`", what)
            assert [name for name in names if not re.search(rf"\b{name}\b", path.read_text())] == [], file


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_what_it_says_is_what_the_code_says(symptom: str, said: list[str]) -> None:
    assert said_by(symptom, said)


def test_the_search_for_messages_finds_no_others(said: list[str]) -> None:
    assert len(SYMPTOMS) > 40
    assert not said_by("the moon is …", said)
    assert said_by("of … rows", ['f"{n} of {m} rows"', "3 of … rows are"])


def test_every_warning_and_every_page_is_explained() -> None:
    warnings, pages = table(OPERATORS, "kind", "when"), table(OPERATORS, "artifact", "what it shows")
    assert {cells[0].strip("`") for cells in warnings} == calls("NightWarning") - {"audit"}
    assert {name for cells in pages for name in re.findall(r"`([\w-]+)`", cells[0])} >= calls("Page")
