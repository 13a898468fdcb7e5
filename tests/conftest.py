import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tiny_net


# By the CPU time that they take, 100 to 30 seconds.
LONG = ("test_train.py", "test_reliability.py", "test_slim_parity.py", "test_resume.py", "test_recipes.py")
LONG += ("test_nets.py", "test_keras_files.py", "test_python_api.py", "test_export.py", "test_legacy.py")
LONG += ("test_batches.py",)


def pytest_collection_modifyitems(items):
    """Long files first: a file goes to one worker, and a long one at the end leaves the other without work.

    pytest-xdist keeps to this with --no-loadscope-reorder; else it starts with the files of the most tests.
    """
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory):
    """The digits shards, made once."""
    from pipeline.convert import convert

    directory = tmp_path_factory.mktemp("data") / "digits"
    convert("digits", str(directory))
    return str(directory)


@pytest.fixture(autouse=True)
def _undo_determinism():
    """Training turns op determinism on for the process, after which unseeded random ops raise in other tests."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config

        config.disable_op_determinism()
