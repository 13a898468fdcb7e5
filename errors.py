"""Errors that are reported in one line, without a traceback."""

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Iterable, Iterator


class UserError(Exception):
    """A mistake that the user can correct. The message names the value, what is allowed and the remedy."""

    exit_code = 2


class TrainingError(UserError):
    """The training itself failed, for example because the loss is not finite."""

    exit_code = 1


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Prints a UserError as one line on standard error and exits with its exit code; exits with 130 on Ctrl-C."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name need not be valid UTF-8
    try:
        yield
    except UserError as error:
        message = str(error).replace("\n", "\\n")  # a file name may contain a line break
        print(f"error: {message}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:  # for example in `| head`
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        _flush()


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
