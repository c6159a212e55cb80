"""Programs as people run them: Python and `nightlens` in processes of their own, run to their end or started and watched.

The environment is `clean_environment()` where none is given.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from environment import clean_environment

TIMEOUT_S = 300.0
IMPORT_TIMES = ("-X", "importtime")


def program(
    *command: object, environment: Mapping[str, str] | None = None, timeout_s: float = TIMEOUT_S, **how: Any
) -> subprocess.CompletedProcess[str]:
    """A finished program and what it said. how: more of what subprocess.run takes, such as `cwd` and `input`."""
    env = clean_environment() if environment is None else environment
    return subprocess.run(
        [str(word) for word in command],
        env=env,
        timeout=timeout_s,
        capture_output=True,
        text=True,
        check=False,
        **how,
    )


def python(*arguments: object, **how: Any) -> subprocess.CompletedProcess[str]:
    return program(sys.executable, *arguments, **how)


def nightlens(*arguments: object, options: tuple[str, ...] = (), **how: Any) -> subprocess.CompletedProcess[str]:
    """The command. options: of Python, such as IMPORT_TIMES."""
    return python(*nightlens_arguments(*arguments, options=options), **how)


def nightlens_arguments(*arguments: object, options: tuple[str, ...] = ()) -> list[object]:
    """What Python is started with for the command, wherever that is: -P keeps the folder out of its path."""
    return [*options, "-P", "-m", "flows.cli", *arguments]


def printed_by(*command: object, **how: Any) -> str:
    """What a program prints; one that fails or complains fails the test."""
    done = program(*command, **how)
    assert (done.returncode, done.stderr) == (0, ""), (done.returncode, done.stderr)
    return done.stdout


def printed_by_python(code: str, *arguments: object, **how: Any) -> str:
    """What some code prints in a process of its own; it may complain, and must not fail."""
    done = python("-c", code, *arguments, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


def libraries_loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    """The packages that a process with IMPORT_TIMES imported."""
    return set(re.findall(r"\| +(\w+)$", done.stderr, re.M))


@contextmanager
def running(
    *arguments: object, environment: Mapping[str, str] | None = None, **how: Any
) -> Iterator[subprocess.Popen[str]]:
    """A Python process with pipes to all it says and is said to; killed when this is left, if it still lives.

    how: more of what subprocess.Popen takes.
    """
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, *map(str, arguments)]
    env = clean_environment() if environment is None else environment
    with subprocess.Popen(command, env=env, text=True, **(pipes | how)) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
