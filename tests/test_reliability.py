"""A run cannot be lost: docs/reliability.md's promises, each broken on purpose. test_resume.py has the kills."""

import contextlib
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

import train as training
from checkpoints import CheckpointDirectory, newest_valid
from engine.session import StopSignal
from errors import TrainingError, UserError, reported
from nets import NETS, Net
from pipeline.images import encode_png
from pipeline.prepare import make_data
from tfcompat import slim, tf
from tiny_net import configured, evaluated, planned, send_signal_at, tiny_arg_scope, train

DRIVER = pathlib.Path(__file__).parent / "tiny_net.py"
ROOT = DRIVER.parent.parent


def values(prefix):
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name, strict=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory, digits_data):
    directory = tmp_path_factory.mktemp("runs") / "run"
    assert train(configured("--run-dir", str(directory), "--data", digits_data, "--ema-decay", "0.9")) == 0
    return directory


# 2. The order of examples


def test_a_run_that_is_stopped_at_any_step_of_an_epoch_sees_what_it_would_have_seen(tmp_path, digits_data):
    model = training.build(planned("--data", digits_data, "--run-dir", str(tmp_path / "run"), "--batch-size", "210"))
    step = {**model.step, "rows": model.training.batches.rows}
    epoch, steps = 6, 8
    with tf.Session(graph=model.graph) as session:
        session.run(model.initializers[0])
        session.run(model.initializers[1])
        checkpoints = CheckpointDirectory(str(tmp_path / "ckpt"), steps, model.saver)
        model.training.batches.start(session)
        expected = []
        for number in range(1, steps + 1):
            expected.append(session.run(step)["rows"].tolist())
            checkpoints.save(session, number)
    assert len({row for rows in expected[:epoch] for row in rows}) == 1259  # 6 × 210 > 1259: the second has begun
    for number in range(1, epoch + 1):
        with tf.Session(graph=model.graph) as session:
            model.saver.restore(session, str(tmp_path / f"ckpt/model.ckpt-{number}"))
            model.training.batches.start(session, int(session.run(tf.train.get_global_step(model.graph))))
            assert [session.run(step)["rows"].tolist() for _ in range(steps - number)] == expected[number:]


# 3. Damaged checkpoints

NEWEST = "model.ckpt-40"
DATA, INDEX = f"{NEWEST}.data-00000-of-00001", f"{NEWEST}.index"


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "bit flip": lambda run: flip_a_bit(run / DATA),
    "data cut": lambda run: os.truncate(run / DATA, 100),
    "index cut": lambda run: os.truncate(run / INDEX, 50),
    "index missing": lambda run: (run / INDEX).unlink(),
    "data missing": lambda run: (run / DATA).unlink(),
    "state file empty": lambda run: os.truncate(run / "checkpoint", 0),
    "state file missing": lambda run: (run / "checkpoint").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(damage, run, tmp_path, digits_data, capsys):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/best")  # which holds the same step, and would be gone on from
    DAMAGES[damage](tmp_path / "run")
    assert train(configured("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--ema-decay", "0.9")) == 0
    out, err = capsys.readouterr()
    if "state" in damage:
        assert "is finished: step 40 of 40" in out
    else:
        assert f"resuming {tmp_path}/run from {tmp_path}/run/model.ckpt-30, step 30 of 40" in out
        assert f"{NEWEST} cannot be read" in err
        assert_equal(values(run / NEWEST), values(tmp_path / "run" / NEWEST))
        assert newest_valid(str(tmp_path / "run")).endswith(NEWEST)


# 4. is in engine/test_checkpoint.py

# 5. Signals and full disks


