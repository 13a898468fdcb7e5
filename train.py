"""Trains an image classifier: python train.py [PRESET] [--key value ...]

A run that was killed at any step continues with the same command from the newest checkpoint, and ends with the same
weights, bit for bit. From Python: train(Config.of(total_steps=200)); docs/python.md.
"""

import sys

import errors
from presets import parse_command_line

if __name__ == "__main__":  # before TensorFlow's import, which takes seconds: --help should answer at once
    errors.quit_on_signals()
    with errors.reported():
        CONFIG = parse_command_line(sys.argv[1:])

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from checkpoints import CheckpointDirectory, check_restorable, locate
from config import Config
from engine import moving_averages, optimizer
from engine.accumulation import Parts
from engine.metrics import PerExample, class_logits, evaluate, per_example, training_loss
from engine.progress import SAVES, VALIDATIONS, Progress
from engine.reports import Reports
from engine.session import StopSignal, session_config
from engine.summaries import picture_summary, weight_summary
from files import is_remote
from nets.weights import Restorer, fetch, restorer
from outcome import TrainingResult, conclude, print_result
from pipeline import montage
from pipeline.batches import evaluation_batches, training_batches
from pipeline.corruption import Reader
from pipeline.prepare import training_selection, validation_selection
from run_directory import RunPlan, exclusive, prepare, resolve, run_of, with_own_code
from tfcompat import batch_norm, dropout, op_determinism, slim, tf


class Model(NamedTuple):
    """The graph of a training: the loop's view of it."""

    graph: tf.Graph
    training: Reader
    validation: Reader
    step: dict[str, tf.Tensor]  # fetched at every step; runs the update
    parts: Parts  # of a batch; those before the last only add up gradients
    trained: list[str]  # names of the variables whose gradient norms a step returns
    pictures: tf.Tensor  # summary
    weights: tf.Tensor  # summary
    validation_metrics: dict[str, PerExample]  # of the net, "", and with --ema-decay of its EMA weights, "ema_"
    finite: tf.Tensor  # bool, for each variable of `checked`
    checked: list[str]
    initializers: list[tf.Operation]  # of the net's variables, then of the variables that depend on them
    initial_saver: Restorer | None  # of the variables that --init-from restores
    saver: tf.train.Saver  # of all variables


def build(plan: RunPlan, initial: str | None = None) -> Model:
    """Builds the graph: inputs, net, loss, update, the same net again for validation, summaries.

    Each part has a name scope, so that TensorBoard shows a graph of few nodes; variable names do not depend on them.
    initial is the prefix of a checkpoint to start from. Raises UserError where it does not fit the net.
    """
    config, net = plan.config, plan.net
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(config.run.seed)
        training, validation = build_inputs(plan)
        batches, global_step = training.batches, tf.train.get_or_create_global_step()
        parts = Parts(config.update.accumulate_steps)
        logits, end_points = build_net(plan, batches.images, global_step, parts)
        moving_averages.check_values(graph)
        trained = optimizer.trained_variables(tf.trainable_variables(), config.network, net.scope)
        total_loss, regularization, metrics = build_loss(plan, logits, end_points, batches.labels, trained)
        rate, update = build_update(plan, total_loss, trained, global_step, parts)
        train_op, average = optimizer.average_weights(update.op, config.update.ema_decay, global_step)
        validation_metrics = build_validation(plan, validation, average)
        checked = [v for v in tf.global_variables() if v.dtype.is_floating]
        with tf.name_scope("metrics"):
            step = {
                "train_op": train_op,
                "loss": tf.reduce_mean(metrics.loss),
                "total_loss": total_loss,
                "regularization_loss": regularization,
                "top1": tf.reduce_mean(metrics.top1),
                "learning_rate": rate,
                "gradient_norms": update.gradient_norms,
            }
            finite = tf.stack([tf.reduce_all(tf.is_finite(v)) for v in checked])
        with tf.name_scope("summaries"):
            pictures = picture_summary(batches.images)
            distributions = weight_summary(update.variables, config.reporting.norms_by, plan.dataset.channels)
        model = Model(
            graph=graph,
            training=training,
            validation=validation,
            step=step,
            parts=parts,
            trained=[v.op.name for v in update.variables],
            pictures=pictures,
            weights=distributions,
            validation_metrics=validation_metrics,
            finite=finite,
            checked=[v.op.name for v in checked],
            **build_savers(plan, initial),
        )
        graph.finalize()
    return model


