"""What a reader makes of a file with one byte changed, each try in a process of its own that may crash or hang.

`python tests/setup/flips.py STORE FOLDER` takes the changes as JSON on stdin, a list of [offset, bits]; bits are flipped in the
byte at offset. Prints a line of JSON for each: the offset, what became of it, and what `verify_store` found. A change is
"equal" if every value is read as in STORE, "refused" if reading is a StoreError, "different" if a value is another, and
"crashed by ..." if the process died of a signal, SIGALRM after the time limit.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from storage import StoreError, open_store, verify_store
from storage.file.schema import VARIABLES

LIMIT_S = 20


def read_everything(path: Path) -> dict[str, Any]:
    """All that an analyst can read of a store: attributes, class names, and every dataset by way of the reader."""
    with open_store(path) as store:
        found: dict[str, Any] = {"attributes": store.attributes, "class_names": store.class_names}
        for variable in VARIABLES:
            if variable.path != "class_name":
                found[variable.path] = store.column(variable.path)
        return found


def equal(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(
        np.array_equal(one[name], other[name]) if isinstance(one[name], np.ndarray) else one[name] == other[name]
        for name in one
    )


def judge(changed: Path, original: dict[str, Any], offset: int) -> dict[str, Any]:
    try:
        outcome = "equal" if equal(original, read_everything(changed)) else "different"
    except StoreError:
        outcome = "refused"
    findings = [[finding.check, finding.where, finding.rows] for finding in verify_store(changed)]
    return {"offset": offset, "outcome": outcome, "findings": findings}


def main(store: Path, folder: Path) -> None:
    original, whole = read_everything(store), store.read_bytes()
    for offset, bits in json.load(sys.stdin):
        changed = folder / "flipped.h5"
        content = bytearray(whole)
        content[offset] ^= bits
        changed.write_bytes(content)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            signal.alarm(LIMIT_S)
            code = 1
            try:
                print(json.dumps(judge(changed, original, offset)), flush=True)
                code = 0
            finally:
                if code:
                    traceback.print_exc()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            print(json.dumps({"offset": offset, "outcome": f"crashed by {name}", "findings": []}))
        elif os.WEXITSTATUS(status):
            print(json.dumps({"offset": offset, "outcome": "crashed by an exception", "findings": []}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
