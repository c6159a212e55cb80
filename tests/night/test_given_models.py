"""Nights of a given model: what is kept, what is computed anew, and what a failing part does."""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from flows.nightly import nightly
from night_record import recorded
from night_root import EARLIER, fails, left_behind
from storage import Catalog, check_part, open_store
from tasks import audit
from tasks import explain as explaining
from tasks.night import explanations_bar
from tasks.night.outage import Outage
from tasks.numerics.references import missing_references
from tasks.pages import page
from tasks.parts import compute
from tasks.parts.methods import integrated_gradients_rows

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are retried as often as in production, but at once."""
    monkeypatch.setattr(explaining.explain_part, "retry_delay_seconds", [0.0] * explaining.RETRIES)
    monkeypatch.setattr(explaining.explain_part, "retries", explaining.RETRIES)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The rows of every part that is written, in order; an attempt that fails counts too."""
    written: list[tuple[int, int]] = []
    write = compute.write_part

    def counting(path: Path, start: int, stop: int, *arguments: Any, **named: Any) -> None:
        written.append((start, stop))
        write(path, start, stop, *arguments, **named)

    monkeypatch.setattr(compute, "write_part", counting)
    return written


def test_a_changed_setting_uses_other_parts(
    parameters: Callable[..., dict], root: Path, computed: list[tuple[int, int]]
) -> None:
    nightly(**parameters())
    first = left_behind(root)
    other = nightly(**parameters(integrated_gradients={"exponent": 2}))
    assert sorted(computed) == sorted([(0, 8), (8, 16), (16, 20)] * 2)
    assert len(list((root / "parts").iterdir())) == 2
    assert {name: there for name, there in left_behind(root).items() if name in first and "latest" not in name} == {
        name: there for name, there in first.items() if "latest" not in name
    }
    with open_store(root / "latest") as store:
        assert store.attributes["run_id"] == other.night_id
        assert store.attributes["configuration"]["integrated_gradients"]["exponent"] == 2


def test_only_missing_and_damaged_parts_are_computed(
    parameters: Callable[..., dict], root: Path, computed: list[tuple[int, int]]
) -> None:
    nightly(**parameters(run={"rows": "0:16"}))
    assert sorted(computed) == [(0, 8), (8, 16)]
    (part,) = root.glob("parts/*/rows-000008-000016.h5")
    part.write_bytes(part.read_bytes()[:-1000])
    del computed[:]
    result = nightly(**parameters())
    assert sorted(computed) == [(8, 16), (16, 20)]
    with open_store(result.store) as store:
        np.testing.assert_array_equal(store.row_numbers, np.arange(20))


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize(
    ("error", "attempts"),
    [(OSError(28, "No space left on device"), 3), (ValueError("row 11 is not finite"), 1)],
    ids=["OSError-retried-twice", "ValueError-not-retried"],
)
def test_one_failing_part_fails_the_night_and_the_next_run_finishes_it(
    parameters: Callable[..., dict],
    root: Path,
    computed: list[tuple[int, int]],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    attempts: int,
) -> None:
    before = left_behind(root)
    write = compute.write_part

    def failing(path: Path, start: int, stop: int, *arguments: Any, **named: Any) -> None:
        if start == 8:
            computed.append((start, stop))
            raise error
        write(path, start, stop, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "write_part", failing)
        message = fails(parameters())
    assert "ExplanationError: 1 of 3 parts failed, rows 8 to 15" in message
    assert f"{type(error).__name__}: {error}" in message
    assert computed.count((8, 16)) == attempts
    assert Catalog(root).latest().name == EARLIER
    kept = set(left_behind(root)) - set(before)
    assert {Path(name).name for name in kept} == {"rows-000000-000008.h5", "rows-000016-000020.h5"}
    digest = Path(next(iter(kept))).parent.name
    assert check_part(root / "parts" / digest / "rows-000000-000008.h5", digest=digest, start=0, stop=8) is None

    del computed[:]
    result = nightly(**parameters())
    assert computed == [(8, 16)]
    assert Catalog(root).latest() == result.store.parent
    with open_store(result.store) as store:
        np.testing.assert_array_equal(store.row_numbers, np.arange(20))


