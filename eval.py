"""Evaluates a checkpoint, every picture of a split exactly once: python eval.py --ckpt PATH

PATH is a run directory (its newest valid checkpoint; RUN/best for the best by validation), a checkpoint prefix, or a
single file of the old V1 format (vgg_16.ckpt). With a run directory nothing else is needed. TF-Slim's Inception,
ResNet v2 and MobileNet have one output more than ImageNet has classes, the first: background. It is left out where a
checkpoint without run directory has one output more than the data have classes.
"""

import argparse
import json
import os
import sys

import config as configuration
import errors


def parse_command_line() -> argparse.Namespace:
    """The arguments of this script."""
    parser = argparse.ArgumentParser(
        prog="eval.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ckpt", required=True, metavar="PATH", help="what to evaluate")
    parser.add_argument(
        "--split", choices=["train", "validation", "test"], help="default: test, validation where the data has no test"
    )
    parser.add_argument("--json", action="store_true", help="print one object: examples, loss, top1, top5")
    parser.add_argument("--data", metavar="DIR", help="shards to evaluate on (default: those of the run)")
    parser.add_argument(
        "--crops",
        type=int,
        default=1,
        metavar="N",
        help="10 averages the probabilities of corners, centre and their mirror images (default: 1)",
    )
    parser.add_argument(
        "--ema", action="store_true", help="the averages of the weights, in their place, where --ema-decay kept them"
    )
    parser.add_argument(
        "--on-error", choices=["stop", "skip"], default="stop", help="name a corrupt record, or leave it out"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time (default: the run's, or 64)")
    alone = parser.add_argument_group("for a checkpoint without a run directory")
    alone.add_argument("--net", metavar="NAME", help="name in the registry nets.NETS")
    alone.add_argument("--image-size", type=int, metavar="N", help="default: the net's own")
    alone.add_argument("--preprocessing", metavar="NAME", help="default: the net's own")
    return parser.parse_args()


if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    ARGS = parse_command_line()

from checkpoints import locate, shapes_of, step_of
from engine.checkpoint import check_restorable
from engine.metrics import Evaluation, class_logits, evaluate, per_example, summarize
from engine.session import make_deterministic, session_config
from nets import NETS
from nets.weights import head_width
from pipeline import statistics
from pipeline.check import Records
from pipeline.dataset import evaluation_batches
from pipeline.preprocess import PREPROCESSINGS
from pipeline.records import Index, load_dataset, load_index
from runs import run_of
from tfcompat import tf


def settings(args: argparse.Namespace, run: str | None) -> configuration.Config:
    """The configuration to evaluate with: the run's, or what the flags say of a checkpoint that has none."""
    named = {
        key: getattr(args, key) for key in ("net", "image_size", "preprocessing", "data", "batch_size")
        if getattr(args, key) is not None
    }  # fmt: skip
    if run:
        config = configuration.load(os.path.join(run, "config.json"))
        for key in ("net", "image_size", "preprocessing"):
            if key in named and named[key] != getattr(config, key):
                raise errors.UserError(
                    f"--{key.replace('_', '-')} {named[key]} contradicts {run}/config.json, which says "
                    f"{getattr(config, key)}; leave it out"
                )
        config = configuration.Config(**{**vars(config), **named})
    else:
        for key in ("net", "data"):
            if key not in named:
                raise errors.UserError(f"{args.ckpt} lies in no run directory, so --{key} is needed")
        config = configuration.Config(**named)
    configuration.validate(config, NETS, PREPROCESSINGS)
    return configuration.resolve(config, NETS)


def run_evaluation(args: argparse.Namespace) -> Evaluation:
    """Builds the evaluation graph, restores the checkpoint and passes over the split."""
    prefix = locate(args.ckpt)
    run = run_of(args.ckpt)
    config = settings(args, run)
    dataset = load_dataset(config.data)
    trained_on = load_dataset(run) if run else dataset
    if dataset["class_names"] != trained_on["class_names"]:
        raise errors.UserError(
            f"{config.data} has other classes than the run was trained on; name its data with --data"
        )
    split = args.split or ("test" if dataset["splits"].get("test", {}).get("examples") else "validation")

    def intact() -> Index:
        return load_index(config.data, dataset, split, args.on_error).intact()

    index = intact()
    net, num_classes = NETS[config.net], len(dataset["class_names"])
    stored = shapes_of(prefix)
    width = head_width(stored, net)
    background = run is None and width == num_classes + 1
    outputs = 1 if width == 1 and num_classes == 2 else num_classes + background
    with tf.Graph().as_default():
        make_deterministic(config.seed)
        batches = evaluation_batches(
            index,
            dataset["channels"],
            config.preprocessing,
            config.image_size,
            min(config.batch_size, len(index.offsets)),
            statistics.load(run or config.data, trained_on),
            args.crops,
        )
        logits, _ = net.build(batches.images, outputs, False, config.weight_decay)
        logits = averaged(logits[:, 1:] if background else class_logits(logits), args.crops)
        metrics = per_example(logits, batches.labels)
        variables = {v.op.name: v for v in tf.global_variables()}
        if args.ema:
            variables = {f"{name}/ExponentialMovingAverage": v for name, v in variables.items()}
            if not variables.keys() & stored.keys():
                raise errors.UserError(f"--ema: {prefix} holds no averages; train with --ema-decay 0.999 to keep them")
        check_restorable(prefix, variables)
        saver = tf.train.Saver(variables)
        with tf.Session(config=session_config(config.compute_threads, config.precision)) as session:
            saver.restore(session, prefix)
            print(f"{prefix}, step {step_of(prefix)}, on the {split} split of {config.data}", file=sys.stderr)
            if background:
                print(f"{num_classes + 1} outputs: the first, background, is left out", file=sys.stderr)
            records = Records(batches, index, intact, config.data, dataset, args.on_error)
            tables = records.attempt(
                session,
                lambda: evaluate(session, records.batches, {"": metrics}),
                rows=lambda: range(len(records.index.offsets)),
                step=0,
            )
            return summarize(tables[""])


def averaged(logits: tf.Tensor, crops: int) -> tf.Tensor:
    """Logits [N, classes] whose softmax is the mean over the crops of those of [N * crops, classes]."""
    if crops == 1:
        return logits
    return tf.log(tf.reduce_mean(tf.reshape(tf.nn.softmax(logits), [-1, crops, logits.shape[1]]), 1) + 1e-30)


if __name__ == "__main__":
    with errors.reported():
        result = run_evaluation(ARGS)
        print(json.dumps(result._asdict()) if ARGS.json else result)
