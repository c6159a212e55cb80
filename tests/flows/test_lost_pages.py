"""The process that writes pages of lost nights, as `up` starts it and asks for it again; another program stands in for it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from flows.service.runs.lost_pages import AGAIN_AFTER_S, BUSY, MOST_RUNS, NOT_WRITTEN, LostPages

# It writes down what it was asked for, and ends as the file `code` says.
PROGRAM = """
import sys
from pathlib import Path
root, *run_ids = sys.argv[1:]
with (Path(root) / "asked").open("a") as asked:
    print(*run_ids, file=asked)
sys.exit(int((Path(root) / "code").read_text()))
"""


class Site:
    """A root, the pages of it, a clock that the test moves on, and the program's exit code."""

    def __init__(self, root: Path, *program: str) -> None:
        self.root, self.seconds = root, 0.0
        self.pages = LostPages(root, program, lambda: self.seconds)
        self.ends_with(0)

    def ends_with(self, code: int) -> None:
        (self.root / "code").write_text(str(code))

    def asked(self) -> list[list[str]]:
        """For which runs each process was started."""
        path = self.root / "asked"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def said_at_the_end(self) -> list[str]:
        """What is said when the process that goes on has ended; the next one is started then, if it is."""
        process = self.pages._process
        assert process
        process.wait(120)
        return self.pages.go_on()

    @property
    def goes_on(self) -> bool:
        return self.pages._process is not None


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, sys.executable, "-S", "-c", PROGRAM)
    yield site
    site.pages.stop()


@pytest.fixture
def run_id() -> UUID:
    return uuid4()


def ask(site: Site, code: int) -> list[str]:
    """What is said of a process that ends with this code, and is the only one."""
    site.ends_with(code)
    assert site.pages.go_on() == []
    return site.said_at_the_end()


def test_what_a_process_could_not_do_is_asked_for_until_one_has_done_it(site: Site, run_id: UUID) -> None:
    assert ask(site, 0) == [], "all that are missing"
    site.pages.want([run_id])
    assert ask(site, 1) == [f"{NOT_WRITTEN}exit code 1"]
    site.seconds += AGAIN_AFTER_S
    assert ask(site, 0) == []
    site.seconds += AGAIN_AFTER_S
    assert site.pages.go_on() == [] and not site.goes_on
    assert site.asked() == [[], [str(run_id)], [str(run_id)]]


def test_all_that_are_missing_are_asked_for_until_one_has_looked_for_them(site: Site, run_id: UUID) -> None:
    assert len(ask(site, 1)) == 1
    site.pages.want([run_id])
    site.seconds += AGAIN_AFTER_S
    assert ask(site, 0) == []
    assert site.said_at_the_end() == []
    assert site.asked() == [[], [], [str(run_id)]]


def test_a_process_that_fails_again_and_again_is_started_once_a_minute_and_spoken_of_once(site: Site) -> None:
    assert ask(site, 1) == [f"{NOT_WRITTEN}exit code 1"]
    site.seconds += AGAIN_AFTER_S - 1
    assert site.pages.go_on() == [] and not site.goes_on
    site.seconds += 1
    assert ask(site, 1) == []
    site.seconds += AGAIN_AFTER_S
    assert ask(site, 2) == [f"{NOT_WRITTEN}exit code 2"], "another failure"
    site.seconds += AGAIN_AFTER_S
    assert ask(site, 0) == []
    site.pages.want([uuid4()])
    assert ask(site, 2) == [f"{NOT_WRITTEN}exit code 2"], "after a success"


def test_where_another_is_at_it_nothing_is_said_and_it_is_asked_for_again(site: Site, run_id: UUID) -> None:
    assert ask(site, 0) == []
    site.pages.want([run_id])
    assert ask(site, BUSY) == []
    assert site.pages.go_on() == [] and not site.goes_on
    site.seconds += AGAIN_AFTER_S
    assert ask(site, 0) == []
    assert site.asked() == [[], [str(run_id)], [str(run_id)]]


def test_more_runs_than_a_process_takes_are_asked_for_in_turn(site: Site) -> None:
    run_ids = [uuid4() for _ in range(2 * MOST_RUNS + 1)]
    site.pages.want(run_ids)
    assert ask(site, 0) == []
    while site.goes_on:
        site.said_at_the_end()
    assert [len(asked) for asked in site.asked()] == [0, MOST_RUNS, MOST_RUNS, 1]
    assert [word for asked in site.asked() for word in asked] == [str(run_id) for run_id in run_ids]


def test_a_process_says_more_than_a_pipe_holds(tmp_path: Path) -> None:
    site = Site(tmp_path, sys.executable, "-S", "-c", "for k in range(100_000): print('page', k)")
    assert site.pages.go_on() == []
    try:
        said = site.said_at_the_end()
    except subprocess.TimeoutExpired:
        site.pages.stop()
        raise
    assert said == [f"page {k}" for k in range(100_000)]


def test_a_program_that_does_not_start_is_said_once(tmp_path: Path) -> None:
    site = Site(tmp_path, str(tmp_path / "none"))
    (said,) = site.pages.go_on()
    assert said.startswith(f"{NOT_WRITTEN}[Errno 2] No such file or directory")
    site.seconds += AGAIN_AFTER_S
    assert site.pages.go_on() == []
