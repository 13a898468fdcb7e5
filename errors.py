"""Failures that are told in one line, without a traceback."""

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake the user can mend: names the value, what is allowed and the remedy."""

    exit_code = 2


class TrainingError(UserError):
    """The training itself failed, as with a loss that is not finite."""

    exit_code = 1


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Ends the program with the message of a UserError on standard error and its exit code, on Ctrl-C with 130."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    try:
        yield
    except UserError as error:
        message = str(error).replace("\n", "\\n")  # a file may be called so
        print(f"error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # as of `| head`
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _flush()


def _flush() -> None:
    """Ends the program where standard output cannot take all: without a word where its reader is gone, as `| head`."""
    try:
        sys.stdout.flush()
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            print(f"error: standard output cannot be written ({error.strerror})", file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still to be flushed at the end
        sys.exit(1)


def why_not_fetched(error: Exception) -> str:
    """What kept a file from being downloaded, in a few words: requests tells of a missing network at length."""
    return "no connection" if "Max retries" in str(error) else str(error).splitlines()[0]


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that a registry does not hold, with the nearest one first."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"unknown {kind} '{name}': {hint}known are {', '.join(known)}")
