"""A user's own net, preprocessing and source: docs/your-own.md as printed, and which code may run when."""

import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

import nets
import own_code
import predict
import tiny_net
from checkpoints import newest_valid
from classifier import Classifier
from errors import UserError
from nets import new
from pipeline.convert import convert
from pipeline.preprocess import Preprocessor
from presets import parse_command_line
from sizes import Size
from tfcompat import tf
from train import train

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs/your-own.md").read_text()
FILES = {name: code for code, name in re.findall(r"```python\n(# (\w+\.py)\n.*?)```", PAGE, re.DOTALL)}
OPTIONS = ["--net", "se_net.py:se_net", "--preprocessing", "my_prep.py:bright", "--image-size", "16"]
OPTIONS += ["--dataset", "my_source.py:pictures", "--source", "raw", "--run-dir", "run", "--batch-size", "8"]
OPTIONS += [
    "--validate-every-steps",
    "2",
    "--snapshot-every-steps",
    "2",
    "--compute-threads",
    "2",
    "--schedule",
    "constant",
]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """The list of code that this user has run is one of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    own_code._allowed.clear()
    nets.own.own_net.cache_clear()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A directory with the files of the page and 24 pictures, as the working directory."""
    directory = tmp_path / "home"
    directory.mkdir()
    for name, code in FILES.items():
        (directory / name).write_text(code)
    tiny_net.picture_folder(tmp_path / "pictures")
    (directory / "raw").mkdir()
    for file in (tmp_path / "pictures").rglob("*.jpg"):
        import cv2

        cv2.imwrite(str(directory / "raw" / f"{file.stem}_{file.parent.name}.png"), cv2.imread(str(file)))
    monkeypatch.chdir(directory)
    return directory


def trained(steps, *more):
    return train(parse_command_line(["folder", *OPTIONS, "--total-steps", str(steps), *more]))


def weights(run):
    reader = tf.train.load_checkpoint(newest_valid(str(run)))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def forget():
    """As in a new process."""
    own_code._allowed.clear()
    nets.own.own_net.cache_clear()


def test_the_page_has_three_files():
    assert sorted(FILES) == ["my_prep.py", "my_source.py", "se_net.py"]


def test_the_files_of_the_page_train_resume_evaluate_and_predict(home):
    assert trained(4, "--run-dir", "whole").step == 4
    trained(2)
    forget()
    trained(4)  # resumed
    whole, resumed = weights("whole"), weights("run")
    assert whole.keys() == resumed.keys()
    assert all(np.array_equal(whole[name], resumed[name]) for name in whole)
    assert {"se_net/unit3/excite/weights", "se_net/logits/weights"} <= whole.keys()
    assert sorted(path.name for path in (home / "run/code").iterdir()) == ["code.json", "my_prep.py", "se_net.py"]
    forget()
    classifier = Classifier.load("run")
    assert classifier.evaluate("train").summary.examples == 20
    assert classifier.net.heads == ("logits",)
    assert len(classifier.predict("raw")) == 24


def test_the_page_holds_the_whole_of_what_is_allowed(home):
    trained(2)
    (home / "se_net.py").rename(home / "elsewhere.py")
    forget()
    for step in (lambda: Classifier.load("run"), lambda: trained(4)):
        with pytest.raises(UserError, match=r"se_net.py is gone.*--allow-code"):
            step()
        forget()
    assert Classifier.load("run", allow_code=True).evaluate("train").summary.examples == 20
    forget()
    assert trained(4, "--allow-code").step == 4

    (home / "se_net.py").write_text(FILES["se_net.py"].replace("ratio=4", "ratio=2"))
    forget()
    with pytest.raises(UserError, match=r"is not what .* was trained with"):
        Classifier.load("run")


def test_a_changed_file_is_refused_on_resume_and_the_difference_is_shown(home, capfd):
    trained(2)
    (home / "se_net.py").write_text(FILES["se_net.py"].replace("ratio=4", "ratio=2"))
    forget()
    with pytest.raises(UserError, match=r"se_net.py has changed since run was started.*--run-dir"):
        trained(4)
    assert "-def squeeze_excite(net, ratio=4):\n+def squeeze_excite(net, ratio=2):\n" in capfd.readouterr().err
    with pytest.raises(UserError, match="has changed"):
        Classifier.load("run", net="se_net.py:se_net")
    assert json.loads((home / "run/config.json").read_text())["total_steps"] == 2


