"""The user's own nets, preprocessing families and sources: a name FILE.py:NAME in the place of a registered one.

    train.py --net my_net.py:my_net    -> named("my_net.py:my_net"), then load("/home/me/my_net.py:my_net", "net")

A file runs only where its user asked for that:

- its name was given on this command line or to a function of the Python API: `named`;
- a run directory names it, and it is unchanged since this user trained with it on this machine: `admit`, which reads
  the list of such code in the user's cache directory;
- a run directory holds a copy of it, and --allow-code was given: `admit`.

So a run directory from elsewhere never runs code by itself. What was checked is what runs: the file is read once.
"""

import difflib
import hashlib
import json
import os
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

import pooch

from errors import UserError
from files import atomic_write, expand, open_regular

CODE = "code"  # directory with the copies in a run directory
CODE_JSON = "code.json"  # there; the SHA-256 of each copy
MOST_BYTES = 2**20  # of a file of code
FAILURES = (Exception, SystemExit)  # of a user's code; sys.exit() in it must not end a command without a word
_allowed: dict[str, bytes] = {}  # absolute path to the content that may run
_modules: dict[tuple[str, bytes], ModuleType] = {}


def is_own(name: object) -> bool:
    """Whether a name is of the form FILE.py:NAME."""
    return isinstance(name, str) and re.fullmatch(r"(?s).+\.py:\w+", name) is not None


def split(name: str) -> tuple[str, str]:
    """The absolute path of the file, and the name in it."""
    file, _, attribute = name.rpartition(":")
    return os.path.abspath(expand(file)), attribute


def absolute(name: str) -> str:
    """The same name with the absolute path of its file."""
    return ":".join(split(name))


def short(name: str) -> str:
    """The name without the directories of its file: my_net.py:my_net. Any other name is returned as it is."""
    return os.path.basename(name) if is_own(name) else name


def attribute(name: str) -> str:
    """The name without its file: my_net of my_net.py:my_net. Any other name is returned as it is."""
    return name.rpartition(":")[2] if is_own(name) else name


def named(name: str, run: "str | Path | None" = None, allow_code: bool = False) -> str:
    """Allows the file of a name that the user gave to run, in this process and later for run directories with it.

    run is a run directory that keeps a copy of it: the file must equal that, and with allow_code the copy runs where it
    does not, or is gone. Returns the name with the absolute path; a registered name as it is. Prints the difference, as
    `diff -u` does, and raises UserError where the file has changed; also where it cannot be read.
    """
    if not is_own(name):
        return name
    file, attribute = split(name)
    digest = kept_digest(name, run) if run else None
    if digest and not os.path.exists(file) and not allow_code:
        raise UserError(f"{file} is gone; restore it, or use the copy {_copy_path(file, run)}: --allow-code")
    _allowed[file] = content = _read(file) if os.path.exists(file) or not digest else b""
    if digest and _digest(content) != digest:
        _allowed[file] = kept = _copy(file, run, digest)
        if not allow_code:
            del _allowed[file]
            before, now = (part.decode(errors="replace").splitlines(keepends=True) for part in (kept, content))
            sys.stderr.writelines(difflib.unified_diff(before, now, str(_copy_path(file, run)), file))
            advice = "restore it, use the copy (--allow-code), or start a new run with another --run-dir"
            raise UserError(f"{file} has changed since {run} was started, as shown above; {advice}")
    _note(_digest(_allowed[file]), attribute)
    return f"{file}:{attribute}"


def _note(digest: str, attribute: str) -> None:
    """Notes that this user has run a name of some code."""
    marker = _marker(digest, attribute)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        later = "later commands on its run directory need --allow-code"
        print(f"{marker} cannot be written ({error.strerror}): {later}", file=sys.stderr)


def load(name: str, kind: str) -> object:
    """The object that an absolute name stands for; kind is its kind in messages, such as 'net'.

    Raises UserError where the file was not allowed to run, fails, or has no such name.
    """
    file, attribute = split(name)
    if file not in _allowed:
        raise UserError(f"the {kind} {name} is code of a file that was not named on this command line; it does not run")
    content = _allowed[file]
    if (file, content) not in _modules:
        _modules[file, content] = _run(file, content)
    module = _modules[file, content]
    if not hasattr(module, attribute):
        names = [key for key, value in vars(module).items() if not key.startswith("_") and callable(value)]
        raise UserError(f"{file} has no {attribute!r}; it has {', '.join(names) or 'no functions'}")
    return getattr(module, attribute)