def build_inputs(plan: RunPlan) -> tuple[Reader, Reader]:
    """The batches to train on, or their parts, and to validate on."""
    size = plan.config.input.batch_size // plan.config.update.accumulate_steps
    options, seed, preprocessor = plan.config.input, plan.config.run.seed, plan.preprocessor
    train = training_selection(plan.dataset, options, seed)
    held_out = validation_selection(plan.dataset, options, seed)
    train_index, held_out_index = train.index(), held_out.index()
    with tf.name_scope("input"):
        augment = options.overfit_batches is None
        batches = training_batches(train_index, preprocessor, size, seed, augment=augment)
    with tf.name_scope("validation/input"):
        validation = evaluation_batches(held_out_index, preprocessor, size)
    return Reader(batches, train), Reader(validation, held_out)


def build_net(
    plan: RunPlan, images: tf.Tensor, global_step: tf.Tensor, parts: Parts
) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """The net in training mode: its outputs [N, outputs] and end points."""
    network, net = plan.config.network, plan.net
    # Batch norm layers that use their moving averages
    frozen = {"trained": optimizer.frozen_scopes(network, net.scope), "all": None, "none": lambda scope: True}
    seed = parts.key(tf.stack([plan.config.run.seed, global_step], name="dropout_seed"))
    with (
        slim.arg_scope([dropout], seed=seed),
        slim.arg_scope([batch_norm], frozen=frozen[network.batch_norm_updates]),
    ):
        return net.build(images, plan.outputs, True, l2_factor(plan))


def l2_factor(plan: RunPlan) -> float:
    """Factor of the L2 loss: 0 for adamw, which shrinks the weights themselves."""
    return 0.0 if plan.config.update.optimizer == "adamw" else plan.config.regularization.weight_decay


def build_loss(
    plan: RunPlan, logits: tf.Tensor, end_points: Mapping, labels: tf.Tensor, trained: list[tf.Variable]
) -> tuple[tf.Tensor, tf.Tensor, PerExample]:
    """The loss of a training batch, cross-entropy of all heads plus the L2 loss of the decayed variables, a float32
    scalar; the L2 loss alone; and the metrics of the main head."""
    options, net = plan.config.regularization, plan.net
    kernels = optimizer.decayed_variables(trained, False)  # arg scopes decay these
    decayed = optimizer.decayed_variables(trained, options.decay_biases)
    with tf.name_scope("loss"):
        metrics = per_example(class_logits(logits), labels)
        regularization = tf.losses.get_regularization_loss()
        regularization += l2_factor(plan) * sum(tf.nn.l2_loss(v) for v in decayed if v not in kernels)
        heads = {logits: 1.0}
        heads |= {end_points[f"{net.prefix}{head}"]: net.auxiliary_weight for head in net.auxiliary}
        total = regularization + sum(
            weight * training_loss(class_logits(head), labels, options.label_smoothing)
            for head, weight in heads.items()
        )
    return total, regularization, metrics


def build_update(
    plan: RunPlan, loss: tf.Tensor, trained: list[tf.Variable], global_step: tf.Variable, parts: Parts
) -> tuple[tf.Tensor, optimizer.Update]:
    """The learning rate and one step of the optimizer."""
    options = plan.config.update
    with tf.name_scope("learning_rate"):
        rate = optimizer.learning_rate(global_step, plan.config.schedule)
    rule, decay = optimizer.update_rule(options, rate), None
    if options.optimizer == "adamw":
        regularization = plan.config.regularization
        decayed = optimizer.decayed_variables(trained, regularization.decay_biases)
        with tf.name_scope("learning_rate/"):
            decay = optimizer.DecoupledDecay(rate * regularization.weight_decay, decayed)
    update = optimizer.minimize(rule, loss, trained, global_step, clip_norm=options.clip_norm, decay=decay, parts=parts)
    return rate, update


def build_validation(
    plan: RunPlan, validation: Reader, average: tf.train.ExponentialMovingAverage | None
) -> dict[str, PerExample]:
    """Metrics of a validation batch: of the net, "", and of its EMA weights, "ema_"."""
    getters: dict[str, Callable | None] = {"": None}
    if average:
        getters["ema_"] = lambda getter, *args, **kwargs: average.average(getter(*args, **kwargs))
    metrics, batches = {}, validation.batches
    with tf.name_scope("validation/"):  # the slash: the scope of its input again
        for prefix, getter in getters.items():
            with tf.variable_scope(tf.get_variable_scope(), reuse=True, custom_getter=getter):
                logits, _ = plan.net.build(batches.images, plan.outputs, False, 0.0)
            metrics[prefix] = per_example(class_logits(logits), batches.labels)
    return metrics


