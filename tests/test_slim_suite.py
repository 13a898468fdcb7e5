"""tf_slim's own tests for layers, ops, learning and nets, as installed, run on tfcompat.

As a program, it runs these tests and writes the names of those that passed and failed:

    python tests/test_slim_suite.py RESULT.json
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
KNOWN_FAILURES = ROOT / "tests" / "golden" / "slim_failures.json"
TEST_FILES = ("layers/*_test.py", "ops/*_test.py", "learning_test.py", "nets/*_test.py")
PASSING = 735


@pytest.mark.slow
def test_tf_slims_own_tests_pass_except_the_known_failures(tmp_path):
    result_path, log_path = tmp_path / "result.json", tmp_path / "progress.txt"
    with log_path.open("w") as log:  # one line per test, for `tail -f`
        subprocess.run(
            [sys.executable, __file__, result_path],
            stdout=log, stderr=log, env=os.environ | {"TMPDIR": str(tmp_path)}, timeout=1800,
        )  # fmt: skip
    assert result_path.exists(), f"the run died: {log_path.read_text()[-2000:]}"
    result = json.loads(result_path.read_text())
    causes = json.loads(KNOWN_FAILURES.read_text())
    assert {test: error for test, error in result["failures"].items() if test not in causes} == {}
    assert set(causes) - set(result["failures"]) == set(), "known failures that no longer fail"
    assert len(result["passed"]) == PASSING


class _Result(unittest.TextTestResult):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.passed = []

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed.append(test.id())


class _Loader(unittest.TestLoader):
    def getTestCaseNames(self, case):
        # TensorFlow's TestCase.test_session is a context manager, but unittest takes it for a test because of its name.
        return [name for name in super().getTestCaseNames(case) if name != "test_session"]


def _error(traceback: str) -> str:
    """The line of the traceback with the exception's name; the message may have several more lines."""
    lines = [line for line in traceback.splitlines() if re.match(r"[\w.]+(Error|Exception|Exit|Interrupt)\b", line)]
    return lines[-1] if lines else traceback.strip().splitlines()[-1]


def main(result_path: str) -> None:
    """Runs the tests and writes {"passed": [id], "skipped": {id: reason}, "failures": {id: exception}}."""
    sys.path[0] = str(ROOT)  # not tests/, because its folders have the names of packages
    import importlib

    from absl import flags

    from tfcompat import slim

    flags.FLAGS([__file__])  # TensorFlow's test cases get a temporary directory from them
    # The set-up of these tests calls int() on an array of one element, an error in NumPy 2.4: 18 tests would not start.
    learning_test = importlib.import_module("tf_slim.learning_test")
    learning_test.int = lambda number: int(number.item())

    slim_root = pathlib.Path(slim.__file__).parent
    paths = sorted(path for pattern in TEST_FILES for path in slim_root.glob(pattern))
    names = [".".join(("tf_slim", *path.relative_to(slim_root).with_suffix("").parts)) for path in paths]
    # By import, not by name: tf_slim's attributes `layers` and `ops` are not the packages of these names.
    suite = unittest.TestSuite(_Loader().loadTestsFromModule(importlib.import_module(name)) for name in names)
    result = unittest.TextTestRunner(verbosity=2, resultclass=_Result).run(suite)
    report = {
        "passed": result.passed,
        "skipped": {test.id(): reason for test, reason in result.skipped},
        "failures": {test.id(): _error(traceback) for test, traceback in result.failures + result.errors},
    }
    pathlib.Path(result_path).write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1])