def _run(file: str, content: bytes) -> ModuleType:
    module = ModuleType(Path(file).stem)
    module.__file__ = file
    try:
        exec(compile(content, file, "exec"), module.__dict__)
    except FAILURES as error:
        raise mistake(file, error) from error
    return module


def mistake(file: str, error: BaseException) -> UserError:
    """The error for an exception in a user's file: names its last line there, with --allow-code or without."""
    if isinstance(error, UserError):
        return error
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    place = f"{file}, line {lines[-1]}" if lines else file
    advice = ""
    if isinstance(error, ModuleNotFoundError):
        advice = "; install it, or keep the code in one file: files beside it are not imported"
    if isinstance(error, SystemExit):
        return UserError(f"{place}: it calls sys.exit({error.code!r}); raise an error instead, such as a ValueError")
    return UserError(f"{place}: {type(error).__name__}: {str(error)[:500]}{advice}")


def keep(names: list[str], run: "str | Path") -> None:
    """Copies the files of own names into a run directory, each with its SHA-256; does nothing where there are none.

    Raises UserError where two different files have the same name.
    """
    contents: dict[str, bytes] = {}
    for file in (split(name)[0] for name in names if is_own(name)):
        content = _allowed[file]
        if contents.setdefault(os.path.basename(file), content) != content:
            raise UserError(f"two different files are named {os.path.basename(file)}; rename one of them")
    if not contents:
        return
    directory = Path(run) / CODE
    directory.mkdir(exist_ok=True)
    digests = {name: _digest(content) for name, content in contents.items()}
    contents[CODE_JSON] = (json.dumps(digests, indent=2) + "\n").encode()  # last: it makes the copies valid
    for name, content in contents.items():
        with atomic_write(directory / name) as partial:
            partial.write_bytes(content)


def admit(name: object, run: "str | Path", allow_code: bool) -> None:
    """Allows the file of a name in a run directory's configuration to run, where it may.

    It may where it is the code of the run, and this user has named it before. Otherwise the copy runs with allow_code.
    Does nothing for registered names. Raises UserError for code that is missing, has changed, or was never named.
    """
    if not is_own(name):
        return
    file, attribute = split(name)
    digest = kept_digest(name, run)
    content = _read(file) if os.path.isfile(file) else None
    if content is not None and _digest(content) == digest and _marker(digest, attribute).exists():
        _allowed[file] = content
        return
    if allow_code:
        _allowed[file] = _copy(file, run, digest)
        return
    remedy = f"read {_copy_path(file, run)}, the code that the run was trained with, and run it with --allow-code"
    if content is None:
        raise UserError(f"{file} is gone, and a run directory never runs code by itself; {remedy}")
    if _digest(content) != digest:
        raise UserError(f"{file} is not what {run} was trained with; restore it, or {remedy}")
    raise UserError(f"{run} names {file}, which was never run by this user on this machine; {remedy}")


def kept_digest(name: str, run: "str | Path") -> str | None:
    """The SHA-256 of the copy of an own name's file in a run directory; None where it is not listed.

    Raises UserError where the list is damaged.
    """
    path = Path(run) / CODE / CODE_JSON
    try:
        digests = json.loads(path.read_text())
        digest = digests.get(os.path.basename(split(name)[0]))
    except FileNotFoundError:
        return None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); restore it") from None
    return digest if isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) else None


def _copy_path(file: str, run: "str | Path") -> Path:
    return Path(run) / CODE / os.path.basename(file)


def _copy(file: str, run: "str | Path", digest: str | None) -> bytes:
    path = _copy_path(file, run)
    if not path.is_file():
        raise UserError(f"{path} is missing: the run directory holds no copy of the code; restore it")
    content = _read(str(path))
    if _digest(content) != digest:
        raise UserError(f"{path} is not the code that the run was trained with (its SHA-256 differs); restore it")
    return content


def _read(file: str) -> bytes:
    try:
        with open_regular(file) as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); own code is named as FILE.py:NAME") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{file} is larger than 1 MiB; that is no file of code")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _marker(digest: str, attribute: str) -> Path:
    """An empty file in the user's cache whose existence says that this user has run this name of this code."""
    return Path(pooch.os_cache("slimgraph")) / "own_code" / f"{digest}-{attribute}"
