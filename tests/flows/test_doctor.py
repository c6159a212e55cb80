"""What the doctor says of installations that are whole, broken or partial, and of places that cannot be used."""

import importlib.metadata
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.commands.doctor import refuse_unusable
from flows.commands.installation import check_imports, check_requirements


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Installs a distribution `patient` that declares the given requirements."""

    def declare(*requirements: str) -> dict[str, tuple[str, str, str]]:
        info = tmp_path / "patient-1.0.dist-info"
        info.mkdir()
        extras = ["pipeline", "reference", "gpu", "dev"]
        lines = ["Metadata-Version: 2.1", "Name: patient", "Version: 1.0", *(f"Provides-Extra: {e}" for e in extras)]
        (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {r}" for r in requirements)]) + "\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return {found.name: (found.mark, found.detail, found.advice) for found in check_requirements("patient")}

    return declare


def test_what_is_installed_as_declared_is_well(declared) -> None:
    found = declared("numpy>=1.26,<3")
    assert found["numpy"] == ("✓", f"{importlib.metadata.version('numpy')} (<3,>=1.26)", "")


@pytest.mark.parametrize(
    "extra", ["", "; extra == 'pipeline'", "; extra == 'reference'"], ids=["base", "needed", "optional"]
)
def test_a_wrong_version_is_broken_and_the_cure_is_named(extra: str, declared) -> None:
    mark, detail, advice = declared(f"numpy>=99{extra}")["numpy"]
    assert (mark, advice) == ("✗", "pip install 'numpy>=99'")
    assert detail.endswith("expected >=99")


def test_what_is_missing_is_broken_if_needed_and_told_if_optional(declared) -> None:
    found = declared("no-such-a>=1; extra == 'pipeline'", "no-such-b>=1; extra == 'reference'")
    assert found["no-such-a"] == ("✗", "not installed, expected >=1", "pip install 'no-such-a>=1'")
    assert found["no-such-b"][0] == "-"
    assert "pip install 'nightlens[reference]'" in found["no-such-b"][1]


def test_the_bounds_of_an_extra_that_is_not_installed_bind_nobody(declared) -> None:
    found = declared("numpy>=99; extra == 'reference'", "no-such-b>=1; extra == 'reference'")
    version = importlib.metadata.version("numpy")
    assert found["numpy"] == ("-", f"{version}, expected >=99; optional: pip install 'nightlens[reference]'", "")


def test_a_requirement_for_another_platform_or_for_developers_is_left_out(declared) -> None:
    found = declared("no-such-a; sys_platform == 'amiga'", "no-such-b; extra == 'dev'")
    assert list(found) == ["python"]


def test_an_extra_of_a_requirement_is_looked_for_too(declared) -> None:
    mark, detail, _ = declared("tensorflow[and-cuda]>=2; extra == 'gpu'")["tensorflow[and-cuda]"]
    assert mark == "-"
    assert "nvidia" in detail


def test_a_distribution_that_is_not_installed_is_told() -> None:
    (found,) = check_requirements("no-such-distribution")
    assert (found.mark, found.detail) == ("✗", "not installed")


def test_imports_that_fail_or_kill_the_process_are_named_and_the_rest_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "patient_broken.py").write_text("raise ImportError('no libfoo.so')")
    (tmp_path / "patient_deadly.py").write_text("import os; os.kill(os.getpid(), 9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = list(check_imports(["json", "patient_broken", "csv", "patient_deadly", "wave"]))
    assert [(f.mark, f.name) for f in found] == [("✗", "patient_broken"), ("✗", "patient_deadly"), ("✓", "3 modules")]
    assert found[0].detail == "ImportError: no libfoo.so"
    assert found[1].detail == "its process ended with -9"


def test_a_root_that_is_not_there_yet_is_fine_and_stays_away(tmp_path: Path) -> None:
    assert refuse_unusable(tmp_path / "a" / "b") > 0
    assert list(tmp_path.iterdir()) == []


def test_a_root_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be written .Not a directory in .*choose another --root"):
        refuse_unusable(tmp_path / "file" / "root")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_root_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(OSError, match=r"cannot be written .Permission denied"):
        refuse_unusable(tmp_path)


def test_a_full_disk_is_refused_with_the_space_that_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with pytest.raises(OSError, match="at least 500 MB free, found 3 MB"):
        refuse_unusable(tmp_path)