def test_a_moved_file_is_the_same_code(home):
    trained(2)
    (home / "moved").mkdir()
    for name in ("se_net.py", "my_prep.py"):
        (home / name).rename(home / "moved" / name)
    forget()
    options = {"net": "moved/se_net.py:se_net", "preprocessing": "moved/my_prep.py:bright"}
    assert Classifier.load("run", **options).evaluate("train").summary.examples == 20
    moved = ["--net", options["net"], "--preprocessing", options["preprocessing"]]
    assert trained(4, *moved).step == 4


HOSTILE = "import pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture
def hostile(home, tmp_path):
    """A run directory from elsewhere whose code would write a file, and the path of that file."""
    proof = tmp_path / "executed"
    for name in ("se_net.py", "my_prep.py"):
        (home / name).write_text(FILES[name] + HOSTILE.format(str(proof)))
    trained(2)
    assert proof.exists()
    proof.unlink()
    shutil.rmtree(tmp_path / "cache")  # of the other user
    forget()
    return home / "run", proof


@pytest.mark.parametrize("where", ["gone", "there", "its own copy", "any file"])
def test_a_hostile_run_directory_runs_nothing(hostile, where, home):
    run, proof = hostile
    config = json.loads((run / "config.json").read_text())
    if where == "its own copy":
        config |= {"net": f"{run}/code/se_net.py:se_net", "preprocessing": f"{run}/code/my_prep.py:bright"}
    if where == "any file":
        config["net"] = f"{home}/raw/../se_net.py:unit"
    (run / "config.json").write_text(json.dumps(config))
    if where == "gone":
        (home / "se_net.py").unlink()
        (home / "my_prep.py").unlink()
    for step in (
        lambda: tiny_net.evaluated("run"),
        lambda: predict.predict(predict.PredictOptions("run", pictures=("raw",))),
        lambda: tiny_net.exported("run", "onnx", out="model"),
        lambda: train(parse_command_line(["--run-dir", "run", "--total-steps", "4", "--source", "raw"])),
    ):
        with pytest.raises(UserError, match=r"--allow-code|has other settings|holds a run with other settings"):
            step()
        assert not proof.exists()
    assert not (home / "model").exists()


def test_the_copy_must_be_the_code_of_the_run(hostile, home):
    run, proof = hostile
    (home / "se_net.py").unlink()
    (run / "code/se_net.py").write_text(FILES["se_net.py"] + HOSTILE.format(str(proof)) + "\n")
    with pytest.raises(UserError, match="SHA-256 differs"):
        Classifier.load("run", allow_code=True)
    assert not proof.exists()


NETS = {
    "slim": "slim.fully_connected(slim.flatten(inputs), num_classes, activation_fn=None, scope='last')",
    "four axes": "slim.conv2d(inputs, num_classes, 4, padding='VALID', activation_fn=None, scope='last')",
    "layers": "tf.layers.dense(tf.layers.flatten(inputs), num_classes, name='last')",
    "variable": "tf.matmul(slim.flatten(inputs), tf.get_variable('last', [48, num_classes]))",
}


def net_file(directory, logits, record=""):
    code = "from tfcompat import slim, tf, dropout\nfrom nets import Net\n"
    code += "def mine(inputs, num_classes, is_training, scope):\n    with tf.variable_scope(scope, 'mine', [inputs]):\n"
    code += f"        return {logits}, {{}}\n{record}\n"
    (directory / "mine.py").write_text(code)
    return own_code.named(str(directory / "mine.py") + (":net" if record else ":mine"))


@pytest.mark.parametrize("kind", NETS)
def test_a_function_is_a_net_with_defaults(tmp_path, kind):
    net = nets.find(net_file(tmp_path, NETS[kind], "net = Net(function=mine, image_size=4)"))
    assert (net.scope, net.heads, net.learning_rate, net.weight_decay) == ("mine", ("last",), 0.01, 1e-4)
    shapes = net.variable_shapes(5)
    assert len(shapes) == (1 if kind == "variable" else 2)
    assert all(name.startswith("mine/last") for name in shapes)


def test_the_learning_rate_follows_from_batch_norm(tmp_path):
    logits = NETS["slim"].replace("slim.flatten(inputs)", "slim.flatten(slim.batch_norm(inputs))")
    net = nets.find(net_file(tmp_path, logits))
    assert (net.learning_rate, net.image_size, net.preprocessing) == (0.1, 224, "inception_crop")


def test_dropout_that_a_resumed_run_would_repeat_otherwise_is_reported(tmp_path, capfd):
    for layer, words in (("slim.dropout", "use tfcompat.dropout"), ("dropout", "")):
        nets.own.own_net.cache_clear()
        nets.find(net_file(tmp_path, NETS["slim"].replace("slim.flatten(inputs)", f"{layer}(slim.flatten(inputs))")))
        assert words in capfd.readouterr().err


