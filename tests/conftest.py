import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # tiny_net


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
