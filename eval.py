"""Evaluates a checkpoint, every picture of a split exactly once: python eval.py --ckpt PATH

PATH is a run directory (its newest valid checkpoint; RUN/best for the best by validation), a checkpoint prefix, or a
single file of the old V1 format (vgg_16.ckpt). With a run directory nothing else is needed. TF-Slim's Inception,
ResNet v2 and MobileNet have one output more than ImageNet has classes, the first: background. It is left out where a
checkpoint without run directory has one output more than the data have classes.
"""

import argparse
import json
import sys

import errors
from arguments import checkpoint_parser


def parse_command_line() -> argparse.Namespace:
    """The arguments of this script."""
    parser = checkpoint_parser("eval.py", __doc__)
    parser.add_argument(
        "--split", choices=["train", "validation", "test"], help="default: test, validation where the data has no test"
    )
    parser.add_argument("--data", metavar="DIR", help="shards to evaluate on (default: those of the run)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pictures at a time (default: the run's, or 64)")
    parser.add_argument(
        "--on-error", choices=["stop", "skip"], default="stop", help="name a corrupt record, or leave it out"
    )
    parser.add_argument(
        "--crops",
        type=int,
        default=1,
        metavar="N",
        help="10 averages the probabilities of corners, centre and their mirror images (default: 1)",
    )
    parser.add_argument("--flip", action="store_true", help="average with the probabilities of the mirror image")
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="also count labels among the K most probable (default: 5)"
    )
    told = parser.add_argument_group("what to write; in a run directory, TensorBoard gets it too")
    told.add_argument("--json", action="store_true", help="print one JSON object, per-class values included")
    told.add_argument("--per-image", metavar="FILE.csv", help="file, label, prediction, probability of each picture")
    told.add_argument("--confusion", metavar="FILE.png", help="the confusion matrix")
    told.add_argument("--mistakes", metavar="FILE.png", help="the mistakes that the net was surest of")
    return parser.parse_args()


if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    ARGS = parse_command_line()

import csv
import os
from typing import NamedTuple

import numpy as np
from sklearn.metrics import classification_report, roc_auc_score

import classifier
from checkpoints import step_of
from classifier import Trained
from engine import figures, summaries
from engine.metrics import Evaluation, PerExample, evaluate, interval, per_example, summarize
from files import check_output, output_file
from pipeline import montage
from pipeline.batches import evaluation_batches
from pipeline.check import Records
from pipeline.dataset import Index, load_dataset, load_index
from pipeline.tfrecord import read_at
from tfcompat import tf

MISTAKES = 40  # drawn on a sheet
FEW_CLASSES = figures.NAMED  # are all told on the terminal; of more, those that go worst


class Result(NamedTuple):
    """What an evaluation found."""

    net: Trained
    split: str
    index: Index  # of the split
    channels: int
    tables: dict[str, PerExample]  # of the main head, "", and of auxiliary heads by name, in the order of the index

    @property
    def table(self) -> PerExample:
        """Of the main head."""
        return self.tables[""]

    @property
    def evaluation(self) -> Evaluation:
        """Of the main head."""
        return summarize(self.table)

    @property
    def roc_auc(self) -> float | None:
        """Area under the ROC curve of two classes, the second as the positive one; None where it is not defined."""
        if len(self.net.class_names) != 2 or len(set(self.table.label.tolist())) != 2:
            return None
        return float(roc_auc_score(self.table.label, self.table.log_odds))

    def per_class(self) -> dict[str, dict[str, float]]:
        """Class name to precision, recall, f1-score and support, its number of examples; and their averages."""
        names = self.net.class_names
        return classification_report(
            self.table.label,
            self.table.prediction,
            labels=range(len(names)),
            target_names=names,
            output_dict=True,
            zero_division=0.0,
        )


