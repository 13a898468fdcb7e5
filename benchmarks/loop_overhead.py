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

from presets import parse_command_line
from train import train

from tfcompat import tf  # isort: skip

BLOCK = 20  # steps; two of them are logged


class Turns:
    """Stands in the place of Session.run: passes on what the loop asks for, and takes the bare turns in between."""

    def __init__(self, rounds: int):
        self.steps, self.began = 0, 0.0
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.rounds, self.session_run = rounds, tf.Session.run

    def run(self, session: tf.Session, fetches: object, *args: object, **kwargs: object) -> object:
        """As Session.run."""
        is_step = isinstance(fetches, dict) and "train_op" in fetches
        if is_step and self.steps % BLOCK == 0:
            began = time.perf_counter()
            if self.steps:
                self.loop.append(began - self.began)
            for _ in range(BLOCK):
                self.session_run(session, fetches["train_op"])
            self.bare.append(time.perf_counter() - began)
            self.began = time.perf_counter()
        self.steps += is_step
        return self.session_run(session, fetches, *args, **kwargs)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    rounds = parser.parse_args().rounds
    turns = Turns(rounds)
    tf.Session.run = lambda *args, **kwargs: turns.run(*args, **kwargs)
    with tempfile.TemporaryDirectory() as directory:
        steps = (rounds + 1) * BLOCK + 1
        arguments = ["--image-size", "32", "--batch-size", "128", "--total-steps", str(steps)]
        arguments += ["--validate-every-steps", str(steps), "--snapshot-every-steps", str(steps)]
        arguments += ["--display-every-steps", "10", "--data", f"{directory}/data", "--run-dir", f"{directory}/run"]
        train(parse_command_line(arguments))
    loop, bare = (np.array(times[-rounds:]) / BLOCK * 1000 for times in (turns.loop, turns.bare[1:]))
    shares = loop / bare[: len(loop)] - 1
    for name, times in (("bare session.run", bare), ("train.py's loop", loop)):
        print(f"{name:<18}{np.median(times):8.2f} ms a step ({times.min():.2f} to {times.max():.2f})")
    cost = np.median(loop) / np.median(bare) - 1
    print(f"the loop costs {cost:+.1%} (median of the rounds' own: {np.median(shares):+.1%})")


if __name__ == "__main__":
    main()