def build_savers(plan: RunPlan, initial: str | None) -> dict:
    """What gives the variables their values and saves them: initializers, initial_saver and saver of a Model."""
    variables, weights = tf.global_variables(), slim.get_model_variables()
    others, network = [v for v in variables if v not in weights], plan.config.network
    ema = initial and network.ema and not run_of(initial)
    with tf.name_scope("checkpoints"):
        return {
            "initializers": [tf.variables_initializer(weights), tf.variables_initializer(others)],
            "initial_saver": restorer(initial, plan.net, network.adapt_channels, ema) if initial else None,
            "saver": tf.train.Saver(variables, max_to_keep=None),
        }


def train(config: Config) -> TrainingResult:
    """Trains until total_steps, or resumes the run in run_dir. Progress goes to standard output.

    Raises UserError for options, data or a run directory that cannot be used, TrainingError where the training fails.
    """
    config = resolve(with_own_code(config))
    try:
        with op_determinism():
            if config.run.dry_run:  # a run of two steps in a temporary directory
                with tempfile.TemporaryDirectory() as scratch:
                    data = config.input.data
                    taken = os.listdir(data) if os.path.isdir(data) else is_remote(data) or os.path.exists(data)
                    data = data if taken else os.path.join(scratch, "data")  # where a run would make them
                    return run_training(config.replace(data=data, run_dir=os.path.join(scratch, "dry run")))
            with exclusive(config.run.run_dir):
                return run_training(config)
    except OSError as error:
        reason = f"{error.filename or config.run.run_dir}: {error.strerror or error}"
        if isinstance(error, BrokenPipeError):
            reason = "standard output was closed; to leave a training running, send its output to a file"
        kept = "earlier checkpoints are kept; once that is mended, the same command continues from them"
        raise errors.TrainingError(f"{reason}; {kept}") from error


def run_training(config: Config) -> TrainingResult:
    """Does the work of `train`, with resolved options and the run directory locked."""
    os.makedirs(config.run.run_dir, exist_ok=True)
    plan = prepare(config)
    config, run = plan.config, plan.directory
    if plan.is_finished:
        print(f"{run} is finished: step {plan.step} of {max(plan.step, config.schedule.total_steps)}")
        print_result(run, plan.journal)
        return TrainingResult(run, plan.step, plan.journal.best(), plan.journal.rows, 0)
    initial = config.network.init_from if not plan.newest else None
    if initial:  # a path, as resolved, or the name of published weights
        initial = locate(initial, "--init-from") if os.sep in initial else fetch(initial)
    model = build(plan, initial)
    if plan.newest:
        with model.graph.as_default():
            check_restorable(plan.newest, {v.op.name: v for v in tf.global_variables()})
    # Nothing is written to the run directory before data and graph are sound.
    plan.save()
    return run_loop(plan, model, initial)


