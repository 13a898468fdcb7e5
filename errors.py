"""Errors that are reported in one line, without a traceback."""

import contextlib
import difflib
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping


class UserError(Exception):
    """A mistake that the user can correct. The message names the value, what is allowed and the remedy."""

    exit_code = 2


class TrainingError(UserError):
    """The training itself failed, for example because the loss is not finite."""

    exit_code = 1


# Signals that ask a program to end: kill, Ctrl-C, and a terminal or ssh connection that is closed.
ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]


def handle_signals(handler: Callable, numbers: Iterable[int] = ENDING) -> dict[int, object]:
    """Sets a handler for signals and returns the handlers before. Signals that the caller lets a program ignore, as
    nohup does SIGHUP, stay ignored. In a thread other than the main one nothing is set."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    kept = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    return {number: signal.signal(number, handler) for number in kept}


def first_signal(handled: Iterable[int]) -> None:
    """Prepares for the end after a signal: a second one ends the process at once, and outputs that are closed are not
    written any more. SIGHUP is ignored from then on: where a terminal is closed, the shell and the system both send it.
    """
    for number in handled:
        signal.signal(number, signal.SIG_IGN if number == getattr(signal, "SIGHUP", None) else signal.SIG_DFL)
    time.sleep(0.1)  # in `| tee log`, tee gets the same signal; an error in print would be in the way of saving
    closed = select.poll()
    for descriptor in (1, 2):
        closed.register(descriptor, 0)
    for descriptor, _ in closed.poll(0):
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def restore_signals(before: Mapping[int, object]) -> None:
    """Sets the handlers that handle_signals has returned."""
    for number, handler in before.items():
        signal.signal(number, handler or signal.SIG_DFL)  # None: it was not set from Python


def quit_on_signals() -> None:
    """Until `reported` begins, a signal ends the program at once, without a traceback. For TensorFlow's import, which
    takes seconds and may swallow exceptions; nothing is half-written there."""

    def end(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):
                os.write(2, b"interrupted\n")
        os._exit(128 + number)

    if "tensorflow" not in sys.modules:
        handle_signals(end)


@contextlib.contextmanager
def _exits_on_signals() -> Iterator[None]:
    """Within a block, a signal is an exception, so that partial output is removed."""

    def leave(number: int, frame: object) -> None:
        first_signal(before)
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + number)

    before = handle_signals(leave)
    try:
        yield
    finally:
        restore_signals(before)


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError as one line on standard error and exits with its exit code. Exits with 130, 143 or 129 after
    Ctrl-C, SIGTERM or SIGHUP, when exceptions have removed what is half-written."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be valid UTF-8
    try:
        with _exits_on_signals():
            yield
    except UserError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # for example in `| head`
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _flush()


def printable(text: str) -> str:
    """A text without line breaks and control characters, which a file name or a class name may hold: escaped."""
    return "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else repr(c)[1:-1] for c in text)


def _flush() -> None:
    """Flushes standard output; exits with 1 if that fails, silently if the reader has closed the pipe (`| head`)."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the final flush of the interpreter
        sys.exit(1)


def why_not_fetched(error: Exception) -> str:
    """The reason why a download failed, in a few words: the message of requests for a missing network is very long."""
    return "no connection" if "Max retries" in str(error) else str(error).splitlines()[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not in a registry. It suggests the most similar name and lists all."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"unknown {kind} '{name}': {hint}known are {', '.join(known)}")
