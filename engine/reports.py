"""Reports of a training: lines on the terminal, metrics.jsonl, TensorBoard, curves.png.

In TensorBoard, training and validation have scalars of the same names.
"""

import io
import os
import sys
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
from errors import UserError
from tfcompat import tf

MISTAKES = 16  # drawn at each validation
CURVES_EVERY_SECONDS = 10  # at most, and at the end


class Reports:
    """Writes the reports of a run."""

    def __init__(self, config: Config, journal: Journal, step: int, graph: tf.Graph):
        """For a run that continues from `step`; config is resolved."""
        self.run, self.journal, self.batch_size = config.run.run_dir, journal, config.input.batch_size
        self.total_steps = config.schedule.total_steps
        journal.cut()
        self.writer = open_writer(self.run, step, graph)
        settings = [f"| {name} | {value} |" for name, value in config.flat().items()]
        table = text_pb("settings", "\n".join(["| setting | value |", "|---|---|", *settings]))
        self.writer.add_summary(table.SerializeToString(), 0)
        self.validation_writer = open_writer(os.path.join(self.run, "val"), step)
        self.curves_drawn = time.monotonic()
        self.progress = tqdm(total=self.total_steps, initial=step, unit="step", disable=not sys.stderr.isatty())

    def log_training(self, step: int, window: Sequence[Mapping], seconds: float, replaced: int) -> None:
        """Reports the mean loss and accuracy of the steps since the last report.

        window holds the values of each of them, seconds is their duration; replaced is the number of corrupt records of
        the training split that are replaced.
        """
        means = {key: sum(float(values[key]) for values in window) / len(window) for key in ("loss", "top1")}
        last = {key: float(window[-1][key]) for key in ("regularization_loss", "learning_rate")}
        loss, top1, rate = *means.values(), last["learning_rate"]
        speed = len(window) * self.batch_size / seconds
        self.journal.add(step, TRAIN, **means, **last, images_per_second=round(speed, 1))
        scalars = {
            "loss/cross_entropy": loss,
            "loss/regularization": last["regularization_loss"],
            "loss/total": float(window[-1]["total_loss"]),
            "accuracy/top1": top1,
            "progress/learning_rate": rate,
            "progress/images_per_second": speed,
            "progress/gradient_norm": float(np.linalg.norm(window[-1]["gradient_norms"])),
        }
        if replaced:
            scalars["progress/replaced_records"] = replaced
        add_scalars(self.writer, step, scalars)
        if not self.progress.disable:
            self.progress.set_postfix_str(f"loss {loss:.4f}, top-1 {top1:.1%}, {speed:,.0f} images/s")
            return
        left = tqdm.format_interval((self.total_steps - step) * self.batch_size / speed)
        print(
            f"step {step}/{self.total_steps}: loss {loss:.4f}, top-1 {top1:.2%}, learning rate {rate:.3g}, "
            f"{speed:,.0f} images/s, {left} left",
            flush=True,
        )

    def log_gradients(self, step: int, values: Mapping, trained: Sequence[str]) -> None:
        """Reports a step's input pictures, and the gradient norm of each variable of `trained`."""
        self.writer.add_summary(values["pictures"], step)
        norms = zip(trained, values["gradient_norms"], strict=True)
        add_scalars(self.writer, step, {f"gradient_norm/{name}": norm for name, norm in norms})

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
            row |= {prefix + key: value for key, value in result._asdict().items() if key != "examples" or not prefix}
            scalars |= {f"loss/{prefix}cross_entropy": result.loss, f"accuracy/{prefix}top1": result.top1}
            scalars[f"accuracy/{prefix}top5"] = result.top5
        self.journal.add(step, VALIDATION, **row)
        add_scalars(self.validation_writer, step, scalars)
        add_figure(self.validation_writer, step, "confusion", figures.confusion(tables[""], class_names))
        places, titles = figures.worst_mistakes(tables[""], MISTAKES, class_names)
        if places:
            add_figure(self.validation_writer, step, "worst_mistakes", mistakes_sheet(places, titles))
        if time.monotonic() - self.curves_drawn >= CURVES_EVERY_SECONDS:
            self.draw_curves()

    def draw_curves(self) -> None:
        """Draws curves.png."""
        title = os.path.basename(os.path.abspath(self.run))
        figures.draw_curves(self.journal, os.path.join(self.run, "curves.png"), title)
        self.curves_drawn = time.monotonic()

    def close(self) -> None:
        """Draws the curves and writes the events that are still buffered."""
        self.progress.close()
        self.draw_curves()
        self.writer.close()
        self.validation_writer.close()


