"""What several test modules share, each made once a session: a real Prefect server, prepared digits, a trained model.

The server's settings hold only in the modules that ask for `prefect_server`: tests of what happens without a configured
API are not touched by it. `small_network` is somebody else's model, small enough for a whole night in a few seconds.
TensorFlow and Prefect are imported by the fixtures that need them, so that the store's tests start at once.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import keras
    from playwright.sync_api import Browser

    from empty_record import EmptyRecord
    from recovery_site import Site
    from tasks.datasets import Dataset
    from tasks.models.registry import ModelRecord
    from tasks.parts.plan import Plan
    from trial_inputs import Trial

# Before TensorFlow and matplotlib are imported, by whichever test comes first.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them every process whose Ctrl-C they test.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DIGITS_EPOCHS = 2
FEW_DIGITS = 60
LEAVE_TIMEOUT_S = 60.0


@pytest.fixture(scope="session", autouse=True)
def temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files go below pytest's own folder, and away with it, also those of the many processes that are killed."""
    folder = str(tmp_path_factory.mktemp("tmp", numbered=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", folder)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of all the processes that share a run of the tests."""
    run = tmp_path_factory.getbasetemp()
    folder = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def empty_record(shared_folder: Path) -> EmptyRecord:
    """Gives the home of a Prefect server its database, which saves the seconds that Prefect takes to make one."""
    from empty_record import EmptyRecord

    return EmptyRecord(shared_folder / "empty-record")


@pytest.fixture(scope="session")
def prefect_settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Any, Any]]:
    """The settings under which Prefect talks to the session's test server and writes nothing outside a temporary folder."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_HOME,
        PREFECT_RESULTS_LOCAL_STORAGE_PATH,
        temporary_settings,
    )
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect-home")
    folders = {PREFECT_HOME: home, PREFECT_RESULTS_LOCAL_STORAGE_PATH: home / "results"}
    # The harness lives in a context of its own, where its settings stay.
    context = copy_context()
    settings = temporary_settings(folders)
    harness = prefect_test_harness(server_startup_timeout=120)
    context.run(settings.__enter__)
    context.run(harness.__enter__)
    try:
        yield {**folders, PREFECT_API_URL: context.run(PREFECT_API_URL.value)}
    finally:
        # Once in a while Prefect waits for ever for its last events to go: it sets itself no limit.
        leaving = threading.Thread(target=context.run, args=(harness.__exit__, None, None, None), daemon=True)
        leaving.start()
        leaving.join(LEAVE_TIMEOUT_S)
        if leaving.is_alive():
            SubprocessASGIServer().stop()
        else:
            context.run(settings.__exit__, None, None, None)


@pytest.fixture(scope="module")
def prefect_server(prefect_settings: dict[Any, Any]) -> Iterator[str]:
    """The session's real Prefect server, as the API of this module's flows; its address."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings(prefect_settings):
        yield prefect_settings[PREFECT_API_URL]