@pytest.mark.parametrize(
    ("logits", "reason"),
    [
        (
            "slim.fully_connected(slim.flatten(inputs), 5)",
            r"has logits of shape \[2, 5\]; they must be \[N, num_classes",
        ),
        ("slim.conv2d(inputs, num_classes, 3)", r"logits of shape \[2, 224, 224, 7\]"),
        ("3", "returns no tensor"),
        ("tf.zeros([2, num_classes])", "has no variables"),
        ("slim.fully_connected(inputs.flat, 3)", r"mine.py, line 5: AttributeError"),
        ("slim.conv2d(inputs, 3, 300, padding='VALID')", r"mine.py, line 5: ValueError"),
    ],
)
def test_a_net_that_is_none_says_what_is_wrong(tmp_path, logits, reason):
    with pytest.raises(UserError, match=reason):
        nets.find(net_file(tmp_path, logits))


@pytest.mark.parametrize(
    ("code", "name", "reason"),
    [
        ("def mine(:\n", "mine", r"mine.py, line 1: SyntaxError"),
        ("import not_there\n", "mine", r"line 1: ModuleNotFoundError.*install it, or keep the code in one file"),
        ("def other(): pass\n", "mine", "has no 'mine'; it has other"),
        ("mine = 3\n", "mine", "is a int; it must be a function"),
        ("def mine(inputs, num_classes, is_training, scope): return 3\n", "mine", "must return a pair"),
        ("def mine(inputs): return 3\n", "mine", "TypeError"),
        (None, "mine", "cannot be read"),
    ],
)
def test_a_file_that_fails_says_where(tmp_path, code, name, reason):
    if code is not None:
        (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=reason):
        nets.find(own_code.named(f"{tmp_path}/mine.py:{name}"))


def test_code_that_nobody_named_does_not_run(tmp_path):
    (tmp_path / "mine.py").write_text(HOSTILE.format(str(tmp_path / "executed")))
    with pytest.raises(UserError, match="was not named on this command line"):
        nets.find(f"{tmp_path}/mine.py:mine")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("3", "returned a int"),
        ("Source(['a'], 3, {})", "must be two or more"),
        ("Source(['a', 'b'], 17, {})", "has 17 channels; it must be 1 to 16"),
        ("Source(['a', 'b'], 3, {'validation': []})", "it must have train"),
        ("Source(['a', 'b'], 3, {'test': [Example('x', 2, source)]})", "its label from 0 to 1"),
        ("Source(['a', 'b'], 3, {'test': [Example('x', 0, 'x.png')]})", "a Path or pixels"),
        ("1 / 0", r"mine.py, line 3: ZeroDivisionError"),
    ],
)
def test_a_source_that_is_none_says_what_is_wrong(tmp_path, returned, reason):
    code = f"from pipeline.convert.sources import Example, Source\ndef mine(source, cache):\n    return {returned}\n"
    (tmp_path / "mine.py").write_text(code)
    (tmp_path / "raw").mkdir()
    with pytest.raises(UserError, match=reason):
        convert(f"{tmp_path}/mine.py:mine", str(tmp_path / "out"), str(tmp_path / "raw"))
    assert not (tmp_path / "out").exists()


def test_the_template_trains_as_it_is(home, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["new", "fresh_net.py"])
    new.main()
    result = trained(2, "--net", "fresh_net.py:fresh_net", "--preprocessing", "cifar", "--image-size", "32")
    assert result.step == 2
    assert "fresh_net/unit3/conv2/weights" in weights("run")
    with pytest.raises(UserError, match="exists"):
        new.main()


WRONG = {
    "tf.cast(images, tf.float64)": r"my.py:own: its normalize returned float64 \[16, 18, 3\]; .* float32 \[16, 18, 3\]",
    "images[..., :1]": r"returned float32 \[16, 18, 1\]; it must return float32 \[16, 18, 3\]",
    "tf.transpose(images, [1, 0, 2])": r"returned float32 \[18, 16, 3\]",
    "tf.reduce_mean(images)": r"returned float32 \[\]",
    "None": "its normalize returned NoneType; it must return float32",
    "images / 0": r"my.py, line 2: ZeroDivisionError: ",
    "exit(3)": r"my.py, line 2: it calls sys.exit\(3\); raise an error instead",
}


@pytest.mark.parametrize("body", WRONG)
def test_own_preprocessing_with_another_result_is_refused(body, tmp_path):
    file = tmp_path / "my.py"
    code = body.replace("images / 0", "images / (0 // 0)")
    file.write_text(f"def own(to, images):\n    return {code}\nfrom tfcompat import tf\n")
    to = Preprocessor(own_code.named(f"{file}:own"), Size(16, 18), 3)
    with tf.Graph().as_default(), pytest.raises(UserError, match=WRONG[body]):
        to.normalize(tf.zeros([16, 18, 3]))


