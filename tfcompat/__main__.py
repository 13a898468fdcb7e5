"""Runs a script of TensorFlow 1 as it is, in place of `python OLD_SCRIPT.py`.

python -m tfcompat OLD_SCRIPT.py [ARGUMENTS]
"""

import builtins
import multiprocessing
import os
import sys
import types
from multiprocessing import spawn

from tfcompat import legacy

HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
USAGE = "usage: python -m tfcompat OLD_SCRIPT.py [ARGUMENTS of the script]"
# What Python 2 had, and what has its place.
PYTHON_2 = {
    "basestring": "str", "iteritems": "items", "itervalues": "values", "izip": "zip", "long": "int",
    "raw_input": "input", "reduce": "functools.reduce", "unichr": "chr", "unicode": "str", "xrange": "range",
    "ConfigParser": "configparser", "Queue": "queue", "StringIO": "io", "cPickle": "pickle",
    "urllib2": "urllib.request", "has_key": "the word `in`",
}  # fmt: skip


def _report(kind: type[BaseException], error: BaseException, traceback: types.TracebackType | None) -> None:
    """Python's own report of an error that nobody caught, from the script on, with a hint where it is Python 2's."""
    script = sys.modules["__main__"].__file__
    while traceback and traceback.tb_frame.f_code.co_filename != script:
        traceback = traceback.tb_next
    frame = traceback
    while frame:
        if frame.tb_next and frame.tb_next.tb_frame.f_code.co_filename.startswith(HERE):
            frame.tb_next = None  # how a missing name was looked for
        frame = frame.tb_next
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        place, line = f"{error.filename}, line {error.lineno}", (error.text or "").strip()
        hint = f"if this is Python 2, `pip install fissix; python -m fissix -w {error.filename}` rewrites most of it"
        print(f"error: {place}: {error.msg}: {line}; {hint}", file=sys.stderr)
        return
    sys.__excepthook__(kind, error.with_traceback(traceback), traceback)
    name = getattr(error, "name", None)
    if isinstance(error, NameError | AttributeError | ImportError) and name in PYTHON_2:
        print(
            f"hint: {name} was Python 2's; use {PYTHON_2[name]}, or let 2to3 (now fissix) rewrite the script",
            file=sys.stderr,
        )


class _Installed:
    """What installs the old modules where it is unpickled."""

    def __reduce__(self) -> tuple:
        home = os.path.dirname(os.path.dirname(HERE))  # which the directory of the script has displaced in sys.path
        return exec, (f"import sys; sys.path.append({home!r}); from tfcompat import legacy; legacy.install()",)


def _install_in_children() -> None:
    """Processes that are spawned import the script anew, before which they unpickle what is prepared for them."""
    prepared = spawn.get_preparation_data
    spawn.get_preparation_data = lambda name: {"tfcompat": _Installed(), **prepared(name)}
    multiprocessing.set_forkserver_preload([])  # else that server imports the script without what is prepared


def main() -> None:
    """Takes the script's place in this process; what it raises and how it exits is its own."""
    if len(sys.argv) < 2:
        print(USAGE, file=sys.stderr)
        sys.exit(2)
    script = sys.argv[1]
    if script in ("-h", "--help"):
        print(USAGE)
        return
    try:
        with open(script, "rb") as file:
            source = file.read()
    except OSError as error:
        print(f"error: {script} cannot be read: {error.strerror}\n{USAGE}", file=sys.stderr)
        sys.exit(2)
    legacy.install()
    _install_in_children()
    as_main = types.ModuleType("__main__")
    as_main.__file__, as_main.__builtins__ = os.path.abspath(script), builtins
    sys.modules["__main__"] = as_main
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.realpath(script))  # where Python looks for a script's neighbours
    sys.excepthook = _report
    exec(compile(source, as_main.__file__, "exec", dont_inherit=True), as_main.__dict__)


if __name__ == "__main__":
    main()
