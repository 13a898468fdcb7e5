"""Evaluates a checkpoint on a split, each picture once: python eval.py --ckpt PATH

PATH is a run directory (its newest valid checkpoint; RUN/best for the best by validation), a checkpoint prefix, or a
single file of the V1 format (vgg_16.ckpt). A run directory needs no further option. TF-Slim's Inception, ResNet v2 and
MobileNet have one output more than ImageNet has classes, the first: background. It is left out where a checkpoint
without run directory has one output more than the data have classes. From Python: Classifier.load(PATH).evaluate().
"""

import sys
from typing import Annotated, Literal

import tyro

import errors
from config import AT_LEAST_ONE, DATA_PLACE, PLACE, CheckpointOptions, flag, optional, options, parse


@options
class EvalOptions(CheckpointOptions):
    """The arguments of eval.py. In a run directory, TensorBoard gets the result too."""

    split: Annotated[Literal["train", "validation", "test"] | None, optional("SPLIT")] = None
    """train, validation or test. Default: test, or validation where the data have no test split."""
    data: Annotated[str | None, DATA_PLACE, optional("DIR")] = None
    """Shards to evaluate on, also in a remote place such as gs://bucket/shards. Default: those of the run."""
    batch_size: Annotated[int | None, AT_LEAST_ONE, optional("N")] = None
    """Pictures per batch. Default: that of the run, or 64."""
    on_error: Literal["stop", "skip"] = "stop"
    """At a corrupt record: stop with an error that names it, or leave it out."""
    crops: Annotated[int, AT_LEAST_ONE, tyro.conf.arg(metavar="N")] = 1
    """10 averages the probabilities of corners, centre and their mirror images."""
    flip: bool = False
    """Average with the probabilities of the mirror image."""
    top_k: Annotated[int, AT_LEAST_ONE, tyro.conf.arg(metavar="K")] = 5
    """Also count labels among the K most probable classes."""
    json: bool = False
    """Print one JSON object, with the figures of each class."""
    per_image: Annotated[str | None, PLACE, optional("FILE.csv")] = None
    """Write file, label, prediction and probability of each picture."""
    confusion: Annotated[str | None, PLACE, optional("FILE.png")] = None
    """Draw the confusion matrix."""
    mistakes: Annotated[str | None, PLACE, optional("FILE.png")] = None
    """Draw the mistakes with the highest probabilities."""


def parse_command_line(args: list[str]) -> EvalOptions:
    """The arguments of this program. Raises UserError for a value that is out of its range."""
    return parse(EvalOptions, "eval.py", __doc__, args)


if __name__ == "__main__":  # before TensorFlow's import, which takes seconds: --help should answer at once
    errors.quit_on_signals()
    with errors.reported():
        OPTIONS = parse_command_line(sys.argv[1:])

import csv
import json
import os

from classifier import Classifier
from engine import figures
from engine.evaluation import Evaluation
from engine.metrics import summarize
from engine.reports import MISTAKES as MISTAKES_ON_CARD
from engine.reports import add_figure, add_scalars
from files import check_output, output_file
from pipeline import montage
from pipeline.prepare import difference
from tfcompat import tf

MISTAKES = 40  # drawn on a sheet
WORST = 10  # classes that are printed where there are more than figures.NAMED


def evaluate(options: EvalOptions) -> tuple[Classifier, Evaluation]:
    """Evaluates what the options ask for. Prints the checkpoint and the data to standard error."""
    for key, suffix in (("per_image", ".csv"), ("confusion", ".png"), ("mistakes", ".png")):
        if getattr(options, key) is not None:
            check_output(flag(key), getattr(options, key), suffix)
    figures_named = [os.path.realpath(path) for path in (options.confusion, options.mistakes) if path]
    if len(figures_named) > len(set(figures_named)):
        raise errors.UserError(f"--confusion and --mistakes are both {options.mistakes}; name two files")
    classifier = Classifier.of(options)
    selection = classifier.selection(options.split, on_error=options.on_error)
    print(f"{classifier.title}, on the {selection.split} split of {selection.dataset.directory}", file=sys.stderr)
    changed = classifier.run and options.data is None and difference(classifier.dataset, selection.dataset)
    if changed:
        print(
            f"note: {selection.dataset.directory} was made anew since {classifier.run} was trained on it ({changed}): "
            "pictures of this split may have been in its training split",
            file=sys.stderr,
        )
    if classifier.background:
        print(f"{classifier.outputs} outputs: the first, background, is left out", file=sys.stderr)
    asked = {"on_error": options.on_error, "crops": options.crops, "flip": options.flip}
    return classifier, classifier.evaluate(selection.split, **asked, progress=True)


