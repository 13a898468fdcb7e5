"""Imports run one way: commands, then classifier and run_directory, then the packages, config, files, tfcompat."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGES = ("nets", "pipeline", "engine", "prediction", "exporting")
FOLDERS = (*PACKAGES, "tfcompat", "examples")
FILES = sorted([*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))])
PRODUCT = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in FILES}
TENSORFLOW = {"tensorflow", "tf_slim", "tf_keras", "keras"}


def identified(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """First words of all that a file imports, inside functions too."""
    words = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            words |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            words.add(path.relative_to(ROOT).parts[0] if node.level else node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "__import__"):
            words |= {word.value.split(".")[0] for word in ast.walk(node) if isinstance(getattr(word, "value", 0), str)}
    return words


BASE = {"channels", "errors", "files", "sizes", "fonts", "own_code", "tfcompat", "checkpoints"}
ALLOWED = {
    "channels": set(),
    "errors": set(),
    "tfcompat": {"tfcompat"},
    "files": {"errors"},
    "own_code": {"errors", "files"},
    "fonts": set(),
    "option_records": {"errors", "files", "sizes"},
    "sizes": set(),
    "config": {"errors", "files", "option_records", "sizes"},
    "presets": {"config", "errors"},
    "checkpoints": {"errors", "files", "tfcompat"},
    "nets": {"nets", *BASE},  # never the configuration
    "pipeline": {"pipeline", "config", *BASE},
    "engine": {"engine", "config", *BASE},
    "prediction": {"prediction", "pipeline", "config", *BASE},
    "exporting": {"exporting", "pipeline", "config", *BASE},
    "run_directory": {"config", *PACKAGES, *BASE},
    "outcome": {"run_directory", "config", *PACKAGES, *BASE},
    "classifier": {"run_directory", "config", *PACKAGES, *BASE},
}


def allowed(path):
    """The parts of the product that a file may import; None for all, in the commands and examples."""
    return ALLOWED.get(path.relative_to(ROOT).parts[0].removesuffix(".py"))


def test_the_files_are_found():
    assert {"config", "errors", "tfcompat", "train", *PACKAGES} <= PRODUCT
    assert imported(ROOT / "tfcompat" / "__init__.py") >= {"tensorflow", "tf_slim"}
    assert imported(ROOT / "train.py") >= {"config", "errors", "tfcompat", "nets", "pipeline", "engine"}


@pytest.mark.parametrize("path", FILES, ids=identified)
def test_imports_run_one_way(path):
    if allowed(path) is not None:
        assert imported(path) & PRODUCT <= allowed(path)


@pytest.mark.parametrize("path", FILES, ids=identified)
def test_only_tfcompat_imports_tensorflow(path):
    assert imported(path) & TENSORFLOW == set() or path.parent == ROOT / "tfcompat"


@pytest.mark.parametrize("path", FILES, ids=identified)
def test_a_file_can_be_read_in_one_sitting(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=identified)
def test_calls_work_in_python_3_10(path):
    """Default arguments and parameters that came with 3.11; Ruff finds newer syntax, vermin all else."""
    for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
        name, given = getattr(call.func, "attr", None), len(call.args) + len(call.keywords)
        assert name != "file_digest", f"line {call.lineno}: use pooch.file_hash"
        assert name not in ("from_bytes", "to_bytes") or given >= 2, f"line {call.lineno} has no byteorder"
        assert name != "catch_warnings" or {k.arg for k in call.keywords} <= {"record"}, f"line {call.lineno}"


@pytest.mark.parametrize("modules", ["presets", "pipeline.convert"])
def test_no_tensorflow_is_loaded(modules):
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert set(modules.split(", ")) <= loaded
    assert loaded & (TENSORFLOW | {"tfcompat"}) == set()
