"""A night killed anywhere: what it leaves is whole, and the same run afterwards ends as if nothing had happened.

The real flow is killed by SIGKILL before every fsync, rename and symlink of parts, seal and `latest`, and at moments that
a seed spreads over explain and seal. Each killed night is continued here, every other one by `resume`.
"""

import contextlib
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from environment import clean_environment
from flows.nightly import nightly
from places import SETUP
from small_night import NO_GALLERY, small_night
from storage import Catalog, check_part, open_store, read_nights
from tasks.datasets import Dataset
from tasks.models.registry import ModelRecord

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]

N_WORKERS, N_PARTS = 2, 3
# Of a night with one worker, up to the first after `latest` has moved; a test holds this against such a night.
N_BOUNDARIES = 27
MOMENTS = [
    {"stage": stage, "after_s": round(float(after_s), 3)}
    for stage, most_s, n in (("explain", 1.5, 7), ("seal", 0.12, 6))
    for after_s in np.random.default_rng(20261125).uniform(0, most_s, n)
]
# Of a night of the layout virtual: before the linked parts have their name, and after it, before their store has its own.
PARTS_FOLDER = {17: "attributions.parts.partial", 23: "attributions.parts"}
VIRTUAL = [{"boundary": number, "layout": "virtual"} for number in PARTS_FOLDER]
POINTS: list[dict[str, Any]] = [*({"boundary": number} for number in range(N_BOUNDARIES)), *MOMENTS, *VIRTUAL]
IDS = [
    f"before-{p['boundary']}{'-virtual' * ('layout' in p)}" if "boundary" in p else f"{p['stage']}-{p['after_s']}s"
    for p in POINTS
]