def as_text(evaluation: Evaluation, top_k: int) -> str:
    """A table of the classes, a line for each auxiliary head, and the summary."""
    classes, per_class = len(evaluation.class_names), evaluation.per_class()
    names, average, lines = evaluation.class_names, evaluation.macro_average(), []
    if classes > figures.NAMED:
        present = [name for name in names if per_class[name]["support"]]
        names = sorted(present, key=lambda name: per_class[name]["f1-score"])[:WORST]
        lines.append(f"the {len(names)} worst of {classes:,} classes; --json prints all")
    rows = [*((name, per_class[name]) for name in names), (f"mean of {average['classes']:,} classes", average)]
    width = max(len(name[:30]) for name, _ in rows)
    lines.append(f"{'':<{width}}  precision   recall       F1  examples")
    lines += [
        f"{name[:30]:<{width}}  {row['precision']:>9.2%}  {row['recall']:>7.2%}  {row['f1-score']:>7.2%}"
        f"  {row['support']:>8,.0f}"
        for name, row in rows
    ]
    if evaluation.roc_auc is not None:
        lines.append(f"ROC AUC {evaluation.roc_auc:.4f}, {evaluation.class_names[1]} as the positive class")
    heads = {name: summarize(table) for name, table in evaluation.tables.items() if name}
    lines += [f"auxiliary head {name}: {head.describe(classes)}" for name, head in heads.items()]
    size, trained = evaluation.image_size, evaluation.trained_image_size
    if trained and trained != size:
        lines.append(f"evaluated at {size} px, trained at {trained} px")
    line = evaluation.summary.describe(classes)
    if top_k != 5 and top_k < classes:
        line += f", top-{top_k} {evaluation.top_k(top_k):.2%}"
    return "\n".join([*lines, "", line])


def write(classifier: Classifier, evaluation: Evaluation, options: EvalOptions) -> None:
    """Writes the files that the options name, and TensorBoard's events beside the run's own."""
    table, names = evaluation.table, evaluation.class_names
    if options.per_image:
        with output_file("--per-image", options.per_image) as partial, partial.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["file", "label", "prediction", "probability"])
            columns = zip(table.label, table.prediction, table.confidence, strict=True)
            for row, (label, prediction, confidence) in enumerate(columns):
                rows.writerow([evaluation.file(row), names[label], names[prediction], f"{confidence:.9g}"])
    drawn, cards = {}, {}  # for files and for TensorBoard
    if options.confusion:
        drawn["confusion"] = figures.confusion(table, names)
    places, titles = figures.worst_mistakes(table, MISTAKES, names)
    if options.mistakes and not places:
        print(f"no mistake to draw: --mistakes {options.mistakes} is not written", file=sys.stderr)
    elif options.mistakes:
        tiles = list(zip(evaluation.pictures(places), titles, strict=True))
        drawn["mistakes"] = montage.sheet(tiles)
        cards["mistakes"] = montage.sheet(tiles[:MISTAKES_ON_CARD], columns=3)
    for name, figure in drawn.items():
        path = getattr(options, name)
        if path:
            with output_file(f"--{name}", path) as partial:
                figure.savefig(partial, dpi=100)
    if classifier.run:
        cards["confusion"] = figures.confusion(table, names, card=True)
        write_events(classifier, evaluation, cards)


def write_events(classifier: Classifier, evaluation: Evaluation, cards: dict) -> None:
    """Adds the evaluation to TensorBoard as a run of its own, RUN/eval_SPLIT."""
    directory = os.path.join(classifier.run, f"eval_{evaluation.split}{'_ema' if classifier.ema else ''}")
    step, summary = evaluation.step or 0, evaluation.summary
    try:
        writer = tf.summary.FileWriter(directory)
        add_scalars(writer, step, {"loss/cross_entropy": summary.loss, "accuracy/top1": summary.top1})
        for name, figure in cards.items():
            add_figure(writer, step, f"results/{name}", figure)
        writer.close()
    except Exception as error:  # OpError, IndexError: the writer's binding translates some errors, not all
        reason = str(getattr(error, "message", error)).splitlines()[0]
        print(f"nothing is added to TensorBoard: {directory} cannot be written ({reason})", file=sys.stderr)


def main(options: EvalOptions) -> None:
    """Runs the command."""
    classifier, evaluation = evaluate(options)
    print(json.dumps(evaluation.as_dict(options.top_k)) if options.json else as_text(evaluation, options.top_k))
    write(classifier, evaluation, options)  # last, since a disk may be full after a long pass


if __name__ == "__main__":
    with errors.reported():
        main(OPTIONS)
