"""A net of one convolution, batch norm and dropout, and train.py with it:

    python tests/tiny_net.py [--signal NAME --at-step N [--hang]] --run-dir DIR --data DIR [--key value ...]

With --signal, the process sends itself that signal once N steps of this process have run; with --hang, it does not get
on after that.
"""

import os
import signal
import sys
import time

import cv2
import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import errors
import eval as evaluation
import export
import run_directory
import train as training
from nets import NETS, Net
from presets import parse_command_line
from tfcompat import batch_norm, dropout, slim, tf


def tiny(inputs, num_classes, is_training, scope):
    with tf.variable_scope(scope, "tiny", [inputs]):
        norm = {"is_training": is_training, "decay": 0.9}
        net = slim.conv2d(inputs, 4, 3, normalizer_fn=batch_norm, normalizer_params=norm)
        net = dropout(slim.flatten(net), is_training=is_training)
        return slim.fully_connected(net, num_classes, activation_fn=None, scope="logits"), {}


def tiny_arg_scope(weight_decay):
    with slim.arg_scope(
        [slim.conv2d, slim.fully_connected], weights_regularizer=slim.l2_regularizer(weight_decay)
    ) as scope:
        return scope


NETS["tiny"] = Net(
    function=tiny,
    arg_scope=tiny_arg_scope,
    scope="tiny",
    heads=("logits",),
    preprocessing="digits",
    weight_decay=1e-4,
    image_size=8,
)
ARGUMENTS = ["--net", "tiny", "--total-steps", "40", "--batch-size", "32", "--compute-threads", "2"]
ARGUMENTS += ["--snapshot-every-steps", "10", "--validate-every-steps", "15", "--display-every-steps", "10"]
ARGUMENTS += ["--optimizer", "adam", "--learning-rate", "0.01"]


def configured(*args):
    return parse_command_line([*ARGUMENTS, *args])


def train(config):
    """The exit code of a training."""
    return training.train(config).exit_code


def planned(*args):
    """The plan of a training with these arguments."""
    return run_directory.prepare(run_directory.resolve(configured(*args)))


def evaluated(ckpt, **options):
    return evaluation.evaluate(evaluation.EvalOptions(str(ckpt), **options))[1].summary


def exported(ckpt, format, **options):
    return export.main(export.ExportOptions(str(ckpt), format=format, **options))


def picture_folder(directory, classes=("cat", "dog"), count=12):
    rng = np.random.default_rng(0)
    for label, name in enumerate(classes):
        (directory / name).mkdir(parents=True)
        for i in range(count):
            pixels = (rng.integers(0, 100, (20, 24, 3)) + 100 * label).astype(np.uint8)
            cv2.imwrite(str(directory / name / f"{i}.jpg"), pixels)
    return directory


def tensors(prefix):
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def send_signal_at(name, at_step, hang):
    run_step, steps = training.run_step, 0

    def counted(*args, **kwargs):
        nonlocal steps
        values = run_step(*args, **kwargs)
        steps += 1
        if steps == at_step:
            os.kill(os.getpid(), getattr(signal, name))
            while hang:
                time.sleep(0.1)
        return values

    training.run_step = counted


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[0] == "--signal":
        hang = arguments[4] == "--hang"
        send_signal_at(arguments[1], int(arguments[3]), hang)
        arguments = arguments[4 + hang :]
    with errors.reported():
        sys.exit(train(configured(*arguments)))
