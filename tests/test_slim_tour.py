"""The code in docs/slim-tour.md runs and prints the output in the page, above all the names of the variables."""

import contextlib
import io
import pathlib
import re

import pytest

from tfcompat import tf

PAGE = pathlib.Path(__file__).resolve().parent.parent / "docs/slim-tour.md"
# A Python block, and its output if a text block follows.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@pytest.fixture
def _fresh_graph():
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()


@pytest.mark.usefixtures("_fresh_graph")
def test_the_page_runs_and_prints_its_output():
    text = PAGE.read_text()
    names = {"__name__": "slim_tour"}
    stated = 0
    for block in BLOCK.finditer(text):
        code, expected = block.groups(default="")
        first_line = text.count("\n", 0, block.start(1))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * first_line + code, str(PAGE), "exec"), names)
        assert printed.getvalue() == expected, f"below the block of line {first_line}"
        stated += bool(expected)
    assert stated == text.count("```text\n") > 5
