"""What the READMEs have people type: Python runs as it stands, on a store where `make run` leaves one, and commands exist."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from documents import command_lines, documents, fenced, text_of
from example_store import ATTRIBUTES, CLASS_NAMES, write_parts
from flows.cli import app
from places import REPOSITORY
from storage import Catalog, seal_store

EXAMPLES = {
    re.findall(r"import (\w+)", example)[0]: example
    for document in ("README.md", "storage/README.md")
    for example in fenced(text_of(document), "python")
}
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LINES = sorted({line for document in documents() for line in command_lines(text_of(document))})
OURS = [line for line in LINES if re.match(r"nightlens \w", line)]
BENCHMARKS = [line for line in LINES if line.startswith("python tests/benchmarks/")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nightlens-data in it, as after a night of 160 rows."""
    folder = tmp_path_factory.mktemp("readme")
    catalog = Catalog(folder / "nightlens-data")
    night = catalog.night_dir("20261123T020000Z-ab12cd")
    night.mkdir(parents=True)
    seal_store(
        night / "attributions.h5",
        write_parts(folder, 0, 160),
        class_names=CLASS_NAMES,
        attributes=ATTRIBUTES,
        expected_rows=(0, 160),
    )
    catalog.point_latest(night)
    return folder


def typed(line: str) -> list[str]:
    """The words of a command, without its comment, where its input comes from and its output goes."""
    words = shlex.split(line, comments=True)
    ends = [k for k, word in enumerate(words) if word in ("|", "<", ">", "2>", "||")]
    return words[: min(ends, default=len(words))]


def test_there_is_an_example_for_each_way_to_read() -> None:
    assert list(EXAMPLES) == ["nightlens", "open_store", "h5py", "xarray"]


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)
def test_example_runs(example: str, folder: Path) -> None:
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_first_example_shows_completeness(folder: Path) -> None:
    """The line that it prints last: sum of the attribution = difference of the score + gap."""
    command = [sys.executable, "-c", EXAMPLES["nightlens"]]
    done = subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True)
    total, difference, gap = (float(number) for number in re.split(" [=+] ", done.stdout.splitlines()[-1]))
    assert total == pytest.approx(difference + gap, abs=1e-3)
    assert (folder / "least-sure.png").stat().st_size > 10_000


@pytest.mark.parametrize("line", OURS)
def test_a_command_and_its_options_exist(line: str) -> None:
    _, name, *arguments = typed(line)
    command = COMMANDS[name]
    context = command.context_class(command, info_name=name)
    _, left, _ = command.make_parser(context).parse_args(arguments)
    assert left == []


@pytest.mark.parametrize("line", BENCHMARKS)
def test_a_benchmark_and_its_options_exist(line: str) -> None:
    _, file, *arguments = typed(line)
    source = text_of(file)
    options = [word[2:].replace("-", "_") for word in arguments if word.startswith("--") and word != "--help"]
    assert [option for option in options if not re.search(rf"^    {option}: ", source, re.MULTILINE)] == []


def test_every_target_of_make_exists() -> None:
    targets = {words[1] for line in LINES if (words := line.split())[:1] == ["make"] and len(words) > 1}
    makefile = text_of("Makefile")
    assert targets >= {"run", "test", "check", "lock", "bench"}
    assert {target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)} == set()


def test_the_documents_have_commands() -> None:
    assert len(OURS) > 40
    assert len(BENCHMARKS) >= 10
