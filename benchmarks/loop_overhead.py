"""What the training loop costs: train.py's steps beside bare session.run calls of the same graph, turn by turn.

    python benchmarks/loop_overhead.py [--rounds 15]

preact_resnet_20 at batch 128 on the digits at 32×32. The training is train.py's own; after each 20 of its steps the
same session runs the same train op 20 times with nothing around it. Compared are the medians of the rounds.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import train as training
from presets import parse_command_line

from tfcompat import tf  # isort: skip

BLOCK = 20  # steps; two of them are logged


class Turns:
    """Replaces train.run_step: runs the loop's steps, and before each block of them as many bare steps."""

    def __init__(self):
        self.steps, self.began = 0, 0.0
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.run_step = training.run_step

    def run(self, session: tf.Session, model: training.Model, *args: object, **kwargs: object) -> dict:
        """Has the arguments and the result of train.run_step."""
        if self.steps % BLOCK == 0:
            began = time.perf_counter()
            if self.steps:
                self.loop.append(began - self.began)
            for _ in range(BLOCK):
                session.run(model.step["train_op"])
            self.bare.append(time.perf_counter() - began)
            self.began = time.perf_counter()
        self.steps += 1
        return self.run_step(session, model, *args, **kwargs)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    rounds = parser.parse_args().rounds
    turns = Turns()
    training.run_step = turns.run
    with tempfile.TemporaryDirectory() as directory:
        steps = (rounds + 1) * BLOCK + 1
        arguments = ["--image-size", "32", "--batch-size", "128", "--total-steps", str(steps)]
        arguments += ["--validate-every-steps", str(steps), "--snapshot-every-steps", str(steps)]
        arguments += ["--display-every-steps", "10", "--data", f"{directory}/data", "--run-dir", f"{directory}/run"]
        training.train(parse_command_line(arguments))
    loop, bare = (np.array(times[-rounds:]) / BLOCK * 1000 for times in (turns.loop, turns.bare[1:]))
    shares = loop / bare[: len(loop)] - 1
    for name, times in (("bare session.run", bare), ("train.py's loop", loop)):
        print(f"{name:<18}{np.median(times):8.2f} ms a step ({times.min():.2f} to {times.max():.2f})")
    cost = np.median(loop) / np.median(bare) - 1
    print(f"the loop costs {cost:+.1%} (median of the rounds' own: {np.median(shares):+.1%})")


if __name__ == "__main__":
    main()
