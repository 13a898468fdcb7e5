"""Reports of a training: lines on the terminal, metrics.jsonl, TensorBoard, curves.png."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from engine import figures, summaries
from engine.journal import TRAIN, VALIDATION, Journal, draw_curves
from engine.metrics import PerExample, summarize
from tfcompat import tf

MISTAKES = 16  # drawn at each validation
CURVES_EVERY_SECONDS = 10  # at most, and at the end


class Reports:
    """Writes the reports of a run."""

    def __init__(self, run: str, journal: Journal, step: int, total_steps: int, batch_size: int, graph: tf.Graph):
        """For a run that continues from `step`."""
        self.run, self.journal, self.total_steps, self.batch_size = run, journal, total_steps, batch_size
        journal.cut()
        self.writer = summaries.open_writer(run, step, graph)
        self.validation_writer = summaries.open_writer(os.path.join(run, "val"), step)
        self.curves_drawn = time.monotonic()
        self.progress = tqdm(total=total_steps, initial=step, unit="step", disable=not sys.stderr.isatty())

    def log_training(self, step: int, window: Sequence[Mapping], seconds: float, replaced: int) -> None:
        """Reports the mean loss and accuracy of the steps since the last report.

        Args:
            step: number of the last one.
            window: values of each step.
            seconds: their duration.
            replaced: number of corrupt records of the training split that are replaced.
        """
        loss, top1 = (sum(float(values[key]) for values in window) / len(window) for key in ("loss", "top1"))
        regularization_loss, rate = (float(window[-1][key]) for key in ("regularization_loss", "learning_rate"))
        speed = len(window) * self.batch_size / seconds
        self.journal.add(
            step,
            TRAIN,
            loss=loss,
            top1=top1,
            regularization_loss=regularization_loss,
            learning_rate=rate,
            images_per_second=round(speed, 1),
        )
        scalars = {
            "loss/cross_entropy": loss,
            "loss/regularization": regularization_loss,
            "loss/total": float(window[-1]["total_loss"]),
            "accuracy/top1": top1,
            "progress/learning_rate": rate,
            "progress/images_per_second": speed,
            "progress/gradient_norm": float(np.linalg.norm(window[-1]["gradient_norms"])),
        }
        if replaced:
            scalars["progress/replaced_records"] = replaced
        summaries.add_scalars(self.writer, step, scalars)
        if self.progress.disable:
            left = tqdm.format_interval((self.total_steps - step) * self.batch_size / speed)
            print(
                f"step {step}/{self.total_steps}: loss {loss:.4f}, top-1 {top1:.2%}, learning rate {rate:.3g}, "
                f"{speed:,.0f} images/s, {left} left",
                flush=True,
            )
        else:
            self.progress.set_postfix_str(f"loss {loss:.4f}, top-1 {top1:.1%}, {speed:,.0f} images/s")

    def log_gradients(self, step: int, pictures: bytes, trained: Sequence[str], norms: np.ndarray) -> None:
        """Reports a step's input pictures, a serialized summary, and the gradient norm of each trained variable."""
        self.writer.add_summary(pictures, step)
        values = {f"gradient_norm/{name}": norm for name, norm in zip(trained, norms, strict=True)}
        summaries.add_scalars(self.writer, step, values)

    def log_validation(
        self,
        step: int,
        tables: Mapping[str, PerExample],
        class_names: Sequence[str],
        mistakes_sheet: Callable[[list[int], list[str]], object],
    ) -> None:
        """Reports a validation.

        Args:
            step: number of the step before it.
            tables: results of `evaluate` for the net, "", and for its EMA weights, "ema_".
            class_names: in label order.
            mistakes_sheet: from rows of the split and titles to a matplotlib figure of these pictures.
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
        summaries.add_scalars(self.validation_writer, step, scalars)
        summaries.add_figure(self.validation_writer, step, "confusion", figures.confusion(tables[""], class_names))
        places = figures.worst_mistakes(tables[""], MISTAKES)
        if places:
            titles = figures.mistake_titles(tables[""], places, class_names)
            summaries.add_figure(self.validation_writer, step, "worst_mistakes", mistakes_sheet(places, titles))
        if time.monotonic() - self.curves_drawn >= CURVES_EVERY_SECONDS:
            self.draw_curves()

    def draw_curves(self) -> None:
        """Draws curves.png."""
        draw_curves(self.journal, os.path.join(self.run, "curves.png"), os.path.basename(os.path.abspath(self.run)))
        self.curves_drawn = time.monotonic()

    def close(self) -> None:
        """Draws the curves and writes the events that are still buffered."""
        self.progress.close()
        self.draw_curves()
        self.writer.close()
        self.validation_writer.close()
