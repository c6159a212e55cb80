"""Systems that can less than this one, as a process sees them: a library that is loaded before all others refuses some calls."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from environment import clean_environment


def refusing(folder: Path, code: str, *functions: str) -> dict[str, str]:
    """The environment of a process for which functions of the C library fail with that error, such as ENOSYS.

    folder: where the library is built. Skips the test where there is no C compiler, or no LD_PRELOAD.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("a call is refused by LD_PRELOAD of a library that is built here: needs Linux and a C compiler")
    library = folder / f"no_{functions[0]}.so"
    refusals = "".join(f"int {name}() {{ errno = {code}; return -1; }}\n" for name in functions)
    command = [compiler, "-shared", "-fPIC", "-w", "-std=gnu99", "-x", "c", "-o", str(library), "-"]
    subprocess.run(command, input=f"#include <errno.h>\n{refusals}", text=True, check=True)
    return clean_environment(LD_PRELOAD=str(library))
