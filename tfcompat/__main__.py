"""Runs a TensorFlow 1 script unchanged, instead of `python OLD_SCRIPT.py`.

python -m tfcompat OLD_SCRIPT.py [ARGUMENTS]
"""

import builtins
import multiprocessing
import os
import pathlib
import sys
import types
from multiprocessing import spawn

from tfcompat import hints, legacy

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
# This project, whose modules have names that scripts use too: nets, config.
HOME = os.path.dirname(os.path.dirname(HERE))
USAGE = "usage: python -m tfcompat OLD_SCRIPT.py [ARGUMENTS of the script]"


def _report(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    """Prints an uncaught error as Python does, from the script's frame on, with a hint at what to change."""
    script = sys.modules["__main__"].__file__
    while traceback and traceback.tb_frame.f_code.co_filename != script:
        traceback = traceback.tb_next
    frame = traceback
    while frame:
        if frame.tb_next and frame.tb_next.tb_frame.f_code.co_filename.startswith(HERE):
            frame.tb_next = None  # the look-up of a missing name in this package
        frame = frame.tb_next
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        place, line = f"{error.filename}, line {error.lineno}", (error.text or "").strip()
        print(f"error: {place}: {error.msg}: {line}; {hints.syntax_hint(error)}", file=sys.stderr)
        return
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)
    if hint := hints.hint(error):
        print(f"hint: {hint}", file=sys.stderr)


class _Installed:
    """Installs the old modules when it is unpickled."""

    def __reduce__(self) -> tuple:
        return exec, (f"import sys; sys.path.append({HOME!r}); from tfcompat import legacy; legacy.install()",)


def _install_in_children() -> None:
    """Makes spawned processes install the old modules: they unpickle this data before they import the script."""
    prepared = spawn.get_preparation_data
    spawn.get_preparation_data = lambda name: {"tfcompat": _Installed(), **prepared(name)}
    multiprocessing.set_forkserver_preload([])  # otherwise that server imports the script without this data


def main() -> None:
    """Runs the script in this process as `__main__`. Its errors and its exit code are those of the process."""
    if len(sys.argv) < 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    script = sys.argv[1]
    if script in ("-h", "--help"):
        print(USAGE)
        return
    try:
        source = pathlib.Path(script).read_bytes()
    except OSError as error:
        print(f"error: {script} cannot be read: {error.strerror}\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    legacy.install()
    _install_in_children()
    as_main = types.ModuleType("__main__")
    as_main.__file__, as_main.__builtins__ = os.path.abspath(script), builtins
    sys.modules["__main__"] = as_main
    sys.argv = sys.argv[1:]
    # As with `python OLD_SCRIPT.py`, and the project last, if PYTHONPATH has it: the script's own modules come first.
    others = [place for place in sys.path[1:] if os.path.abspath(place) != HOME]
    moved = [HOME] if len(others) < len(sys.path[1:]) else []
    sys.path[:] = [os.path.dirname(os.path.realpath(script)), *others, *moved]
    sys.excepthook = _report
    exec(compile(source, as_main.__file__, "exec", dont_inherit=True), as_main.__dict__)


if __name__ == "__main__":
    main()