def run_evaluation(args: argparse.Namespace) -> Result:
    """Builds the evaluation graph, restores the checkpoint and passes over the split."""
    outputs = {"--per-image": (args.per_image, ".csv")}
    outputs |= {"--confusion": (args.confusion, ".png"), "--mistakes": (args.mistakes, ".png")}
    for flag, (path, ending) in outputs.items():
        if path is not None:
            check_output(flag, path, ending)
    if args.confusion and args.mistakes and os.path.realpath(args.confusion) == os.path.realpath(args.mistakes):
        raise errors.UserError(f"--confusion and --mistakes are both {args.mistakes}; name two files")
    if args.top_k < 1:
        raise errors.UserError(f"--top-k is {args.top_k}; it must be at least 1")
    if args.flip and args.crops != 1:
        raise errors.UserError(f"--flip with --crops {args.crops}: ten crops have their mirror images; leave it out")
    net = classifier.find(args, args.data, args.batch_size)
    if not (net.run or args.data):
        raise errors.UserError(f"{args.ckpt} lies in no run directory, so --data is needed")
    data = net.config.data
    dataset = load_dataset(data)
    if dataset["class_names"] != net.class_names:
        raise errors.UserError(f"{data} has other classes than the run was trained on; name its data with --data")
    split = args.split or ("test" if dataset["splits"].get("test", {}).get("examples") else "validation")

    def intact() -> Index:
        return load_index(data, dataset, split, args.on_error).intact()

    index = intact()
    with tf.Graph().as_default():
        tf.set_random_seed(net.config.seed)
        batches = evaluation_batches(
            index,
            dataset["channels"],
            net.config.preprocessing,
            net.config.image_size,
            min(net.config.batch_size, len(index.offsets)),
            net.statistics,
            args.crops,
        )
        views = args.crops
        images = batches.images
        if args.flip:
            views = 2
            images = tf.stack([images, tf.reverse(images, [2])], 1)
            images = tf.reshape(images, [-1, *batches.images.shape[1:]])
        heads, _ = net.build(images)
        metrics = {name: per_example(averaged(logits, views), batches.labels) for name, logits in heads.items()}
        with tf.Session(config=net.session_config()) as session:
            net.restore(session)
            print(f"{net.prefix}, step {step_of(net.prefix)}, on the {split} split of {data}", file=sys.stderr)
            if net.background:
                print(f"{net.outputs} outputs: the first, background, is left out", file=sys.stderr)
            records = Records(batches, index, intact, data, dataset, args.on_error)
            tables = records.attempt(
                session,
                lambda: evaluate(session, records.batches, metrics, progress=True),
                rows=lambda: range(len(records.index.offsets)),
                step=0,
            )
    if not all(np.isfinite(table.loss).all() for table in tables.values()):
        raise errors.UserError(f"{net.prefix}: the net's outputs are not finite; its weights are too large")
    return Result(net, split, records.index, dataset["channels"], tables)


def averaged(logits: tf.Tensor, views: int) -> tf.Tensor:
    """Logits [N, classes] whose softmax is the mean over the views of those of [N * views, classes]."""
    if views == 1:
        return logits
    return tf.log(tf.reduce_mean(tf.reshape(tf.nn.softmax(logits), [-1, views, logits.shape[1]]), 1) + 1e-30)


def as_json(result: Result, top_k: int) -> dict:
    """Everything that was found, but for single pictures."""
    evaluation, classes = result.evaluation, len(result.net.class_names)
    per_class = result.per_class()
    values = {
        "checkpoint": result.net.prefix,
        "step": step_of(result.net.prefix),
        "data": result.net.config.data,
        "split": result.split,
        "examples": evaluation.examples,
        "loss": evaluation.loss,
        "top1": evaluation.top1,
        "top1_interval": interval(evaluation.top1, evaluation.examples),
    }
    if top_k < classes:
        values[f"top{top_k}"] = top_k_accuracy(result.table, top_k)
    if (roc_auc := result.roc_auc) is not None:
        values["roc_auc"] = roc_auc
    values["classes"] = [{"name": name, **per_class[name]} for name in result.net.class_names]
    values["macro_average"] = per_class["macro avg"]
    values["heads"] = {
        name: {"loss": found.loss, "top1": found.top1}
        for name, found in ((name, summarize(table)) for name, table in result.tables.items() if name)
    }
    return values


