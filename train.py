"""Trains an image classifier: python train.py [PRESET] [--key value ...]

Killed at any step, the same command goes on from the newest checkpoint and ends with the same weights, bit for bit.
"""

import sys

import errors
from presets import parse_command_line

if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    with errors.reported():
        CONFIG = parse_command_line(sys.argv[1:])

import dataclasses
import json
import os
import shlex
import signal
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import config as configuration
from checkpoints import CheckpointDirectory, check_restorable, locate
from engine import optimizer, summaries
from engine.finite import check_step, check_variables
from engine.journal import Journal
from engine.metrics import PerExample, class_logits, evaluate, per_example, training_loss
from engine.reports import Reports
from engine.session import StopSignal, exclusive, make_deterministic, session_config
from files import atomic_write
from nets import NETS
from nets.weights import fetch, restorer
from pipeline import montage, statistics
from pipeline.batches import evaluation_batches, first_shuffled, training_batches, training_rows
from pipeline.check import Records
from pipeline.dataset import DATASET_JSON, Index, load_index
from pipeline.preprocess import PREPROCESSINGS
from run_directory import CONFIG_JSON, Start, is_due, prepared_data, start_of
from tfcompat import batch_norm, dropout, slim, tf


class Model(NamedTuple):
    """What the loop needs of the graph."""

    graph: tf.Graph
    training: Records
    step: dict[str, tf.Tensor]  # fetched at every step; runs the update
    trained: list[str]  # the variables whose gradient norms a step gives
    picture_summary: tf.Tensor
    weight_summary: tf.Tensor
    validation: Records
    validation_metrics: dict[str, PerExample]  # of the net, "", and with --ema-decay of its averaged weights, "ema_"
    finite: tf.Tensor  # bool, of each variable of `checked`
    checked: list[str]
    initializers: list[tf.Operation]  # of the net's variables, and of all that is made of them
    initial_saver: tf.train.Saver | None  # of the variables that --init-from restores
    variables: list[tf.Variable]  # all that a checkpoint holds
    saver: tf.train.Saver


