"""Kills a training at random moments, resumes it each time, and compares the result with a run that is never killed.

    python benchmarks/kill_and_resume.py [--kills 50] [--total-steps 2500] [--seed 0]

The net is MobileNet with batch norm, dropout, random crops, mirror images, momentum and EMA weights, trained on the
digits and saved every five steps. Every second kill waits until a save begins. All variables, optimizer slots and EMA
weights of the last checkpoint, and all validations, must be equal bit for bit. If they are not, the exit code is 1.
"""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from checkpoints import newest_valid  # noqa: E402
from tfcompat import tf  # noqa: E402

COMMAND = [sys.executable, str(ROOT / "train.py"), "digits", "--net", "mobilenet_v1_025", "--image-size", "32"]
COMMAND += ["--preprocessing", "cifar", "--optimizer", "momentum", "--learning-rate", "0.01", "--ema-decay", "0.99"]
COMMAND += ["--batch-size", "32", "--snapshot-every-steps", "5", "--validate-every-steps", "100"]
COMMAND += ["--display-every-steps", "5"]


NAME = re.compile(r"model\.ckpt-\d+")


def run_killed(command: Sequence[str], run: Path, kills: int, longest: float, rng: random.Random) -> dict:
    """Starts the command repeatedly and kills it within `longest` seconds after its first log; then lets it finish.

    Returns the number of kills, the number of kills during a save, and the steps at which the command resumed. Raises
    RuntimeError if the command fails.
    """
    done = {"kills": 0, "in a save": 0, "resumed at": []}
    while True:
        since = time.time()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("resuming"):
                done["resumed at"].append(int(line.split(", step ")[1].split()[0]))
            if line.startswith("step "):
                break
        else:
            raise RuntimeError(f"{''.join(lines)}{process.stderr.read()}")
        if done["kills"] < kills:
            end = time.monotonic() + rng.uniform(0, longest)
            while process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            if done["kills"] % 2:
                while process.poll() is None:
                    if in_a_save(run, since):
                        time.sleep(rng.uniform(0, 0.002))
                        process.send_signal(signal.SIGSTOP)  # on a busy machine the save may be over by now
                        time.sleep(0.001)
                        if in_a_save(run, since):
                            break
                        process.send_signal(signal.SIGCONT)
                    time.sleep(0.0005)
            process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == -signal.SIGKILL:
            done["kills"] += 1
            done["in a save"] += in_a_save(run, since)
            print(f"killed {done['kills']}, {done['in a save']} of them in a save", file=sys.stderr)
        elif process.returncode:
            raise RuntimeError(f"exit code {process.returncode}")
        else:
            return done


def in_a_save(run: Path, since: float) -> bool:
    """Whether a save is in progress: there are checkpoint files that the state file does not name.

    Only files written after the time `since` count; older ones may be left from an earlier process.
    """
    try:
        named = (run / "checkpoint").read_text()
    except FileNotFoundError:
        named = ""
    try:
        written = [path.name for path in run.glob("model.ckpt-*") if path.stat().st_mtime > since]
    except FileNotFoundError:  # renamed or removed at this moment, which only a save does
        return True
    return any(f'"{re.match(NAME, name)[0]}"' not in named for name in written)


def differences(one: Path, other: Path) -> list[str]:
    """Names of the variables that differ between the last checkpoints of two runs, and "the validations" if they do."""
    readers = [tf.train.NewCheckpointReader(newest_valid(str(run))) for run in (one, other)]
    names = [set(reader.get_variable_to_shape_map()) for reader in readers]
    wrong = sorted(names[0] ^ names[1])
    for name in sorted(names[0] & names[1]):
        values = [reader.get_tensor(name) for reader in readers]
        if values[0].tobytes() != values[1].tobytes() or np.shape(values[0]) != np.shape(values[1]):
            wrong.append(name)
    validations = [
        [row for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if row["split"] != "train"]
        for run in (one, other)
    ]
    return wrong + (["the validations"] if validations[0] != validations[1] else [])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--total-steps", type=int, default=2500, metavar="N")
    parser.add_argument("--longest", type=float, default=3.0, metavar="SECONDS", help="of training between two kills")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments")
    args = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kill_and_resume_"))
    command = [*COMMAND, "--data", str(directory / "data"), "--total-steps", str(args.total_steps)]
    one, other = directory / "never killed", directory / "killed"
    subprocess.run([*command, "--run-dir", str(one)], check=True, stdout=subprocess.DEVNULL)
    began = time.perf_counter()
    done = run_killed([*command, "--run-dir", str(other)], other, args.kills, args.longest, random.Random(args.seed))
    wrong = differences(one, other)
    count = len(tf.train.list_variables(newest_valid(str(one))))
    print(f"{done['kills']} kills, {done['in a save']} of them in a save, in {time.perf_counter() - began:,.0f} s")
    print(f"resumed at steps {' '.join(map(str, done['resumed at']))} of {args.total_steps}")
    print(f"left over by killed saves: {len(list(other.glob('*tempstate*')))} files")
    if wrong:
        print(f"DIFFERENT in {len(wrong)}: {', '.join(wrong[:5])}; both runs are kept in {directory}")
        return 1
    print(f"equal bit for bit: {count} variables, slots and averages, and all validations")
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