def as_text(result: Result, top_k: int) -> str:
    """A table of the classes, a line for each auxiliary head, and last what counts."""
    evaluation, classes, per_class = result.evaluation, len(result.net.class_names), result.per_class()
    names = result.net.class_names
    lines = []
    if classes > FEW_CLASSES:
        names = sorted(names, key=lambda name: per_class[name]["f1-score"])[:10]
        lines.append(f"of {classes:,} classes the ten that go worst; --json has them all")
    width = max(9, *(len(name[:30]) for name in names))
    lines.append(f"{'':<{width}}  precision  recall      F1  examples")
    lines += [
        f"{name[:30]:<{width}}  {row['precision']:>9.2%}  {row['recall']:>6.2%}  {row['f1-score']:>6.2%}"
        f"  {row['support']:>8,.0f}"
        for name, row in (*((name, per_class[name]) for name in names), ("mean", per_class["macro avg"]))
    ]
    if (roc_auc := result.roc_auc) is not None:
        lines.append(f"ROC AUC {roc_auc:.4f}, {result.net.class_names[1]} as the positive class")
    for name, table in result.tables.items():
        if name:
            lines.append(f"auxiliary head {name}: {summarize(table).told(classes)}")
    line = evaluation.told(classes)
    if top_k != 5 and top_k < classes:
        line += f", top-{top_k} {top_k_accuracy(result.table, top_k):.2%}"
    return "\n".join([*lines, "", line])


def top_k_accuracy(table: PerExample, k: int) -> float:
    """The share of examples whose label is among the k most probable classes."""
    return float(np.mean(table.rank < k))


def write(result: Result, args: argparse.Namespace) -> None:
    """Writes the files that were asked for, and to TensorBoard beside the run's own events."""
    table, names = result.table, result.net.class_names
    if args.per_image:
        with output_file("--per-image", args.per_image) as partial, partial.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "label", "prediction", "probability"])
            for row, (label, prediction, confidence) in enumerate(
                zip(table.label, table.prediction, table.confidence, strict=True)
            ):
                rows.writerow([file_name(result.index, row), names[label], names[prediction], f"{confidence:.9g}"])
    drawn = {}
    if args.confusion or result.net.run:
        drawn["confusion"] = figures.confusion(table, names)
    places = figures.worst_mistakes(table, MISTAKES)
    if args.mistakes and not places:
        print(f"no mistake to draw: --mistakes {args.mistakes} is not written", file=sys.stderr)
    elif args.mistakes:
        pictures = montage.stored_pictures(result.index, places, result.channels)
        titles = figures.mistake_titles(table, places, names)
        drawn["mistakes"] = montage.sheet(list(zip(pictures, titles, strict=True)))
    for name, figure in drawn.items():
        if getattr(args, name):
            with output_file(f"--{name}", getattr(args, name)) as partial:
                figure.savefig(partial, dpi=100)
    if result.net.run:
        write_events(result, drawn)


def write_events(result: Result, drawn: dict) -> None:
    """Adds the evaluation to TensorBoard as a run of its own below the training's, RUN/eval_SPLIT."""
    directory = os.path.join(result.net.run, f"eval_{result.split}{'_ema' if result.net.ema else ''}")
    step = step_of(result.net.prefix) or 0
    evaluation = result.evaluation
    scalars = {"loss/cross_entropy": evaluation.loss, "accuracy/top1": evaluation.top1}
    try:
        writer = tf.summary.FileWriter(directory)
        summaries.add_scalars(writer, step, scalars)
        for name, figure in drawn.items():
            summaries.add_figure(writer, step, name, figure)
        writer.close()
    except Exception as error:  # OpError, IndexError: the writer's binding translates some, not all
        reason = str(getattr(error, "message", error)).splitlines()[0]
        print(f"TensorBoard gets nothing: {directory} cannot be written ({reason})", file=sys.stderr)


def file_name(index: Index, row: int) -> str:
    """The image/filename of a record, or where it lies."""
    path, offset = index.place(row)
    stored = tf.train.Example.FromString(read_at(path, offset).payload).features.feature["image/filename"]
    name = stored.bytes_list.value[0].decode(errors="backslashreplace") if stored.bytes_list.value else ""
    return name or f"{path}@{offset}"


if __name__ == "__main__":
    with errors.reported():
        found = run_evaluation(ARGS)
        print(json.dumps(as_json(found, ARGS.top_k)) if ARGS.json else as_text(found, ARGS.top_k))
        write(found, ARGS)  # last, since a disk may be full, and the pass was long
