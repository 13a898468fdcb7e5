"""Mistakes that the user can mend: one line that says how, exit code 2, no traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
    """Names the value, what is allowed and the remedy. Anything that is our own fault raises something else."""


def run(main: Callable[[], int | None]) -> None:
    """Runs a script's `main` and exits with its code (0 where it returns None), with 2 after a UserError."""
    program = sys.argv[0].rsplit("/", 1)[-1]
    try:
        sys.exit(main() or 0)
    except UserError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        sys.exit(2)


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that a registry does not hold, with the nearest one first."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"unknown {kind} '{name}': {hint}known are {', '.join(known)}")
