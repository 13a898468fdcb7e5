"""Locks and atomic directories, across processes."""

import multiprocessing
import pathlib
import subprocess
import sys
import time

import pytest

from errors import UserError
from files import atomic_directory, locked

ROOT = pathlib.Path(__file__).resolve().parents[1]


def holder(path):
    """A process that holds a lock until it is killed."""
    code = "import sys, time, files\nwith files.locked(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_by_one_process_and_released_by_kill(tmp_path):
    lock = tmp_path / ".lock"
    process = holder(lock)
    with pytest.raises(BlockingIOError, match="another process holds this lock"), locked(lock):
        pass
    assert lock.exists()
    process.kill()
    process.communicate()
    assert lock.exists()  # nobody could remove it
    with locked(lock), pytest.raises(BlockingIOError), locked(lock):  # nor twice in one process
        pass
    assert not lock.exists()


def test_a_directory_that_takes_no_files_is_not_another_process():
    with pytest.raises(FileNotFoundError), locked("/proc/.lock"):
        pass
    with pytest.raises(UserError, match="/proc/a cannot be made"), atomic_directory("/proc/a"):
        pass


def test_a_lock_file_that_another_process_made_meanwhile_is_kept(tmp_path):
    lock = tmp_path / ".lock"
    with locked(lock):
        lock.unlink()  # by the user
        process = holder(lock)
    with pytest.raises(BlockingIOError), locked(lock):
        pass
    process.kill()
    process.communicate()


def count(lock, counter, rounds):
    """Adds 1 to a file, `rounds` times, without any protection except the lock."""
    while rounds:
        try:
            with locked(lock):
                before = int(counter.read_text())
                time.sleep(0.0002)
                counter.write_text(str(before + 1))
            rounds -= 1
        except BlockingIOError:
            pass


def test_two_processes_never_hold_a_lock_whose_file_is_removed_each_time(tmp_path):
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=count, args=(tmp_path / ".lock", counter, 150)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    assert counter.read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_directory_is_made_by_one_process_at_a_time(tmp_path):
    out = tmp_path / "out"
    with atomic_directory(out) as partial:
        (partial / "a").write_text("first")
        with pytest.raises(UserError, match=r"another process is making .*out; wait for it"), atomic_directory(out):
            pass
        assert (partial / "a").exists()
    assert (out / "a").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(UserError, match="exists and is not empty"), atomic_directory(out):
        pass