def started(*arguments):
    return subprocess.Popen(
        [sys.executable, str(DRIVER), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_saves_draws_the_curves_and_exits_with_130(run, tmp_path, digits_data):
    place = ("--run-dir", tmp_path / "run", "--data", digits_data, "--ema-decay", "0.9")
    stopped = started("--signal", "SIGINT", "--at-step", 13, *place)
    out, err = stopped.communicate()
    assert stopped.returncode == 130, err
    assert "stopped by a signal at step 13, which is saved" in out
    assert cv2.imread(str(tmp_path / "run/curves.png")) is not None
    assert newest_valid(str(tmp_path / "run")).endswith("-13")
    assert train(configured(*map(str, place))) == 0
    assert_equal(values(run / NEWEST), values(tmp_path / "run" / NEWEST))


def test_a_second_signal_stops_at_once(tmp_path, digits_data):
    place = ("--run-dir", tmp_path / "run", "--data", digits_data)
    process = started("--signal", "SIGTERM", "--at-step", 13, "--hang", *place)
    for line in process.stderr:
        if "a second signal stops at once" in line:
            break
    time.sleep(0.2)
    assert process.poll() is None  # it still works at its step
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert newest_valid(str(tmp_path / "run")).endswith("-10")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_every_signal_that_ends_a_program_saves(name, tmp_path, digits_data, monkeypatch):
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data)
    before = signal.getsignal(getattr(signal, name))
    monkeypatch.setattr(training, "run_step", training.run_step)
    send_signal_at(name, 3, False)
    assert train(configured(*place)) == 128 + getattr(signal, name)
    assert newest_valid(str(tmp_path / "run")).endswith("-3")
    assert signal.getsignal(getattr(signal, name)) == before


def test_a_closed_terminal_sends_sighup_twice():
    with StopSignal() as stop:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
        assert stop.exit_code == 129

    def interrupted():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:  # where partial output is removed
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(SystemExit) as ended, reported():
        interrupted()
    assert ended.value.code == 129


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with reported(), StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.exit_code is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_output_to_a_program_that_the_signal_has_ended_is_no_error():
    """As in train.py | tee log, where Ctrl-C ends both."""
    reader, writer = os.pipe()
    kept = os.dup(1)
    try:
        os.dup2(writer, 1)
        os.close(reader)
        with pytest.raises(BrokenPipeError):
            os.write(1, b"before")
        with StopSignal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_code == 130
        os.write(1, b"after")
    finally:
        os.dup2(kept, 1)
        for descriptor in (kept, writer):
            os.close(descriptor)


def test_a_signal_in_tensorflows_import_ends_without_a_traceback():
    program = "import errors, os, signal; errors.quit_on_signals(); os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    for script in ("train.py", "eval.py", "predict.py", "export.py"):
        first = re.search(r"quit_on_signals\(\)|^from classifier|^from checkpoints", (ROOT / script).read_text(), re.M)
        assert first[0] == "quit_on_signals()"


def test_a_signal_while_the_data_are_made_leaves_none(tmp_path, monkeypatch):
    told, run = tmp_path / "told", subprocess.Popen
    slow = f"import os, signal, time; signal.signal(15, lambda *_: os.mkdir({str(told)!r}) or os._exit(0)); "
    slow += "os.kill(os.getppid(), 15); time.sleep(9)"
    monkeypatch.setattr(subprocess, "Popen", lambda _, **options: run([sys.executable, "-c", slow], **options))
    with pytest.raises(SystemExit) as ended, reported():
        make_data("digits", str(tmp_path / "data"), None)
    assert ended.value.code == 143
    assert told.exists()  # it could remove its partial output


def validations(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["split"] == "validation"]


@pytest.mark.parametrize("step", [15, 40])  # in the midst, and the last
def test_a_signal_ends_a_validation_which_is_made_up_for(step, run, tmp_path, digits_data, monkeypatch):
    evaluate = training.evaluate

    def interrupted(session, batches, nets, stopped):
        if session.run(tf.train.get_global_step(session.graph)) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return evaluate(session, batches, nets, stopped)

    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--ema-decay", "0.9")
    monkeypatch.setattr(training, "evaluate", interrupted)
    assert train(configured(*place)) == 143
    assert newest_valid(str(tmp_path / "run")).endswith(f"-{step}")
    assert [row["step"] for row in validations(tmp_path / "run")] == [s for s in (15, 30) if s < step]
    monkeypatch.undo()
    assert train(configured(*place)) == 0
    assert validations(tmp_path / "run") == validations(run)
    assert_equal(values(run / NEWEST), values(tmp_path / "run" / NEWEST))
    assert_equal(values(newest_valid(str(run / "best"))), values(newest_valid(str(tmp_path / "run/best"))))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    directory = tmp_path / "small"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", directory], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield directory
    subprocess.run(["umount", "-l", directory], check=True)


def test_a_full_disk_is_told_and_costs_nothing_that_was_saved(run, small_disk, digits_data, tmp_path):
    place = ("--run-dir", small_disk / "run", "--data", digits_data, "--ema-decay", "0.9")
    first = started("--signal", "SIGTERM", "--at-step", 20, *place)
    assert first.wait() == 143, first.stderr.read()
    before = values(newest_valid(str(small_disk / "run")))
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:  # to the last byte
            file.write(b"x" * 512)
    full = started(*place)
    _, err = full.communicate()
    assert full.returncode == 1
    assert "No space left on device" in err
    assert "earlier checkpoints are kept" in err
    assert "Traceback" not in err
    assert_equal(before, values(newest_valid(str(small_disk / "run"))))
    filler.unlink()
    assert train(configured(*map(str, place))) == 0
    assert_equal(values(run / NEWEST), values(small_disk / "run" / NEWEST))


def test_a_save_that_fails_leaves_nothing_half_written(tmp_path):
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("weights", initializer=np.zeros(10_000, np.float32))
        session.run(tf.global_variables_initializer())
        checkpoints = CheckpointDirectory(str(tmp_path), 3, tf.train.Saver(max_to_keep=None))
        checkpoints.save(session, 1)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as a full disk, without the right to mount one
        try:
            with pytest.raises(TrainingError, match=r"step 2 cannot be saved.*earlier checkpoints are kept"):
                checkpoints.save(session, 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# 6. Nothing that is not finite is published


@tf.custom_gradient
def zero_without_gradient(x):
    """0, whose gradient is NaN whatever comes from above: the sum over the logits' gradients is 0 but for rounding."""
    return x * 0.0, lambda above: above * float("nan")


def sick(inputs, num_classes, is_training, scope, at_step, what):
    """A net that falls ill at a step: its gradient alone, its loss, or a variable that is not trained."""
    with tf.variable_scope(scope, "sick", [inputs]):
        logits = slim.fully_connected(slim.flatten(inputs), num_classes, activation_fn=None, scope="logits")
        healthy = tf.get_variable("healthy", initializer=0.0)
        patient = tf.get_variable("patient", initializer=0.0)
        statistic = tf.get_variable("statistic", initializer=0.0, trainable=False)
        if is_training:
            now = tf.equal(tf.train.get_global_step(), at_step - 1)
            ill = {
                "gradient": lambda: zero_without_gradient(patient),
                "loss": lambda: patient + float("nan"),
                "variable": lambda: patient * 0.0,
            }[what]
            logits += tf.cond(now, ill, lambda: patient * 0.0) + healthy
            if what == "variable":
                bad = tf.assign(statistic, tf.where(now, float("inf"), 0.0))
                tf.add_to_collection(tf.GraphKeys.UPDATE_OPS, bad)
        return logits, {}


@pytest.mark.parametrize("at_step", [7, 10])  # between two saves, and on one
@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("gradient", r"the gradient of sick/patient is not finite at step {}, learning rate 0\.00"),
        (
            "loss",
            r"the loss is nan and the gradient of sick/logits/weights is not finite at step {}, learning rate 0\.00",
        ),
        ("variable", r"sick/statistic is not finite at step {}, learning rate 0\.00"),
    ],
)
def test_what_is_not_finite_is_neither_saved_nor_told(what, message, at_step, tmp_path, digits_data, monkeypatch):
    if what == "variable" and at_step == 7:
        pytest.skip("it is looked at before a save or a validation; until the next it may recover")
    net = Net(
        function=lambda *args, **kwargs: sick(*args, **kwargs, at_step=at_step, what=what),
        arg_scope=tiny_arg_scope,
        scope="sick",
        heads=("logits",),
        preprocessing="digits",
        weight_decay=0.0,
        image_size=8,
    )
    monkeypatch.setitem(NETS, "sick", net)
    place = ("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--net", "sick", "--snapshot-every-steps", "5")
    with pytest.raises(TrainingError, match=message.format(at_step)) as failure:
        train(configured(*place, "--display-every-steps", "1", "--validate-every-steps", "10"))
    assert failure.value.exit_code == 1
    assert newest_valid(str(tmp_path / "run")).endswith("-5")
    assert all(np.isfinite(value).all() for value in values(newest_valid(str(tmp_path / "run"))).values())
    text = (tmp_path / "run/metrics.jsonl").read_text()
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == list(range(1, at_step)) if what != "variable" else range(1, at_step + 1)
    assert not re.search("nan|infinity", text, re.IGNORECASE)