@pytest.mark.usefixtures("quick_retries")
def test_all_failing_rows_are_named(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(path: Path, start: int, *_: Any, **__: Any) -> None:
        raise ValueError(f"row {start} is bad")

    monkeypatch.setattr(compute, "write_part", failing)
    before = left_behind(root)
    message = fails(parameters())
    assert (
        "3 of 3 parts failed, rows 0 to 7, 8 to 15, 16 to 19; first cause (rows 0 to 7): ValueError: row 0 is"
        in message
    )
    assert "run again to compute what is missing" in message
    assert left_behind(root) == before


@pytest.mark.usefixtures("quick_retries")
def test_a_hiccup_of_the_disk_is_survived(parameters: Callable[..., dict], monkeypatch: pytest.MonkeyPatch) -> None:
    write, hiccups = compute.write_part, iter([True, True])

    def hiccup(path: Path, start: int, *arguments: Any, **named: Any) -> None:
        if start == 8 and next(hiccups, False):
            raise OSError(5, "Input/output error")
        write(path, start, *arguments, **named)

    monkeypatch.setattr(compute, "write_part", hiccup)
    result = nightly(**parameters())
    assert result.n_rows == 20
    _, tasks, _ = recorded(result.flow_run_id, n_tasks=11)
    assert {task.name: task.run_count for task in tasks if task.name.startswith("rows")} == {
        "rows-0-to-8": 1,
        "rows-8-to-16": 3,
        "rows-16-to-20": 1,
    }


@pytest.mark.usefixtures("quick_retries")
def test_a_disk_without_space_fails_the_night_and_leaves_nothing_half_written(
    parameters: Callable[..., dict], root: Path
) -> None:
    """A limit on the size of files: writing a part then fails as it does on a full disk."""
    before = left_behind(root)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, hard))
    try:
        message = fails(parameters())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "parts failed, rows 0 to 7, 8 to 15" in message
    assert "File too large" in message
    assert {Path(name).name for name in set(left_behind(root)) - set(before)} <= {"rows-000016-000020.h5"}
    assert Catalog(root).latest().name == EARLIER
    assert not list(root.rglob("*.tmp"))


def test_a_failing_audit_keeps_latest_and_the_store(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing_references():
        pytest.skip("needs the extra 'reference'")
    monkeypatch.setattr(
        integrated_gradients_rows, "alibi_integrated_gradients", lambda _model, images, *_, **__: np.zeros_like(images)
    )
    message = fails(parameters(run={"rows": "0:8"}, audit={"n_rows": 2}))
    assert "AuditError: the audit failed: rows [" in message
    assert "alibi returned zeros for all of rows" in message
    assert Catalog(root).latest().name == EARLIER
    assert len(Catalog(root).list_nights()) == 2  # the store is kept, to be looked at


def test_without_the_references_the_night_is_sealed_and_says_why(
    parameters: Callable[..., dict], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "missing_references", lambda: ["alibi", "tf-explain"])
    result = nightly(**parameters(run={"rows": "0:8"}, audit={"n_rows": 8}))
    assert result.audit == "not audited: alibi, tf-explain not installed (extra 'reference')"
    assert result.verdict.startswith("sealed with warnings: ") and result.verdict.endswith(f"; {result.audit}")
    assert Catalog(root).latest() == result.store.parent
    _, _, artifacts = recorded(result.flow_run_id, n_tasks=9)
    pages = {artifact.key: str(artifact.data) for artifact in artifacts}
    assert "not audited: alibi, tf-explain not installed" in pages["audit"]
    assert "not audited: alibi, tf-explain not installed" in pages["night"]


def test_pages_that_cannot_be_uploaded_do_not_fail_the_night(
    parameters: Callable[..., dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise httpx.ReadTimeout("the server is busy")

    monkeypatch.setattr(page, "create_markdown_artifact", refuse)
    monkeypatch.setattr(explanations_bar, "create_progress_artifact", refuse)
    monkeypatch.setattr(Outage.finish, "__defaults__", (1.0,))
    result = nightly(**parameters(run={"rows": "0:8"}, gallery={"draw": True, "spotlight": [1], "per_class": 0}))
    assert result.verdict.startswith("sealed")
    assert (result.store.parent / "night.json").is_file()
    assert list(result.gallery.glob("*.png"))
