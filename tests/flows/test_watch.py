"""The loop of `nightlens up`, step by step, with a worker that lives and news that the test makes."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.service.runs.lost_pages import NOT_WRITTEN
from flows.service.up import Watch

NOBODY = "http://127.0.0.1:9/api"


class IsOver(Exception):
    """The clock has come to its end."""


class Clock:
    """It moves on when somebody sleeps, a few times."""

    def __init__(self, n_steps: int) -> None:
        self.seconds, self.n_steps = 0.0, n_steps

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        if self.seconds >= self.n_steps:
            raise IsOver
        self.seconds += seconds


class News:
    """What each of the readings gives: lines, or an error."""

    def __init__(self, *readings: Callable[[], list[str]]) -> None:
        self.readings = iter(readings)
        self.ended_badly: list[UUID] = []

    def read(self, _: object) -> list[str]:
        return next(self.readings)()


class Pages:
    def __init__(self, *said: str) -> None:
        self.said = list(said)

    def go_on(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def want(self, _: object) -> None:
        pass


def watch(tmp_path: Path, news: News, pages: Pages, n_steps: int) -> None:
    """Lets the loop go on for some steps, in each of which it asks for news."""
    worker: Any = SimpleNamespace(is_alive=True, log=tmp_path / "worker.log")
    with (
        (tmp_path / "up.json").open("w+") as state,
        temporary_settings({PREFECT_API_URL: NOBODY}),
        pytest.raises(IsOver),
    ):
        Watch(None, worker, state, cast(Any, news), cast(Any, pages), Clock(n_steps), 1.0, 0.5).go_on()


def no_json() -> list[str]:
    return [json.loads("<html>Down for maintenance</html>")]


def no_object() -> list[str]:
    raise ObjectNotFound(http_exc=Exception("404"))


@pytest.mark.parametrize(
    ("failing", "name"), [(no_json, "JSONDecodeError"), (no_object, "ObjectNotFound")], ids=["no JSON", "no object"]
)
def test_an_answer_that_is_not_the_one_expected_is_a_line_and_not_the_end(
    failing: Callable[[], list[str]], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    watch(tmp_path, News(failing, failing, lambda: ["nightly 'a' began"]), Pages(), 3)
    out, err = capsys.readouterr()
    assert err == f"warning   http://127.0.0.1:9 does not say what becomes of runs ({name})\n"
    assert out == "server    http://127.0.0.1:9 answers again\nrun       nightly 'a' began\n"


def test_pages_that_could_not_be_written_are_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failure = f"{NOT_WRITTEN}no memory"
    watch(tmp_path, News(list), Pages(f"nightly {uuid4().hex} failed", failure), 1)
    out, err = capsys.readouterr()
    assert out.startswith("page      nightly ") and out.count("\n") == 1
    assert err == f"warning   {failure}\n"