class ForkingProcess:
    """A process that runs nights in forks of itself; see forked_nights.py."""

    def __init__(self, environment: dict[str, str]):
        command = [sys.executable, SETUP / "forked_nights.py"]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        assert self._answer() == {"ready": True}

    def run(self, parameters: dict[str, Any], kill: dict[str, Any] | None, boundaries: Path) -> int:
        """The exit status of a night, negative for a signal."""
        assert self.process.stdin
        request = {"parameters": parameters, "kill": kill, "boundaries": str(boundaries)}
        self.process.stdin.write(json.dumps(request) + "\n")
        return self._answer()["status"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forking(prefect_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue[ForkingProcess]]:
    """Two forking processes, to be taken and put back."""
    home = tmp_path_factory.mktemp("forked-home")
    environment = clean_environment(
        PREFECT_API_URL=prefect_server,
        PREFECT_HOME=str(home),
        PREFECT_RESULTS_LOCAL_STORAGE_PATH=str(home / "results"),
        PREFECT_LOGGING_LEVEL="CRITICAL",
    )
    processes: Queue[ForkingProcess] = Queue()
    for _ in range(2):
        processes.put(ForkingProcess(environment))
    yield processes
    while not processes.empty():
        process = processes.get().process
        process.stdin.close()  # type: ignore[union-attr]
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def parameters_for(few_digits: Dataset, small_model: ModelRecord) -> Callable[..., dict[str, Any]]:
    """The flow's parameters for a night of 20 rows in three parts on a root."""

    def make(root: Path, n_workers: int = 1, resume: str | None = None, layout: str = "single") -> dict[str, Any]:
        run = {"n_workers": n_workers, "resume": resume, "layout": layout}
        return small_night(root, small_model.path, few_digits.directory, gallery=NO_GALLERY, run=run)

    return make


@pytest.fixture(scope="module")
def undisturbed(
    forking: Queue[ForkingProcess],
    parameters_for: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[str]]:
    """The root of a night that nobody disturbed, and its boundaries in order."""
    root = tmp_path_factory.mktemp("undisturbed") / "data"
    log = root.with_name("boundaries")
    with taken(forking) as process:
        assert process.run(parameters_for(root), None, log) == 0
    return root, log.read_text().splitlines()


@pytest.fixture(scope="module")
def killed(
    forking: Queue[ForkingProcess],
    undisturbed: tuple[Path, list[str]],
    parameters_for: Callable[..., dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Path, int]]:
    """By the id of its point, the root that a killed night left, an earlier one having been its latest, and its status."""
    folder = tmp_path_factory.mktemp("killed")

    def kill_at(name: str, point: dict[str, Any]) -> tuple[Path, int]:
        root = folder / name
        shutil.copytree(undisturbed[0], root, symlinks=True, ignore=shutil.ignore_patterns("parts"))
        with taken(forking) as process:
            layout = point.get("layout", "single")
            parameters = parameters_for(root, n_workers=1 if "boundary" in point else N_WORKERS, layout=layout)
            return root, process.run(parameters, point, folder / f"{name}.boundaries")

    with ThreadPoolExecutor(2) as pool:
        return dict(zip(IDS, pool.map(kill_at, IDS, POINTS), strict=True))


@contextlib.contextmanager
def taken(processes: Queue[ForkingProcess]) -> Iterator[ForkingProcess]:
    process = processes.get()
    try:
        yield process
    finally:
        processes.put(process)


def arrays_of(store: Path) -> dict[str, NDArray]:
    """Every dataset of a store, by path, read with h5py alone; its checksum compared first."""
    names = []
    for line in store.with_name(f"{store.name}.sha256").read_text().splitlines():
        sha256, name = line.split("  ")
        assert hashlib.sha256((store.parent / name).read_bytes()).hexdigest() == sha256
        names.append(name)
    parts = sorted(str(part.relative_to(store.parent)) for part in (store.parent / "attributions.parts").glob("*"))
    assert names == [store.name, *parts]
    arrays = {}

    def take(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and not name.startswith("parts/"):
            arrays[name] = node[...]

    with h5py.File(store) as file:
        assert file.attrs["complete"] == 1
        file.visititems(take)
    return arrays


def assert_same(store: Path, expected: dict[str, NDArray]) -> None:
    arrays = arrays_of(store)
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array, err_msg=name, strict=True)


def parts_of(root: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every part, by path below the root."""
    parts = (root / "parts").rglob("rows-*.h5")
    return {str(part.relative_to(root)): (part.stat().st_ino, part.stat().st_mtime_ns) for part in parts}


def test_the_points_are_every_boundary_of_parts_seal_and_latest(undisturbed: tuple[Path, list[str]]) -> None:
    boundaries = [re.sub(r"\.[0-9a-f]{8}\.tmp", ".tmp", line) for line in undisturbed[1]]
    assert boundaries.index("replace latest") == N_BOUNDARIES - 2, "\n".join(boundaries)
    for name in ("rows-000000-000008.h5", "rows-000008-000016.h5", "rows-000016-000020.h5", "/attributions.h5"):
        renamed = [line for line in boundaries[:N_BOUNDARIES] if line.startswith("replace") and line.endswith(name)]
        assert len(renamed) == 1
    flushed = [line for line in boundaries if line.endswith("attributions.h5.partial")]
    assert len(flushed) == 2, "before it is marked complete, and after"
    assert len(POINTS) == 40 + len(VIRTUAL)


@pytest.mark.parametrize("point", IDS)
def test_a_night_killed_anywhere_is_continued_as_if_nothing_had_happened(
    point: str,
    killed: dict[str, tuple[Path, int]],
    undisturbed: tuple[Path, list[str]],
    parameters_for: Callable[..., dict[str, Any]],
) -> None:
    root, status = killed[point]
    assert status == -signal.SIGKILL
    expected = arrays_of(undisturbed[0] / "latest" / "attributions.h5")

    if "layout" in POINTS[IDS.index(point)]:
        left = [folder.name for folder in root.glob("nights/*/attributions.parts*")]
        assert left == [PARTS_FOLDER[POINTS[IDS.index(point)]["boundary"]]]

    # What is left is whole.
    for store in (root / "nights").rglob("attributions.h5"):
        assert_same(store, expected)
    with open_store(root / "latest") as latest:
        assert len(latest) == 20
    done = parts_of(root)
    for part in done:
        start, stop = map(int, re.findall(r"\d{6}", Path(part).name))
        assert check_part(root / part, digest=Path(part).parent.name, start=start, stop=stop) is None
    logged = (root.parent / f"{point}.boundaries").read_text().splitlines() if done else []
    renamed = [line for line in logged if re.fullmatch(r"replace parts/\w+/rows-\d+-\d+\.h5", line)]
    assert len(done) >= len(renamed) - N_WORKERS

    # The same again ends as if nothing had happened, and computes no finished part anew.
    nights = read_nights(Catalog(root))
    unfinished = [night for night in nights if night.can_resume]
    assert all(night.state != "running" for night in unfinished)
    resume = unfinished[0].id if unfinished and IDS.index(point) % 2 else None
    result = nightly(**parameters_for(root, resume=resume, layout=POINTS[IDS.index(point)].get("layout", "single")))
    assert (result.night_id in [night.id for night in nights]) == (resume is not None)
    assert resume in (None, result.night_id)
    assert result.store == (root / "latest" / "attributions.h5").resolve()
    assert_same(result.store, expected)
    after = parts_of(root)
    assert len(after) == N_PARTS
    assert {part: after[part] for part in done} == done
    assert not list((root / "parts").rglob("*.lock"))


def test_two_nights_at_once_share_the_work_and_each_seals_its_own(
    forking: Queue[ForkingProcess],
    undisturbed: tuple[Path, list[str]],
    parameters_for: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    root, logs = tmp_path / "data", [tmp_path / "boundaries-0", tmp_path / "boundaries-1"]

    def run(log: Path) -> int:
        with taken(forking) as process:
            return process.run(parameters_for(root, n_workers=N_WORKERS), None, log)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, logs)) == [0, 0]
    expected = arrays_of(undisturbed[0] / "latest" / "attributions.h5")
    nights = read_nights(Catalog(root))
    assert [night.state for night in nights] == ["sealed", "sealed"]
    for night in nights:
        assert_same(night.folder / "attributions.h5", expected)
    assert (root / "latest").resolve() in [night.folder.resolve() for night in nights]
    written = re.findall(r"^replace parts/\w+/(.*\.h5)$", "\n".join(log.read_text() for log in logs), re.M)
    assert sorted(written) == ["rows-000000-000008.h5", "rows-000008-000016.h5", "rows-000016-000020.h5"]
    assert [path for path in root.rglob("*.lock") if "datasets" not in path.parts] == []
