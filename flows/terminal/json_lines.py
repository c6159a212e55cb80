"""Lines of stderr as JSON objects: what is JSON already passes, known noise is dropped, the rest is wrapped.

A script for logs.py to start, with regular expressions of noise; a process of its own, so that the last words of one that
crashes are not lost. It imports nothing of ours.
"""

import json
import re
import sys
from datetime import UTC, datetime

NATIVE_LEVELS = {"I": "INFO", "W": "WARNING", "E": "ERROR", "F": "CRITICAL"}
# Ours, Dask's and absl's (TensorFlow's) ways to write a line.
OURS = re.compile(r"nightlens: (?P<message>.*)")
DASK = re.compile(r"[\d-]+ [\d:,]+ - (?P<logger>[\w.]+) - (?P<level>[A-Z]+) - (?P<message>.*)")
NATIVE = re.compile(r"(?P<level>[IWEF])\d{4} [\d:.]+ +\d+ (?P<logger>\S+:\d+)\] (?P<message>.*)")


def wrapped(line: str) -> dict[str, str]:
    """A line of text as what Formatter would have made of it; an unknown one may be anything, so it is a warning."""
    now = datetime.now(UTC).isoformat()
    if found := OURS.fullmatch(line):
        return {"level": "ERROR", "logger": "nightlens", "message": found["message"], "time": now}
    for form in (DASK, NATIVE):
        if found := form.fullmatch(line):
            level = NATIVE_LEVELS.get(found["level"], found["level"])
            return {"level": level, "logger": found["logger"], "message": found["message"], "time": now}
    return {"level": "WARNING", "logger": "stderr", "message": line, "time": now}


def is_json(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def main() -> None:
    noise = [re.compile(pattern) for pattern in sys.argv[1:]]
    for raw in sys.stdin.buffer:
        line = raw.decode(errors="replace").rstrip("\r\n")
        if not line.strip() or any(pattern.fullmatch(line) for pattern in noise):
            continue
        sys.stdout.write((line if is_json(line) else json.dumps(wrapped(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
