"""Results that are kept: read instead of measured while nothing changed, and never believed where they are damaged."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from tasks.worth.known import kept_results
from tasks.worth.known.kept_results import FOLDER, kept
from tasks.worth.known.known_results import Sanity


class Number(BaseModel):
    """A result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: float | None
    note: str = ""


class Measured:
    """Measures another number every time, and knows how often it did."""

    def __init__(self) -> None:
        self.n = 0

    def __call__(self) -> Number:
        self.n += 1
        return Number(value=self.n + 0.125)


@pytest.fixture
def measure() -> Measured:
    return Measured()


@pytest.fixture(autouse=True)
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What is logged, outside a run."""
    monkeypatch.setattr(kept_results, "get_run_logger", lambda: logging.getLogger("nightlens.test"))
    return caplog


def test_what_is_kept_is_not_measured_again(tmp_path: Path, measure: Measured) -> None:
    settings = {"model": "c0de", "rows": [0, 20]}
    assert [kept(tmp_path, Number, settings, measure).value for _ in "ab"] == [1.125, 1.125]
    assert kept(tmp_path, Number, {"rows": [0, 20], "model": "c0de"}, measure).value == 1.125
    assert measure.n == 1
    (file,) = (tmp_path / FOLDER).iterdir()
    assert file.name.startswith("number-")


def test_other_settings_another_kind_and_another_root_are_measured(tmp_path: Path, measure: Measured) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    assert kept(one, Number, {"rows": 20}, measure).value == 1.125
    assert kept(one, Number, {"rows": 21}, measure).value == 2.125
    assert kept(other, Number, {"rows": 20}, measure).value == 3.125
    sanity = Sanity(medians=(), n_rows=0, note="none")
    assert kept(one, Sanity, {"rows": 20}, lambda: sanity) == sanity
    assert kept(one, Number, {"rows": 20}, measure).value == 1.125


def test_nothing_is_kept_of_what_fails(tmp_path: Path, measure: Measured) -> None:
    def fail() -> Number:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        kept(tmp_path, Number, {}, fail)
    assert kept(tmp_path, Number, {}, measure).value == 1.125


def replaced(old: str, new: str) -> Callable[[bytes], bytes]:
    def spoil(data: bytes) -> bytes:
        assert old.encode() in data
        return data.replace(old.encode(), new.encode())

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\xff\xfe\x80" + data,
        lambda data: b"\0" * len(data),
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: json.dumps({"value": 9.0, "note": ""}).encode(),
        replaced("1.125", "1.625"),
        replaced("1.125", "null"),
        replaced('"note": ""', '"note": "x"'),
        replaced('"value"', '"valve"'),
    ],
    ids=[
        *("empty", "cut", "no text", "zeros", "a list", "an object", "of another writer"),
        *("a digit", "null", "a word", "a key"),
    ],
)
def test_a_damaged_result_is_measured_anew_and_it_is_said(
    tmp_path: Path, measure: Measured, logged: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    kept(tmp_path, Number, {}, measure)
    (file,) = (tmp_path / FOLDER).iterdir()
    file.write_bytes(spoil(file.read_bytes()))
    assert kept(tmp_path, Number, {}, measure).value == 2.125
    assert f"{file} cannot be read and is measured again" in logged.text
    assert len(logged.records) == 1
    assert kept(tmp_path, Number, {}, measure).value == 2.125
    assert measure.n == 2
