"""The locks: each holds what pyproject.toml asks for, by hash, and names no registry; NumPy 1 is in the reference's alone."""

import re
import tomllib
from itertools import pairwise

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from places import REPOSITORY

PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
PIPELINE = ("pipeline", "dask", "remote", "export", "browse", "tensorboard", "mlflow", "dev")
EXTRAS = {  # of each lock, as `make lock` names them
    "requirements.lock": (*PIPELINE, "reference"),
    "requirements-numpy2.lock": PIPELINE,
    "tests/reader.lock": ("remote", "export", "browse", "tensorboard"),
}
PEERS = ("tests/benchmarks/peers/captum.lock", "tests/benchmarks/peers/xplique.lock")
ALONE = "tests/quantus.lock"  # .venv has what it imports


def pins(lock: str) -> dict[str, set[Version]]:
    """The versions of each package in a lock: several, where Pythons differ."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", (REPOSITORY / lock).read_text(), re.M):
        found.setdefault(name, set()).add(Version(version))
    return found


@pytest.mark.parametrize("lock", EXTRAS)
def test_a_lock_holds_what_is_asked_for(lock: str) -> None:
    asked = [
        *PROJECT["dependencies"],
        *(text for extra in EXTRAS[lock] for text in PROJECT["optional-dependencies"][extra]),
    ]
    locked = pins(lock)
    for requirement in map(Requirement, asked):
        versions = locked.get(requirement.name.lower().replace("_", "-"), set())
        assert versions, f"{lock} has no {requirement.name}: run `make lock UPGRADE=`"
        outside = {str(version) for version in versions if version not in requirement.specifier}
        assert outside == set(), (
            f"{lock} has {requirement.name} {outside}, expected {requirement}: run `make lock UPGRADE=`"
        )


@pytest.mark.parametrize(
    "lock", [*EXTRAS, "tests/virelay.lock", "tests/atlas.lock", "tests/mlflow.lock", ALONE, *PEERS]
)
def test_every_pin_has_hashes_and_no_registry_is_named(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    pinned = [(line, below) for line, below in pairwise(text.splitlines()) if line[:1].isalnum()]
    assert len(pinned) == 1 if lock == ALONE else len(pinned) > 20
    assert [line for line, below in pinned if not below.startswith("    --hash=sha256:")] == []


def test_numpy_1_is_in_the_lock_of_the_reference_alone() -> None:
    majors = {lock: {version.major for version in pins(lock)["numpy"]} for lock in EXTRAS}
    assert majors == {"requirements.lock": {1}, "requirements-numpy2.lock": {2}, "tests/reader.lock": {2}}
    assert {version.major for version in pins("requirements-numpy2.lock")["pandas"]} == {3}
    reference = {Requirement(text).name for text in PROJECT["optional-dependencies"]["reference"]} - {"pyarrow"}
    assert reference & pins("requirements-numpy2.lock").keys() == set()