def build(config: configuration.Config, dataset: dict, initial: str | None = None) -> Model:
    """The graph: data, the net to train, loss, update, the same variables once more to validate, summaries.

    initial is the prefix of a checkpoint to start from. Raises UserError where it does not fit.
    """
    train_index, validation_index = training_index(config, dataset), validation_index_of(config, dataset)
    picture = (dataset["channels"], config.preprocessing, config.image_size)
    stats = statistics.load(config.data, dataset)
    net, num_classes = NETS[config.net], len(dataset["class_names"])
    outputs = 1 if config.head == "sigmoid" else num_classes
    frozen = optimizer.frozen_scopes(config.train_only, config.freeze, net.scope)
    fixed = {"trained": frozen, "all": None, "none": lambda scope: True}  # batch norm layers that keep their averages

    with tf.Graph().as_default() as graph:
        make_deterministic(config.seed)
        with tf.name_scope("input"):  # name scopes for TensorBoard's graph; they do not reach the variables
            augment = config.overfit_batches is None
            batches = training_batches(train_index, *picture, config.batch_size, config.seed, stats, augment=augment)
        with tf.name_scope("validation_input"):
            validation = evaluation_batches(validation_index, *picture, config.batch_size, stats)
        global_step = tf.train.get_or_create_global_step()

        with (
            slim.arg_scope([dropout], seed=tf.stack([config.seed, global_step], name="dropout_seed")),
            slim.arg_scope([batch_norm], frozen=fixed[config.batch_norm_updates]),
        ):
            # adamw decays the weights themselves, and not by way of the loss.
            l2 = 0.0 if config.optimizer == "adamw" else config.weight_decay
            logits, end_points = net.build(batches.images, outputs, True, l2)
        trained = optimizer.trained_variables(tf.trainable_variables(), config.train_only, config.freeze, net.scope)
        decayed = optimizer.decayed_variables(trained, config.decay_biases)

        with tf.name_scope("loss"):
            metrics = per_example(class_logits(logits), batches.labels)
            regularization_loss = tf.losses.get_regularization_loss()
            kernels = optimizer.decayed_variables(trained, False)
            regularization_loss += l2 * sum(
                tf.nn.l2_loss(v) for v in decayed if v not in kernels
            )  # arg scopes decay these
            heads = {logits: 1.0}
            heads |= {end_points[f"{net.scope}/{head}"]: net.auxiliary_weight for head in net.auxiliary}
            total_loss = regularization_loss + sum(
                weight * training_loss(class_logits(head), batches.labels, config.label_smoothing)
                for head, weight in heads.items()
            )
        with tf.name_scope("learning_rate"):
            rate = optimizer.learning_rate(
                global_step,
                config.learning_rate,
                config.schedule,
                config.total_steps,
                config.warmup_steps,
                config.decay_at_steps,
                config.decay_steps,
                config.decay_rate,
                config.end_learning_rate,
                config.polynomial_power,
            )
        rule = optimizer.optimizer(
            config.optimizer,
            rate,
            config.momentum,
            config.nesterov,
            config.adam_beta1,
            config.adam_beta2,
            config.rmsprop_decay,
            config.optimizer_epsilon,
        )
        shrink = rate * config.weight_decay if config.optimizer == "adamw" else None
        update = optimizer.minimize(rule, total_loss, trained, global_step, config.clip_norm, shrink, decayed)
        train_op, weights, average = update.op, slim.get_model_variables(), None
        if config.ema_decay:
            average = tf.train.ExponentialMovingAverage(config.ema_decay, global_step)
            with tf.control_dependencies([train_op]):
                train_op = average.apply(weights)

        with tf.name_scope("validation"):
            validation_metrics = {}
            for prefix, getter in {"": None, **({"ema_": averaged_by(average)} if average else {})}.items():
                with tf.variable_scope(tf.get_variable_scope(), reuse=True, custom_getter=getter):
                    answers, _ = net.build(validation.images, outputs, False, 0.0)
                validation_metrics[prefix] = per_example(class_logits(answers), validation.labels)

        place = config.data, dataset, config.on_error
        checked = [v for v in tf.global_variables() if v.dtype.is_floating]
        others = [v for v in tf.global_variables() if v not in weights]
        model = Model(
            graph,
            Records(batches, train_index, lambda: training_index(config, dataset), *place),
            {
                "train_op": train_op,
                "loss": tf.reduce_mean(metrics.loss),
                "total_loss": total_loss,
                "regularization_loss": regularization_loss,
                "top1": tf.reduce_mean(metrics.top1),
                "learning_rate": rate,
                "gradient_norms": update.gradient_norms,
            },
            [v.op.name for v in update.variables],
            summaries.pictures(batches.images),
            summaries.weights(tf.trainable_variables()),
            Records(validation, validation_index, lambda: validation_index_of(config, dataset), *place),
            validation_metrics,
            tf.stack([tf.reduce_all(tf.is_finite(v)) for v in checked]),
            [v.op.name for v in checked],
            [tf.variables_initializer(weights), tf.variables_initializer(others)],
            restorer(initial, net) if initial else None,
            tf.global_variables(),
            tf.train.Saver(tf.global_variables(), max_to_keep=None),
        )
        graph.finalize()
    return model


def averaged_by(average: tf.train.ExponentialMovingAverage) -> Callable:
    """Reads the averages in the place of the variables."""
    return lambda getter, *args, **kwargs: average.average(getter(*args, **kwargs))


def training_index(config: configuration.Config, dataset: dict) -> Index:
    """The records to train on; with --on-error skip others stand in for those that are corrupt."""
    whole = load_index(config.data, dataset, "train", config.on_error)
    examples = config.overfit_batches * config.batch_size if config.overfit_batches else config.train_examples
    return first_shuffled(whole, examples, config.seed)


def validation_index_of(config: configuration.Config, dataset: dict) -> Index:
    """The records to validate on; with --on-error skip without those that are corrupt."""
    if config.overfit_batches:
        return training_index(config, dataset).intact()
    return load_index(config.data, dataset, "validation", config.on_error).intact()