# 7. Determinism


@pytest.mark.parametrize("cores", [1, 5])
def test_the_same_seed_gives_the_same_bits_for_any_number_of_input_threads(
    cores, run, tmp_path, digits_data, monkeypatch
):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert train(configured("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--ema-decay", "0.9")) == 0
    assert_equal(values(run / NEWEST), values(tmp_path / "run" / NEWEST))


# 8. Nothing listens, and no graph is imported


def listening(pid):
    """Whether a process, or one it started, holds a socket that listens."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    held = set()
    for descriptor in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            held.add(os.readlink(descriptor))
        except FileNotFoundError:  # closed since
            continue
    return bool(held & inodes) or any(map(listening, children))


def heard(process):
    """How often a running process was looked at, and whether it ever listened."""
    looks, found = 0, False
    while process.poll() is None:
        try:
            found |= listening(process.pid)
        except (FileNotFoundError, PermissionError, ProcessLookupError):  # it has just ended
            continue
        looks += 1
        time.sleep(0.02)
    return looks, found


def test_nothing_listens(run, tmp_path, digits_data):
    loud = "import socket, time; s = socket.create_server(('127.0.0.1', 0)); time.sleep(1)"
    assert heard(subprocess.Popen([sys.executable, "-c", loud]))[1]
    data = tmp_path / "data"  # converted on the way, by a process of its own
    picture = tmp_path / "picture.png"
    picture.write_bytes(encode_png(np.zeros((8, 8), np.uint8)).data)
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(DRIVER.parent)!r}]
import predict, tiny_net
if __name__ == "__main__":
    place = ("--run-dir", {str(tmp_path / "run")!r}, "--data", {str(data)!r}, "--total-steps", "20")
    assert tiny_net.train(tiny_net.configured(*place)) == 0
    tiny_net.evaluated({str(run)!r})
    tiny_net.exported({str(run)!r}, "frozen")
    predict.predict(predict.parse_command_line(["--ckpt", {str(run)!r}, {str(picture)!r}]))
"""
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen([sys.executable, tmp_path / "program.py"], stderr=subprocess.PIPE, text=True)
    looks, found = heard(process)
    assert process.wait() == 0, process.stderr.read()
    assert looks > 50
    assert not found
    assert (run / "export/frozen/frozen_graph.pb").exists()


