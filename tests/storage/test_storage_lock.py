"""Locks: one owner at a time, named to those who wait, and gone with a process that is killed."""

import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from command import running
from storage.file.disk.lock import LockBusy, Owner, locked, owner_of

HOLDER = """
import sys, time
from pathlib import Path
from storage.file.disk.lock import locked

with locked(Path(sys.argv[1]), "night 7"):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def other_process(path: Path) -> Iterator[subprocess.Popen]:
    """Another process that holds the lock until it is killed."""
    with running("-c", HOLDER, path) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        yield holder


def test_nobody_gets_what_another_process_holds_and_is_told_who_that_is(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with other_process(path) as holder:
        owner = owner_of(path)
        assert owner and (owner.what, owner.pid) == ("night 7", holder.pid)
        with (
            pytest.raises(LockBusy, match=rf"it\.lock: held by night 7 \(process {holder.pid} on \S+, since 20"),
            locked(path, "night 8"),
        ):
            pass


def test_a_killed_owner_blocks_nobody(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with other_process(path) as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        assert path.exists() and owner_of(path) is None
        with locked(path, "night 8"):
            owner = owner_of(path)
            assert owner and owner.what == "night 8"
    assert not path.exists()


def test_one_who_waits_is_told_once_and_gets_the_lock_when_it_is_free(tmp_path: Path) -> None:
    path, told = tmp_path / "it.lock", list[Owner]()
    with other_process(path) as holder:

        def hear(owner: Owner) -> None:
            told.append(owner)
            holder.kill()

        with locked(path, "night 8", patience_s=math.inf, on_wait=hear):
            assert [owner.what for owner in told] == ["night 7"]


def test_patience_ends(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with other_process(path):
        began = time.monotonic()
        with pytest.raises(LockBusy), locked(path, "night 8", patience_s=0.5):
            pass
        assert 0.5 <= time.monotonic() - began < 60


def test_a_lock_is_let_go_whatever_happens(tmp_path: Path) -> None:
    path = tmp_path / "it.lock"
    with pytest.raises(KeyError), locked(path, "night 7"):
        raise KeyError
    assert owner_of(path) is None and not path.exists()


def test_many_threads_are_in_it_one_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "it.lock", 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(5):
            with locked(path, "a thread", patience_s=60):
                inside += 1
                most = max(most, inside)
                time.sleep(0.001)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1 and not path.exists()


def test_a_lock_that_nobody_ever_held_has_no_owner(tmp_path: Path) -> None:
    assert owner_of(tmp_path / "it.lock") is None