def train(config: configuration.Config) -> int:
    """Trains until config.total_steps. Returns the exit code: 0 done, 143 or 130 stopped by a signal, after saving."""
    configuration.validate(config, NETS, PREPROCESSINGS)
    config = configuration.resolve(config, NETS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # until the loop saves first: what is half made goes again
    try:
        if config.dry_run:  # as a run of two steps, in a directory that goes again
            with tempfile.TemporaryDirectory() as scratch:
                taken = os.listdir(config.data) if os.path.isdir(config.data) else os.path.exists(config.data)
                data = config.data if taken else os.path.join(scratch, "data")  # where a run would make them
                return run_training(dataclasses.replace(config, data=data, run_dir=os.path.join(scratch, "dry run")))
        with exclusive(config.run_dir):
            return run_training(config)
    except BrokenPipeError:
        raise errors.TrainingError(
            "nobody reads what this prints any more; what was saved before is still there, and the same command goes "
            "on from it. To leave it alone, send its output to a file"
        ) from None
    except OSError as error:
        raise errors.TrainingError(
            f"{error.filename or config.run_dir}: {error.strerror or error}; what was saved before is still there. "
            "Once that is mended, the same command goes on from it"
        ) from error


def run_training(config: configuration.Config) -> int:
    """As `train`, with a resolved configuration and the run directory held."""
    run = config.run_dir
    os.makedirs(run, exist_ok=True)
    start = start_of(config)
    config = start.config
    if start.is_finished:
        print(f"{run} is finished: step {start.step} of {config.total_steps}")
        print_result(run, start.journal)
        return 0

    # Data and graph; nothing is written to the run directory before both are sound
    dataset = start.dataset or prepared_data(config)
    if config.head == "sigmoid" and len(dataset["class_names"]) != 2:
        raise errors.UserError(f"--head sigmoid is for two classes; {config.data} has {len(dataset['class_names'])}")
    initial = None
    if config.init_from and not start.newest:
        is_path = os.sep in config.init_from  # as resolved; else the name of published weights
        initial = locate(config.init_from, "--init-from") if is_path else fetch(config.init_from)
    model = build(config, dataset, initial)
    if start.newest:
        check_restorable(start.newest, {variable.op.name: variable for variable in model.variables})
    configuration.save(config, os.path.join(run, CONFIG_JSON))
    if not os.path.exists(os.path.join(run, DATASET_JSON)):
        with atomic_write(os.path.join(run, DATASET_JSON)) as partial:
            partial.write_text(json.dumps(dataset, indent=2) + "\n")
    statistics.copy_pixel_statistics(config.data, run)
    return run_loop(start, dataset, model, initial)


def run_loop(start: Start, dataset: dict, model: Model, initial: str | None) -> int:
    """Trains from the newest checkpoint, from initial weights or from fresh ones. Returns the exit code."""
    config, newest, step, journal, missed, _ = start
    run = config.run_dir
    end = min(2, config.total_steps) if config.dry_run else config.total_steps
    stop = StopSignal()
    with tf.Session(graph=model.graph, config=session_config(config.compute_threads, config.precision)) as session:
        # Where a run starts: 1. the run directory's newest valid checkpoint; 2. --init-from, weights only, on top of
        # fresh variables; 3. fresh variables.
        if newest:
            model.saver.restore(session, newest)
            print(f"resuming {run} from {newest}, step {step} of {config.total_steps}", flush=True)
        else:
            session.run(model.initializers[0])
            if initial:
                model.initial_saver.restore(session, initial)
            session.run(model.initializers[1])  # averages start from the weights as they are now
            print(
                f"starting {run} with {initial or 'fresh variables'}, seed {config.seed}: {config.net}, "
                f"{config.image_size} px, preprocessing {config.preprocessing}",
                flush=True,
            )
        training = model.training
        training.batches.start(session, step)
        reports = Reports(run, journal, step, config.total_steps, config.batch_size, model.graph)
        summaries.add_table(reports.writer, "settings", dataclasses.asdict(config))
        checkpoints = CheckpointDirectory(run, config.keep_checkpoints, model.saver)
        best_checkpoint = CheckpointDirectory(os.path.join(run, "best"), 1, model.saver)
        if newest and os.path.dirname(newest) != run:  # the best one was the last
            checkpoints.save(session, step)
        if missed and validate(model, session, step, reports, stop, dataset):
            best_checkpoint.save(session, step)

        window, seconds = [], 0.0  # since the last log
        ended = journal.is_past_its_best(config.patience)
        while step < end and stop.exit_code is None and not ended:
            step += 1
            due = step == end or is_due(config, step)

            began = time.perf_counter()
            fetches = {**model.step, "pictures": model.picture_summary} if due else model.step
            # The one sync point of a step: what it gives has to reach us for the check below.
            values = training.attempt(
                session,
                lambda fetches=fetches: session.run(fetches),
                rows=lambda step=step: training_rows(
                    len(training.index.offsets), config.seed, (step - 1) * config.batch_size, config.batch_size
                ),
                step=step - 1,
            )
            seconds += time.perf_counter() - began
            window.append(values)
            reports.progress.update()
            check_step(values, model.trained, step)

            if step == end or step % config.display_every_steps == 0:
                reports.trained(step, window, seconds, int(training.index.replaced.sum()))
                window, seconds = [], 0.0
            if due:
                reports.writer.add_summary(values["pictures"], step)
                norms = zip(model.trained, values["gradient_norms"], strict=True)
                summaries.add_scalars(reports.writer, step, {f"gradient_norm/{name}": norm for name, norm in norms})
                check_variables(session.run(model.finite), model.checked, step, values["learning_rate"])
                if validate(model, session, step, reports, stop, dataset):
                    journal.sync()
                    best_checkpoint.save(session, step)
                ended = journal.is_past_its_best(config.patience)
            if step == end or step % config.snapshot_every_steps == 0 or ended or stop.exit_code is not None:
                check_variables(session.run(model.finite), model.checked, step, values["learning_rate"])
                journal.sync()
                checkpoints.save(session, step)
        reports.close()

    if config.dry_run:
        print(f"dry run: {step} steps, a validation and a save; nothing is left behind")
        return stop.exit_code or 0
    if stop.exit_code is not None and not (step == end and journal.has_validation(step)):
        saved = f"at step {step}, which is saved; the same command goes on from there"
        print(f"stopped by a signal {saved if step else 'before the first step'}")
        return stop.exit_code
    if step < end:
        print(f"stopped early: {config.patience} validations without a better {config.best_metric}")
    print(f"finished {run} at step {step}")
    if training.index.replaced.any():
        number = int(training.index.replaced.sum())
        print(f"{number} of {training.batches.examples} training records are corrupt; others stood in for them")
    print_result(run, journal)
    return 0


def validate(model: Model, session: tf.Session, step: int, reports: Reports, stop: StopSignal, dataset: dict) -> bool:
    """Evaluates the validation split and tells of it. Returns whether it is the best so far.

    A signal ends it with nothing told: it is made up for when the run goes on.
    """
    validation = model.validation
    tables = validation.attempt(
        session,
        lambda: evaluate(session, validation.batches, model.validation_metrics, lambda: stop.exit_code),
        rows=lambda: range(len(validation.index.offsets)),
        step=0,
    )
    if tables is None:
        return False

    def sheet(places: list[int], titles: list[str]) -> object:
        pictures = montage.stored_pictures(validation.index, places, dataset["channels"])
        return montage.sheet(list(zip(pictures, titles, strict=True)), columns=4)

    reports.validated(step, tables, dataset["class_names"], sheet)
    reports.writer.add_summary(session.run(model.weight_summary), step)
    return reports.journal.best()["step"] == step


def print_result(run: str, journal: Journal) -> None:
    """Says how good the run is and what to do next."""
    best = journal.best()
    if best:
        prefix = "ema_" if journal.metric.startswith("ema_") else ""
        values = f"top-1 {best[f'{prefix}top1']:.2%}, loss {best[f'{prefix}loss']:.4f}"
        print(f"best validation: {values} at step {best['step']}")
    place = shlex.quote(run)
    print(f"evaluate: python eval.py --ckpt {place}, or {place}/best    watch: tensorboard --logdir {place}")


if __name__ == "__main__":
    with errors.reported():
        sys.exit(train(CONFIG))
