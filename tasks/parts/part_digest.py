"""Digests: what decides a number is hashed, so that numbers of other settings or other code are never mixed in."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from storage.file import rounding

__all__ = ["code_digest", "settings_digest"]

# All that decides a number in a part is in these packages of `tasks`, or is the store's rounding.
PACKAGES = ("parts", "numerics", "models")
LIBRARIES = ("tensorflow", "keras", "numpy")


def settings_digest(settings: Any) -> str:
    """The sha256 of JSON-like settings, independent of the order of keys."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def code_digest() -> str:
    """The sha256 of all code that computes a part, packages within packages too, and of the libraries' versions."""
    tasks = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in (
        *(file for name in PACKAGES for file in sorted((tasks / name).rglob("*.py"))),
        Path(rounding.__file__),
    ):
        digest.update(path.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name} {version(name)}\n".encode())
    return digest.hexdigest()
