"""The end of a training: its result, and what is printed of it."""

import shlex
from typing import NamedTuple

from engine.journal import Journal
from pipeline.index import Index
from run_directory import RunPlan


class TrainingResult(NamedTuple):
    """The end of a training."""

    run_dir: str
    step: int
    best: dict | None  # the best validation: step, examples, loss, top1, top5; with --ema-decay the same with ema_
    metrics: list[dict]  # the rows of metrics.jsonl
    exit_code: int  # 0 done; 143, 130 or 129 stopped by a signal, after saving


def conclude(plan: RunPlan, index: Index, step: int, end: int, exit_code: int | None) -> TrainingResult:
    """Prints how the training ended, and returns its result; index is of the training records, exit_code a signal's."""
    journal, code = plan.journal, exit_code or 0
    if plan.config.run.dry_run:
        print(f"dry run: {step} steps, a validation and a save; nothing is left behind")
    elif code and not (step == end and journal.has_validation(step)):
        saved = f"at step {step}, which is saved; the same command continues from there"
        print(f"stopped by a signal {saved if step else 'before the first step'}")
    else:
        code = 0
        if step < end:
            reporting = plan.config.reporting
            print(f"stopped early: {reporting.patience} validations without a better {reporting.best_metric}")
        print(f"finished {plan.directory} at step {step}")
        if index.replaced.any():
            corrupt = int(index.replaced.sum())
            lost = f"; {index.lost}" if index.lost else ""
            print(f"{corrupt} of {len(index.offsets)} training records are corrupt and were replaced by others{lost}")
        print_result(plan.directory, journal)
    return TrainingResult(plan.directory, step, journal.best(), journal.rows, code)


def print_result(run: str, journal: Journal) -> None:
    """Prints the best validation and the commands to go on with."""
    best = journal.best()
    if best:
        prefix = "ema_" if journal.metric.startswith("ema_") else ""
        values = f"top-1 {best[f'{prefix}top1']:.2%}, loss {best[f'{prefix}loss']:.4f}"
        print(f"best validation: {values} at step {best['step']}")
    place = shlex.quote(run)
    print(f"evaluate: python eval.py --ckpt {place}, or {place}/best    watch: tensorboard --logdir {place}")