@pytest.fixture
def no_run_logger() -> Iterator[None]:
    """Lets functions that log to a run be called where there is none."""
    from prefect.logging import disable_run_logger

    with disable_run_logger():
        yield


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless Chromium, the machine's own; skipped with the reason where there is none.

    While it is open, playwright's event loop runs in this thread: run flows before, or in a process of their own.
    """
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on the PATH (Debian: apt install chromium)")
    api.expect.set_options(timeout=30_000)  # the machine may be busy
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """scikit-learn's digits, prepared."""
    from tasks.config import DatasetConfig
    from tasks.datasets import prepare

    return prepare(DatasetConfig(), tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def few_digits(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The first 60 training and test images of digits, as they are explained: for nights that are run many times."""
    import numpy as np

    from tasks.config import DatasetConfig
    from tasks.datasets import prepare, read_rows

    folder = tmp_path_factory.mktemp("few-digits")
    arrays = {}
    for split in ("train", "test"):
        arrays[f"x_{split}"], arrays[f"y_{split}"] = read_rows(digits, split, 0, FEW_DIGITS)
    np.savez(folder / "digits.npz", **arrays)
    return prepare(DatasetConfig(source=str(folder / "digits.npz")), folder)


@pytest.fixture(scope="session")
def digits_model(digits: Dataset, shared_folder: Path) -> ModelRecord:
    """The notebook's network after two epochs on digits, alone in a registry: far from good, and so often wrong.

    Of the processes that share a run of the tests, the first that needs it trains it.
    """
    from prefect.logging import disable_run_logger

    from tasks.config import ModelConfig
    from tasks.train import obtain_model

    with disable_run_logger():
        return obtain_model(ModelConfig(epochs=DIGITS_EPOCHS), digits, shared_folder / "registry" / "models")[0]


@pytest.fixture(scope="session")
def small_network() -> Callable[..., keras.Model]:
    """Makes somebody else's classifier, with other names than ours; its weights follow from the seed."""
    import keras

    def make(n_classes: int = 10, shape: tuple[int, int, int] = (32, 32, 3), seed: int = 0) -> keras.Model:
        keras.utils.set_random_seed(seed)
        images = keras.Input(shape, name="picture")
        x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="edges")(images)
        x = keras.layers.Conv2D(12, 3, strides=2, activation="relu", name="strokes")(x)
        x = keras.layers.Flatten(name="flat")(x)
        return keras.Model(images, keras.layers.Dense(n_classes, activation="softmax", name="verdict")(x))

    return make


@pytest.fixture(scope="session")
def small_model(small_network: Callable[..., keras.Model], tmp_path_factory: pytest.TempPathFactory) -> ModelRecord:
    """The small network with ten classes, saved; it was never trained."""
    from tasks.models.registry import read_record

    path = tmp_path_factory.mktemp("elsewhere") / "theirs.keras"
    small_network().save(path)
    return read_record(path)


@pytest.fixture(scope="session")
def trial_of(shared_folder: Path) -> Callable[[str], Trial]:
    """The trial of that name of trial_inputs.RECIPES: a trained model as people bring it, images, and what its owner sees."""
    from trial_inputs import Trials

    (shared_folder / "trials").mkdir(exist_ok=True)
    return Trials(shared_folder / "trials")


@pytest.fixture(scope="module")
def site(
    few_digits: Dataset, small_model: ModelRecord, empty_record: EmptyRecord, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A Prefect server with a worker and deployments, of this module alone: to be broken."""
    from recovery_site import a_site

    with a_site(tmp_path_factory.mktemp("site"), few_digits, small_model, empty_record) as site:
        yield site


@pytest.fixture(scope="session")
def make_small_plan(digits: Dataset, small_model: ModelRecord) -> Callable[..., Plan]:
    """Makes a plan of the small network on rows 0 to 19 of digits in parts of 8, given its root and what differs."""
    from contracts import unit_contract
    from tasks.config import ExplanationConfig, GradCamConfig, IntegratedGradientsConfig
    from tasks.parts.plan import make_plan

    def make(root: Path, **changed: Any) -> Plan:
        settings = {
            "dataset": digits,
            "model": small_model,
            "explanation": ExplanationConfig(part_rows=8, batch_size=64),
            "integrated_gradients": IntegratedGradientsConfig(),
            "grad_cam": GradCamConfig(),
            "rows": "0:20",
        }
        settings |= changed
        contract = unit_contract(settings["model"], settings["dataset"], settings["grad_cam"].layer)
        return make_plan(root, **({"contract": contract} | settings))

    return make


@pytest.fixture(scope="session")
def small_plan(make_small_plan: Callable[..., Plan], tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Rows 0 to 19 in parts of 8, 8 and 4, all of them computed. Not to be changed: copy it, or plan under another root."""
    from tasks.parts.compute import compute_part

    plan = make_small_plan(tmp_path_factory.mktemp("small-night"))
    for start, stop in plan.ranges():
        compute_part(plan, start, stop)
    return plan
