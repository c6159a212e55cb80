"""The environment of the processes that tests start: this checkout's packages, and no Prefect of the developer's."""

import os
from collections.abc import Sequence
from pathlib import Path

from places import REPOSITORY

# Nothing listens there: what goes to a proxy by mistake fails at once.
PROXY_OF_NOBODY = "http://127.0.0.1:9"


def clean_environment(*left_out: str, path: Sequence[Path] = (REPOSITORY,), **variables: str) -> dict[str, str]:
    """This process's variables without Prefect's and without those that begin with a text of `left_out`.

    path: the folders that Python finds packages in first. variables: set beside the others, or instead of them.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", *left_out))}
    return kept | {"PYTHONPATH": os.pathsep.join(map(str, path))} | variables


def talkative_environment(**variables: str) -> dict[str, str]:
    """The same, with TensorFlow as talkative as it comes: this process has hushed its own, see conftest.py."""
    return clean_environment("TF_CPP_", "CUDA_VISIBLE_DEVICES", **variables)