# Only these import a graph: of an export, which they have made themselves.
EXPORTS = [ROOT / "exporting" / name for name in ("formats.py", "runtimes.py", "serving.py")]
# Of a frozen graph, chains of three operations that compute a constant (test_no_other_operation_of_a_graph_is_run).
EXPORTS += [ROOT / "nets/weights/frozen_graphs.py"]
# CIFAR-10's pickles, by an unpickler that calls nothing (test_unusable_pickles_run_nothing); old scripts' own np.loads.
PICKLES = [ROOT / "pipeline/convert/sources/arrays.py", ROOT / "tfcompat/restored.py", ROOT / "tfcompat/hints.py"]


def test_checkpoints_are_read_as_tensors_only(run):
    sources = [path for path in ROOT.rglob("*.py") if not {"tests", ".venv"} & set(path.relative_to(ROOT).parts)]
    assert len(sources) > 30
    for path in sources:
        graphs = "import_meta_graph" if path in EXPORTS else "import_meta_graph|import_graph_def"
        pickles = "" if path in PICKLES else r"|import pickle|pickle\.load|allow_pickle=True"
        assert not re.search(graphs + pickles, path.read_text()), path
    assert not list(run.rglob("*.meta"))
    assert evaluated(run).examples == 359


def test_a_run_directory_of_damaged_checkpoints_says_what_to_do(run, tmp_path, digits_data):
    shutil.copytree(run, tmp_path / "run")
    for path in (tmp_path / "run").rglob("model.ckpt-*.index"):
        os.truncate(path, 20)
    before = sorted(path.name for path in (tmp_path / "run").iterdir())
    with pytest.raises(UserError, match=r"none of the 4 checkpoints .* can be read; restore them from a backup, or"):
        train(configured("--run-dir", str(tmp_path / "run"), "--data", digits_data, "--ema-decay", "0.9"))
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == before
