"""Gradient norms by layer, of a deep net with and without shortcuts.

    python examples/gradient_norms.py [--data DIR] [--depth 56] [--steps 0 1 50] [--out PNG]

`plain_56` and `preact_resnet_56` differ only in the shortcuts (nets/preact_resnet.py). Both are trained with momentum,
with three seeds. After the given numbers of steps, the L2 norm of the gradient of the cross-entropy with respect to
every kernel is measured on a few batches, without an update. The drawing has means over the batches, by depth; the
table has medians over the seeds.

DIR holds shards made by pipeline.convert, for example of CIFAR-10. By default scikit-learn's digits are converted into
data/digits, unless they are there already. Pictures are resized to 32×32 and standardized, not augmented.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import errors
from engine.metrics import training_loss
from engine.optimizer import minimize
from files import check_output, expand, output_file
from nets import NETS
from pipeline.batches import training_batches
from pipeline.dataset import Dataset, has_dataset
from pipeline.prepare import make_data
from pipeline.preprocess import Preprocessor
from tfcompat import op_determinism, tf

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NETWORKS = ("plain", "preact_resnet")
DIGITS = "data/digits"
SIZE, BATCH_SIZE, MEASURED_BATCHES, SEEDS = 32, 64, 4, 3
MOMENTUM = 0.9


class Measured(NamedTuple):
    """A net after one number of steps."""

    gradients: np.ndarray  # float64 [layers], norms, mean over the batches; layers in the order of the net
    kernels: np.ndarray  # float32 [layers], norms
    loss: float


def measure(name: str, data: str, steps: Sequence[int], learning_rate: float, seed: int) -> list[Measured]:
    """Trains a net and measures it after each of the given numbers of steps.

    Args:
        name: name of a net in nets/preact_resnet.py.
        data: directory of shards.
        steps: numbers of steps, ascending; 0 is the initialization.
        learning_rate: constant rate for momentum.
        seed: for the weights and the order of the pictures.
    """
    dataset = Dataset.load(data)
    with op_determinism(), tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(seed)
        preprocessor = Preprocessor("cifar", SIZE, dataset.channels)
        batches = training_batches(dataset.index("train"), preprocessor, BATCH_SIZE, seed, augment=False)
        # No weight decay: its gradient would hide small ones.
        logits, _ = NETS[name].build(batches.images, len(dataset.class_names), True, weight_decay=0.0)
        loss = training_loss(logits, batches.labels)
        rule = tf.train.MomentumOptimizer(learning_rate, MOMENTUM)
        update = minimize(rule, loss, tf.trainable_variables(), tf.train.get_or_create_global_step())
        names = [variable.op.name for variable in update.variables]
        layers = [i for i, name in enumerate(names) if name.endswith("weights") and "/shortcut/" not in name]
        kernels = tf.stack([tf.norm(update.variables[i]) for i in layers])
        session.run(tf.global_variables_initializer())
        batches.start(session)
        measured, step = [], 0
        for until in steps:
            for _ in range(until - step):
                session.run(update.op)
            step = until
            rows = [session.run((update.gradient_norms, loss)) for _ in range(MEASURED_BATCHES)]
            norms, losses = zip(*rows, strict=True)
            gradients = np.mean(norms, axis=0, dtype=np.float64)[layers]
            measured.append(Measured(gradients, session.run(kernels), float(np.mean(losses))))
        return measured


def draw(results: dict[str, list[list[Measured]]], times: Sequence[str], path: str) -> None:
    """Draws a panel per number of steps: norms by depth, for each net the median over the seeds and their range."""
    figure, axes = plt.subplots(1, len(times), figsize=(11, 4), sharey=True, squeeze=False, layout="constrained")
    for i, (axis, time) in enumerate(zip(axes[0], times, strict=True)):
        for color, (name, runs) in zip(("C1", "C0"), results.items(), strict=True):
            norms = np.array([run[i].gradients for run in runs])
            depth = np.arange(1, norms.shape[1] + 1)
            axis.fill_between(depth, norms.min(0), norms.max(0), color=color, alpha=0.25, lw=0)
            axis.plot(depth, np.median(norms, 0), color=color, label=name, lw=1.5)
        axis.set(yscale="log", title=time, xlabel="layer")
        axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("L2 norm of the kernel's gradient")
    axes[0, 0].legend()
    with output_file("--out", path) as partial:
        figure.savefig(partial, dpi=80)
    plt.close(figure)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=expand, metavar="DIR", help=f"shards (default: {DIGITS}, made if missing)")
    parser.add_argument("--depth", type=int, choices=[20, 56], default=56, help="of both nets (default: %(default)s)")
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 1, 50], metavar="N", help="default: 0 1 50")
    parser.add_argument("--learning-rate", type=float, default=0.1, metavar="RATE", help="default: %(default)s")
    parser.add_argument("--out", type=expand, default="gradient_norms.png", metavar="PNG", help="default: %(default)s")
    args = parser.parse_args()
    if args.steps != sorted(set(args.steps)) or args.steps[0] < 0:
        raise errors.UserError(f"--steps is {args.steps}; it must ascend, from 0 or more, for example 0 1 50")
    check_output("--out", args.out, ".png")
    if not args.data and not has_dataset(DIGITS):
        make_data("digits", DIGITS, None)
    times = [f"after {step} step{'s' * (step != 1)}" if step else "at initialization" for step in args.steps]
    results = {}
    print(f"{'gradient norm by the kernel of layer':<39}{'1':>10}{'middle':>10}{'last':>10}   kernel 1   loss")
    for name in (f"{network}_{args.depth}" for network in NETWORKS):
        results[name] = [
            measure(name, args.data or DIGITS, args.steps, args.learning_rate, seed) for seed in range(SEEDS)
        ]
        for i, time in enumerate(times):
            norms, kernels = (np.median([run[i][field] for run in results[name]], axis=0) for field in (0, 1))
            row = "".join(f"{norms[place]:>10.3g}" for place in (0, len(norms) // 2, -1))
            loss = np.median([run[i].loss for run in results[name]])
            print(f"{name + ' ' + time:<39}{row}{kernels[0]:>11.3g}{loss:>7.3f}", flush=True)
    draw(results, times, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    with errors.reported():
        main()