def test_the_steps_of_an_own_family_are_checked(tmp_path):
    file = tmp_path / "my.py"
    file.write_text(
        "from pipeline.preprocess import Family, center_crop\nfrom tfcompat import tf\n"
        "def normal(to, images): return images / 255.0\n"
        "def small(to, picture): return tf.zeros([8, 8])\n"
        "def half(to, picture, key): return tf.zeros([to.height, 8, to.channels])\n"
        "own, good = Family(small, normal, half), Family(center_crop, normal)\n"
    )
    encoded = tf.placeholder(tf.string, [])
    to = Preprocessor(own_code.named(f"{file}:own"), 16, 3)
    with pytest.raises(UserError, match=r"its cut returned float32 \[8, 8\]; it must return float32 \[\?, \?, 3\]"):
        to.evaluate(to.picture(encoded))
    with pytest.raises(UserError, match=r"its augment returned float32 \[16, 8, 3\]; .* \[16, 16, 3\]"):
        to.train(to.picture(encoded), tf.zeros([2], tf.int64))
    to = Preprocessor(own_code.named(f"{file}:good"), 16, 3)
    assert to.crops(to.picture(encoded)).shape == [10, 16, 16, 3]
    assert to.describe()["cut"] == "center_crop"


SOURCES = {
    "['a', 'b'], 3, dict(train=[of(i // 2, i % 2) for i in range(12)])": r"two examples .* '0' \(in train\), ",
    "['a', 'b'], 3, dict(train=[of(i, i % 2) for i in range(12)], test=[of(0, 0)])": r"'0' \(in train and test\)",
    "['a', 'b'], True, dict(train=[of(i, i % 2) for i in range(12)])": "has True channels; it must be 1 to 16",
    "['a', 'b'], 1.0, dict(train=[of(i, i % 2) for i in range(12)])": "has 1.0 channels",
    "['a', 'b'], 3, dict(train=[of(i, bool(i % 2)) for i in range(12)])": "with an int as its label from 0 to 1",
    "['a', 'b'], 3, dict(train=[of(i, float(i % 2)) for i in range(12)])": "with an int as its label from 0 to 1",
    "['a', 'b'], 3, dict(train=[of(i, i % 2)._replace(filename=i) for i in range(12)])": "file name 0; it must be",
    "['a', 'b'], 3, dict(train=[of(i, i % 2, 0) for i in range(12)])": r"or pixels, uint8 \[H, W, C\], not empty",
    "['a', 'b'], 3, dict(train=[of(i, i % 2) for i in range(12)]), None, None": "held_out None; it must be",
    "['a', 'b'], 3, dict(train=(of(i, i % 2) for i in range(12)))": "has splits that are no lists",
    "'ab', 3, dict(train=[of(i, i % 2) for i in range(12)])": "class names ab; they must be a list of str",
}


@pytest.mark.parametrize("data", SOURCES)
def test_an_own_source_that_breaks_a_rule_is_refused(data, tmp_path):
    (tmp_path / "my.py").write_text(
        "import numpy as np\nfrom pipeline.convert.sources import Example, Source\n"
        "def of(name, label, side=4): return Example(f'{name}', label, np.full((side, 4, 3), label * 100, np.uint8))\n"
        f"def own(source, cache): return Source({data})\n"
    )
    with pytest.raises(UserError, match=SOURCES[data]):
        convert(f"{tmp_path}/my.py:own", str(tmp_path / "out"))
    good = "['a', 'b'], np.int64(3), dict(train=[of(i, np.int64(i % 2)) for i in range(12)])"
    code = (tmp_path / "my.py").read_text().replace(data, good)
    (tmp_path / "good.py").write_text(code)
    assert convert(f"{tmp_path}/good.py:own", str(tmp_path / "out")).splits["train"] == 8


@pytest.mark.parametrize("code", ["import sys; sys.exit(3)", "def own(*_, **__): exit(3)"])
def test_own_code_that_exits_is_named(code, tmp_path):
    (tmp_path / "my.py").write_text(code)
    exits = r"my.py, line 1: it calls sys.exit\(3\)"
    with pytest.raises(UserError, match=exits):
        convert(f"{tmp_path}/my.py:own", str(tmp_path / "out"))
    with pytest.raises(UserError, match=exits):
        nets.own.own_net(own_code.named(f"{tmp_path}/my.py:own"))