# raw_ops below, since tf.summary's own functions make tags unique among the graph's names: conv1/weights_1.


def add_scalars(writer: tf.summary.FileWriter, step: int, values: Mapping[str, float]) -> None:
    """Writes scalars by tag; TensorBoard groups them by the part before the slash."""
    tags = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    writer.add_summary(tf.Summary(value=tags), step)
    writer.flush()


def add_figure(writer: tf.summary.FileWriter, step: int, tag: str, figure: Figure) -> None:
    """Writes a matplotlib figure as a picture."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=100)
    width, height = (int(side) for side in figure.get_size_inches() * 100)
    image = tf.Summary.Image(encoded_image_string=png.getvalue(), height=height, width=width, colorspace=4)
    writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, image=image)]), step)


def picture_summary(images: tf.Tensor) -> tf.Tensor:
    """A summary op of the first eight inputs of a batch."""
    return tf.raw_ops.ImageSummary(tag="pictures", tensor=images, max_images=8)


def weight_summary(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """A summary op of the distribution of every variable under its name, of its norm, and of the first layer's filters
    as a picture."""
    parts = [tf.raw_ops.HistogramSummary(tag=v.op.name, values=v) for v in variables]
    parts += [tf.raw_ops.ScalarSummary(tags=f"weight_norm/{v.op.name}", values=tf.norm(v)) for v in variables]
    kernels = [v for v in variables if v.shape.rank == 4 and v.shape[2] in (1, 3) and v.op.name.endswith("/weights")]
    if kernels:
        grid = tf.raw_ops.ImageSummary(tag=f"filters/{kernels[0].op.name}", tensor=_filter_grid(kernels[0]))
        parts.append(grid)
    return tf.summary.merge(parts)


def _filter_grid(kernel: tf.Tensor, columns: int = 8) -> tf.Tensor:
    """The filters [H, W, C, N] of a first layer side by side as one picture, float32 [1, height, width, C]: each from
    its lowest weight, black, to its highest, with a black line between them, as large as 400 pixels allow."""
    height, width, channels, count = kernel.shape.as_list()
    low, high = (reduce(kernel, [0, 1, 2]) for reduce in (tf.reduce_min, tf.reduce_max))
    rows = -(-count // columns)
    lines = [[0, 1], [0, 1], [0, 0], [0, rows * columns - count]]
    filters = tf.pad((kernel - low) / tf.maximum(high - low, 1e-12), lines)
    filters = tf.reshape(filters, [height + 1, width + 1, channels, rows, columns])
    sides = rows * (height + 1), columns * (width + 1)
    grid = tf.reshape(tf.transpose(filters, [3, 0, 4, 1, 2]), [1, *sides, channels])
    scale = max(1, 400 // max(sides))
    return tf.repeat(tf.repeat(grid, scale, 1), scale, 2)


def open_writer(directory: str, step: int, graph: tf.Graph | None = None) -> tf.summary.FileWriter:
    """A writer for a run that continues from `step`: TensorBoard then hides later events of a killed run."""
    try:
        writer = tf.summary.FileWriter(directory, graph)
    except tf.errors.OpError as error:
        raise UserError(f"{directory} cannot be written ({error.message})") from None
    writer.add_session_log(tf.SessionLog(status=tf.SessionLog.START), step + 1)
    return writer
