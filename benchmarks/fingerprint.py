"""What runs compute, as numbers to compare before and after a change of the code that should not change any of them.

    python benchmarks/fingerprint.py --out before.json --raw RAW
    python benchmarks/fingerprint.py --out after.json --raw RAW --compare before.json

Seven short runs, each through the four commands: SHA-256 of every variable and slot of the final checkpoint, the rows
of metrics.jsonl without speeds, `eval.py --json`, `predict.py --csv` on 20 pictures, the logits of an ONNX export. RAW
holds mnist/, signs/, flowers/, cats_dogs/ and weights/mobilenet_v1_0.25_224_keras_names.npz; runs whose raw files are
missing are skipped. `digits` and `all_options` need none. Compare on one machine: another CPU gives other last bits.
"""

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tfcompat import tf

ROOT = Path(__file__).resolve().parent.parent
PICTURES = 20  # for predict.py
# Name: the preset, the folder of RAW that its data come from, and further options of train.py.
RUNS = {
    "digits": ("digits", None, ["--total-steps", "100", "--validate-every-steps", "50"]),
    "mnist_alexnet": ("mnist_alexnet", "mnist", ["--total-steps", "30"]),
    "signs_resnet50": ("signs_resnet50", "signs", ["--total-steps", "10", "--warmup-steps", "3"]),
    "flowers_googlenet": ("flowers_googlenet", "flowers", ["--total-steps", "5", "--warmup-steps", "2"]),
    "catsdogs_residual": ("catsdogs_residual", "cats_dogs", ["--total-steps", "5"]),
    "mobilenet_head": (
        "flowers_mobilenet",
        "flowers",
        [
            *("--net", "mobilenet_v1_025", "--preprocessing", "inception_crop", "--init-from", "{weights}"),
            *("--train-only", "Logits", "--total-steps", "20", "--warmup-steps", "2", "--learning-rate", "3e-4"),
        ],
    ),
    "all_options": (
        "digits",
        None,
        [
            *("--optimizer", "adamw", "--ema-decay", "0.99", "--clip-norm", "1", "--label-smoothing", "0.1"),
            *("--decay-biases", "--total-steps", "60", "--warmup-steps", "5", "--schedule", "polynomial"),
            *("--end-learning-rate", "1e-5", "--validate-every-steps", "20", "--best-metric", "ema_top1"),
        ],
    ),
}
WEIGHTS = "weights/mobilenet_v1_0.25_224_keras_names.npz"


def run(*words: object) -> str:
    """Standard output of a command of the project. Raises CalledProcessError where it fails."""
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def digest(array: np.ndarray) -> str:
    """SHA-256 of type, shape and bytes."""
    return hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes()).hexdigest()


def variables(prefix: Path) -> dict[str, str]:
    """Name to digest of all that a checkpoint holds."""
    reader = tf.train.NewCheckpointReader(str(prefix))
    return {name: digest(reader.get_tensor(name)) for name in sorted(reader.get_variable_to_shape_map())}


def stored_pictures(data: Path, directory: Path) -> list[Path]:
    """The first pictures of the test or validation split of shards, as files."""
    shards = sorted(data.glob("*_test_*.tfrecord")) or sorted(data.glob("*_validation_*.tfrecord"))
    directory.mkdir()
    paths = []
    for number, record in zip(range(PICTURES), tf.io.tf_record_iterator(str(shards[0])), strict=False):
        encoded = tf.train.Example.FromString(record).features.feature["image/encoded"].bytes_list.value[0]
        ending = "png" if encoded.startswith(b"\x89PNG") else "jpg"
        paths.append(directory / f"{number:02d}.{ending}")
        paths[-1].write_bytes(encoded)
    return paths


def onnx_logits(directory: Path) -> str:
    """Digest of the logits of four pictures of noise."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(directory / "model.onnx"), options)
    shape = [4, *session.get_inputs()[0].shape[1:]]
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.float32)
    return digest(session.run(["logits"], {"images": images})[0])


def fingerprint(name: str, raw: Path, work: Path) -> dict:
    """All values of a run, which trains below `work`."""
    preset, folder, options = RUNS[name]
    place, data = work / name, work / f"data_{RUNS[name][0].split('_')[0]}"
    options = [str(work / "weights") if word == "{weights}" else word for word in options]
    source = ["--source", str(raw / folder)] if folder else []
    run("train.py", preset, *source, "--data", data, "--run-dir", place, "--compute-threads", "2", *options)
    steps = options[options.index("--total-steps") + 1]
    rows = [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row.pop("images_per_second", None)
    ema = ["--ema"] if "--ema-decay" in options else []
    evaluation = json.loads(run("eval.py", "--ckpt", place, "--json", *ema))
    evaluation |= {key: os.path.basename(evaluation[key]) for key in ("checkpoint", "data")}
    pictures = stored_pictures(data, work / f"pictures_{name}")
    run("predict.py", "--ckpt", place, *pictures, "--csv", work / "p.csv", "--top-k", "all", *ema)
    with open(work / "p.csv", newline="") as file:
        predictions = [[os.path.basename(row["file"]), *list(row.values())[1:]] for row in csv.DictReader(file)]
    run("export.py", "--ckpt", place, "--format", "onnx", "--out", work / f"onnx_{name}", *ema)
    return {
        "config": {
            key: value
            for key, value in json.loads((place / "config.json").read_text()).items()
            if key not in ("source", "data", "run_dir", "init_from")
        },
        "variables": variables(place / f"model.ckpt-{steps}"),
        "metrics": rows,
        "evaluation": evaluation,
        "predictions": predictions,
        "onnx_logits": onnx_logits(work / f"onnx_{name}"),
    }


def differences(before: object, after: object, place: str = "") -> list[str]:
    """Where two trees of dicts and lists differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{place}/{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for i, (one, other) in pairs for line in differences(one, other, f"{place}/{i}")]
    return [] if before == after else [f"{place}: {before} became {after}"]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="FILE.json", help="where the values are written")
    parser.add_argument("--raw", default="raw", metavar="DIR", help="raw files (default: raw)")
    parser.add_argument("--compare", metavar="FILE.json", help="values of before; exit code 1 where they differ")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=list(RUNS), metavar="RUN", help="default: all")
    args = parser.parse_args()
    raw, found = Path(args.raw).resolve(), {}
    with tempfile.TemporaryDirectory() as directory:
        work = Path(directory)
        for name in args.only:
            needed = [raw / RUNS[name][1]] if RUNS[name][1] else []
            needed += [raw / WEIGHTS] if "{weights}" in RUNS[name][2] else []
            missing = [str(path) for path in needed if not path.exists()]
            if missing:
                print(f"{name}: skipped, {missing[0]} is missing", flush=True)
                continue
            if "{weights}" in RUNS[name][2]:
                words = ("import", raw / WEIGHTS, "--net", "mobilenet_v1_025", "--out", work / "weights")
                run("-m", "nets.weights", *words)
            found[name] = fingerprint(name, raw, work)
            print(f"{name}: {len(found[name]['variables'])} variables", flush=True)
    Path(args.out).write_text(json.dumps(found, indent=1) + "\n")
    if args.compare:
        before = json.loads(Path(args.compare).read_text())
        different = differences({name: before.get(name) for name in found}, found)
        print("\n".join(different) or f"all values of {len(found)} runs are equal")
        sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
