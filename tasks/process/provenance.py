"""Where a night's numbers come from: software versions and the commit."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["git_commit", "software_versions"]

DISTRIBUTIONS = (
    "nightlens",
    "tensorflow",
    "keras",
    "tensorflow-datasets",
    "numpy",
    "h5py",
    "prefect",
    "scikit-learn",
    "alibi",
    "tf-explain",
)


def software_versions() -> dict[str, str]:
    """The versions that computed the night; empty for an extra that is not installed."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    return versions


def git_commit() -> str:
    """The commit of the checkout this code runs from, "+changes" behind it if files differ; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run(
            ["git", "-C", here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
