"""Locks and atomic directories, across processes."""

import errno
import fcntl
import multiprocessing
import os
import pathlib
import subprocess
import sys
import time

import pytest

from errors import UserError
from files import atomic_directory, atomic_write, check_output, expand, fsync, locked, output_file

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


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_gets_a_warning(number, tmp_path, monkeypatch, capsys):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "a").write_text("made")
    assert (tmp_path / "out/a").read_text() == "made"
    assert os.listdir(tmp_path) == ["out"]
    assert f"{tmp_path} cannot be locked ({os.strerror(number)})" in capsys.readouterr().err


def test_a_lock_that_fails_for_another_reason_is_an_error(tmp_path, monkeypatch):
    def flock(descriptor, operation):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / ".lock"):
        pass


def test_a_directory_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    def invalid(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "file").write_text("")
    monkeypatch.setattr(os, "fsync", invalid)
    fsync(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        fsync(tmp_path / "file")


def test_a_link_is_kept_and_its_target_is_written(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/real.csv", tmp_path / "link.csv"
    for before in (None, "old"):  # a link to a file that is not there yet, too
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        if before:
            target.write_text(before)
        check_output("--csv", str(link), ".csv")
        with output_file("--csv", str(link)) as partial:
            partial.write_text("new")
        assert link.is_symlink()
        assert target.read_text() == "new"
    link.unlink()
    link.symlink_to("missing/real.csv")
    with pytest.raises(UserError, match=r"--csv .*link\.csv must be a \.csv in a directory that is there"):
        check_output("--csv", str(link), ".csv")
    with atomic_write(tmp_path / "plain") as partial:
        partial.write_text("new")
    assert (tmp_path / "plain").read_text() == "new"


def test_a_leading_tilde_is_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [expand(path) for path in ("~/data", "~", "a/~", "~$no.jpg")] == [
        f"{tmp_path}/data",
        str(tmp_path),
        "a/~",
        "~$no.jpg",
    ]
    monkeypatch.chdir(tmp_path)
    for path in ("~nobody_x/data", "~nobody_x"):
        with pytest.raises(UserError, match=f"{path} names the home directory of nobody_x, but there is no such user"):
            expand(path)
    (tmp_path / "~nobody_x").mkdir()
    assert expand("~nobody_x/data") == "~nobody_x/data"
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as without HOME and an entry of the user
    with pytest.raises(UserError, match="~/data names the home directory, but there is none"):
        expand("~/data")
