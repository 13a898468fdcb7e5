"""Reports of a training: metrics.jsonl, TensorBoard, curves.png.

In TensorBoard, training and validation have scalars of the same names. TensorBoard sorts tags by name and opens the
first groups, so the names put first what matters first: accuracy/, loss/, progress/ (learning rate, speed); behind them
are results/ (confusion matrix, mistakes), training_inputs/ and weight_…/ (norms, distributions).
"""

import io
import os
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from tensorboard.plugins.text.summary import text_pb
from tqdm import tqdm

from config import Config
from engine import figures
from engine.journal import TRAIN, VALIDATION, Journal
from engine.metrics import PerExample, summarize
from engine.progress import Means
from engine.summaries import groups
from errors import UserError
from tfcompat import tf

MISTAKES = 12  # drawn at each validation
CURVES_EVERY_SECONDS = 10  # at most, and at the end
DPI = 150  # of figures: twice the pixels of a card of TensorBoard, since many screens show two for one


class Reports:
    """Writes the reports of a run."""

    def __init__(self, config: Config, journal: Journal, step: int, graph: tf.Graph):
        """For a run that continues from `step`; config is resolved."""
        self.run, self.journal, self.norms_by = config.run.run_dir, journal, config.reporting.norms_by
        self.total_steps = config.schedule.total_steps
        journal.cut()
        self.writer = open_writer(self.run, step, graph)
        settings = [f"| {name} | {value} |" for name, value in config.flat().items()]
        table = text_pb("settings", "\n".join(["| setting | value |", "|---|---|", *settings]))
        self.writer.add_summary(table.SerializeToString(), 0)
        self.validation_writer = open_writer(os.path.join(self.run, "val"), step)
        self.curves_drawn = time.monotonic()

    def log_training(self, step: int, means: Means, replaced: int) -> None:
        """Reports the means over the steps since the last report; replaced is the number of corrupt records of the
        training split that are replaced."""
        last = {key: float(means.last[key]) for key in ("regularization_loss", "learning_rate")}
        speed = means.images_per_second
        self.journal.add(step, TRAIN, loss=means.loss, top1=means.top1, **last, images_per_second=round(speed, 1))
        scalars = {
            "loss/cross_entropy": means.loss,
            "loss/regularization": last["regularization_loss"],
            "loss/total": float(means.last["total_loss"]),
            "accuracy/top1": means.top1,
            "progress/learning_rate": last["learning_rate"],
            "progress/images_per_second": speed,
            "progress/gradient_norm": float(np.linalg.norm(means.last["gradient_norms"])),
        }
        if replaced:
            scalars["progress/replaced_records"] = replaced
        add_scalars(self.writer, step, scalars)

    def log_gradients(self, step: int, values: Mapping, trained: Sequence[str]) -> None:
        """Reports a step's input pictures, and the gradient norms of its blocks or of each variable of `trained`."""
        self.writer.add_summary(values["pictures"], step)
        norms, charts = values["gradient_norms"], groups(trained, self.norms_by)
        scalars = {f"weight_gradient_norm/{name}": np.linalg.norm(norms[places]) for name, places in charts.items()}
        add_scalars(self.writer, step, scalars)

    def log_validation(
        self,
        step: int,
        tables: Mapping[str, PerExample],
        class_names: Sequence[str],
        mistakes_sheet: Callable[[list[int], list[str]], Figure],
    ) -> None:
        """Reports a validation after a step: the results of `evaluate` for the net, "", and its EMA weights, "ema_".

        class_names are in label order; mistakes_sheet draws pictures, from rows of the split and titles.
        """
        row, scalars = {}, {}
        for prefix, table in tables.items():
            result = summarize(table)
            title = "validation of EMA weights" if prefix else "validation"
            tqdm.write(f"step {step}/{self.total_steps}: {title} {result.describe(len(class_names))}")
            row |= {f"{prefix}{key}": value for key, value in result.row(len(class_names)).items()}
            scalars |= {f"loss/{prefix}cross_entropy": result.loss, f"accuracy/{prefix}top1": result.top1}
            if row[f"{prefix}top5"] is not None:
                scalars[f"accuracy/{prefix}top5"] = result.top5
        row.pop("ema_examples", None)
        self.journal.add(step, VALIDATION, **row)
        add_scalars(self.validation_writer, step, scalars)
        card = figures.confusion(tables[""], class_names, card=True)
        add_figure(self.validation_writer, step, "results/confusion", card)
        places, titles = figures.worst_mistakes(tables[""], MISTAKES, class_names)
        if places:
            add_figure(self.validation_writer, step, "results/mistakes", mistakes_sheet(places, titles))
        if time.monotonic() - self.curves_drawn >= CURVES_EVERY_SECONDS:
            self.draw_curves()

    def draw_curves(self) -> None:
        """Draws curves.png."""
        title = os.path.basename(os.path.abspath(self.run))
        figures.draw_curves(self.journal, os.path.join(self.run, "curves.png"), title)
        self.curves_drawn = time.monotonic()

    def close(self) -> None:
        """Draws the curves and writes the events that are still buffered."""
        self.draw_curves()
        self.writer.close()
        self.validation_writer.close()


def add_scalars(writer: tf.summary.FileWriter, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars by tag; TensorBoard groups them by the part before the slash."""
    tags = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    writer.add_summary(tf.Summary(value=tags), step)
    writer.flush()


def add_figure(writer: tf.summary.FileWriter, step: int, tag: str, figure: Figure) -> None:
    """Writes a matplotlib figure as a picture."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI)
    width, height = (int(side) for side in figure.get_size_inches() * DPI)
    image = tf.Summary.Image(encoded_image_string=png.getvalue(), height=height, width=width, colorspace=4)
    writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, image=image)]), step)


def open_writer(directory: str, step: int, graph: tf.Graph | None = None) -> tf.summary.FileWriter:
    """A writer for a run that continues from `step`: TensorBoard then hides later events of a killed run.

    The graph is written without tf.data's functions: TensorBoard would draw them beside it, five times as high.
    """
    try:
        writer = tf.summary.FileWriter(directory)
    except tf.errors.OpError as error:
        raise UserError(f"{directory} cannot be written ({error.message})") from None
    if graph:
        drawn = graph.as_graph_def()
        drawn.ClearField("library")
        writer.add_event(tf.Event(wall_time=time.time(), graph_def=drawn.SerializeToString()))
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    return writer