def run_loop(plan: RunPlan, model: Model, initial: str | None) -> TrainingResult:
    """Trains from the newest checkpoint, from initial weights or from fresh variables."""
    config, journal, step = plan.config, plan.journal, plan.step
    schedule, reporting = config.schedule, config.reporting
    end = min(2, schedule.total_steps) if config.run.dry_run else schedule.total_steps
    settings = session_config(config.run.compute_threads, config.run.precision)
    with StopSignal() as stop, tf.Session(graph=model.graph, config=settings) as session:
        initialize(session, plan, model, initial)
        model.training.start(session, step * model.parts.count)
        reports = Reports(config, journal, step, model.graph)
        progress = Progress(config, step, model.validation.examples)
        checkpoints = CheckpointDirectory(plan.directory, reporting.keep_checkpoints, model.saver)
        best_checkpoint = CheckpointDirectory(os.path.join(plan.directory, "best"), 1, model.saver)
        if plan.newest and os.path.dirname(plan.newest) != plan.directory:  # the best checkpoint was the newest
            checkpoints.save(session, step)
        if plan.missed_validation and validate(session, plan, model, reports, step, stop):
            best_checkpoint.save(session, step)

        ended = journal.should_stop(reporting.patience)
        while step < end and stop.exit_code is None and not ended:
            step += 1
            due = step == end or plan.is_due(step)

            began = time.perf_counter()
            values = run_step(session, model, step, with_pictures=due)
            progress.add(values, time.perf_counter() - began)
            optimizer.check_step(values, model.trained, step)

            if step == end or plan.is_recorded(step):
                reports.log_training(step, progress.unrecorded.take(), int(model.training.batches.index.replaced.sum()))
            if due or progress.is_due(step):
                progress.show(step)
            if due:
                with progress.timed(VALIDATIONS):
                    reports.log_gradients(step, values, model.trained)
                    optimizer.check_variables(session.run(model.finite), model.checked, step, values["learning_rate"])
                    if validate(session, plan, model, reports, step, stop):
                        journal.sync()
                        best_checkpoint.save(session, step)
                ended = journal.should_stop(reporting.patience)
            if step == end or step % reporting.snapshot_every_steps == 0 or ended or stop.exit_code is not None:
                with progress.timed(SAVES):
                    optimizer.check_variables(session.run(model.finite), model.checked, step, values["learning_rate"])
                    journal.sync()
                    checkpoints.save(session, step)
        progress.close()
        reports.close()
    return conclude(plan, model.training.batches.index, step, end, stop.exit_code)


def initialize(session: tf.Session, plan: RunPlan, model: Model, initial: str | None) -> None:
    """Sets the variables: 1. from the run directory's newest valid checkpoint; 2. from --init-from, weights only, the
    rest fresh; 3. fresh."""
    config = plan.config
    if plan.newest:
        model.saver.restore(session, plan.newest)
        place = f"{plan.newest}, step {plan.step} of {config.schedule.total_steps}"
        print(f"resuming {plan.directory} from {place}", flush=True)
        return
    session.run(model.initializers[0])
    if initial:
        model.initial_saver.restore(session, initial)
    session.run(model.initializers[1])  # EMA weights start from the weights
    print(
        f"starting {plan.directory} with {initial or 'fresh variables'}, seed {config.run.seed}: {config.network.net}, "
        f"{config.input.image_size} px, preprocessing {config.input.preprocessing}, data {config.input.data}",
        flush=True,
    )
    note = moving_averages.lag(model.graph, config.schedule.total_steps * model.parts.count)
    if note and not initial:
        print(note, file=sys.stderr)


def run_step(session: tf.Session, model: Model, step: int, with_pictures: bool = False) -> dict:
    """Runs the update of a step, after the parts of its batch before the last, and returns the values of model.step;
    loss and accuracy are means over the parts. Replaces corrupt records in the batch."""
    parts = model.parts
    means = {key: model.step[key] for key in ("loss", "total_loss", "top1")}

    def run(fetches: dict, part: int) -> dict:
        # The one sync point of a step: its values have to arrive for the checks that follow.
        call = partial(session.run, fetches, parts.feed(part))
        return model.training.attempt(session, call, (step - 1) * parts.count + part)

    before = [run({**means, "add": parts.add[min(part, 1)]}, part) for part in range(parts.count - 1)]
    fetches = {**model.step, "pictures": model.pictures} if with_pictures else model.step
    values = run(fetches, parts.count - 1)
    return (
        {**values, **{key: np.mean([part[key] for part in (*before, values)]) for key in means}} if before else values
    )


def validate(session: tf.Session, plan: RunPlan, model: Model, reports: Reports, step: int, stop: StopSignal) -> bool:
    """Evaluates the validation split and reports it. Returns whether it is the best so far.

    A signal ends it without a report; it is repeated when the run is resumed.
    """
    validation, dataset = model.validation, plan.dataset
    one_pass = partial(evaluate, session, validation, model.validation_metrics, lambda: stop.exit_code)
    tables = validation.attempt(session, one_pass)
    if tables is None:
        return False

    def sheet(rows: list[int], titles: list[str]) -> object:
        pictures = validation.batches.index.pictures(rows, dataset.channels)
        return montage.sheet(list(zip(pictures, titles, strict=True)), columns=3)  # readable on a card

    reports.log_validation(step, tables, dataset.class_names, sheet)
    reports.writer.add_summary(session.run(model.weights), step)
    return plan.journal.best()["step"] == step


if __name__ == "__main__":
    with errors.reported():
        sys.exit(train(CONFIG).exit_code)
