"""Trains an image classifier: python train.py [PRESET] [--key value ...]

Killed at any step, the same command goes on from the newest checkpoint and ends with the same weights, bit for bit.
"""

import sys

import config as configuration
import errors

if __name__ == "__main__":  # here, since TensorFlow's import takes seconds and --help should not
    with errors.reported():
        CONFIG = configuration.parse_command_line(sys.argv[1:])

import json
import math
import os
import subprocess
import time
from typing import NamedTuple

from tqdm import tqdm

from checkpoints import locate, newest_valid, step_of
from engine import summaries
from engine.checkpoint import CheckpointDirectory
from engine.journal import TRAIN, VALIDATION, Journal, draw_curves
from engine.metrics import PerExample, evaluate, per_example
from engine.optimizer import learning_rate, optimizer
from engine.session import StopSignal, exclusive, make_deterministic, session_config
from files import whole_file
from nets import NETS
from nets.weights import fetch, restorer
from pipeline import statistics
from pipeline.check import Records
from pipeline.dataset import evaluation_batches, first_shuffled, training_batches, training_rows
from pipeline.preprocess import PREPROCESSINGS
from pipeline.records import DATASET_JSON, Index, has_dataset, load_dataset, load_index
from tfcompat import dropout, slim, tf


class Model(NamedTuple):
    """What the loop needs of the graph."""

    graph: tf.Graph
    training: Records
    step: dict[str, tf.Tensor]  # fetched at every step; runs the update
    picture_summary: tf.Tensor
    histogram_summary: tf.Tensor
    validation: Records
    validation_metrics: PerExample
    finite: tf.Tensor  # whether all variables are
    initializer: tf.Operation
    initial_saver: tf.train.Saver | None  # of the variables that --init-from restores
    saver: tf.train.Saver


def build(config: configuration.Config, dataset: dict, initial: str | None = None) -> Model:
    """The graph: data, the net twice over the same variables (to train, to validate), loss, train op, summaries.

    initial is the prefix of a checkpoint to start from. Raises UserError where it does not fit.
    """
    train_index, validation_index = training_index(config, dataset), validation_index_of(config, dataset)
    picture = (dataset["channels"], config.preprocessing, config.image_size)
    stats = statistics.load(config.data, dataset)
    num_classes = len(dataset["class_names"])
    net = NETS[config.net]

    with tf.Graph().as_default() as graph:
        make_deterministic(config.seed)
        with tf.name_scope("input"):  # name scopes for TensorBoard's graph; they do not reach the variables
            batches = training_batches(train_index, *picture, config.batch_size, config.seed, stats)
        with tf.name_scope("validation_input"):
            validation = evaluation_batches(validation_index, *picture, config.batch_size, stats)
        global_step = tf.train.get_or_create_global_step()

        with slim.arg_scope([dropout], seed=tf.stack([config.seed, global_step], name="dropout_seed")):
            logits, end_points = net.build(batches.images, num_classes, True, config.weight_decay)
        with tf.name_scope("validation"), tf.variable_scope(tf.get_variable_scope(), reuse=True):
            validation_logits, _ = net.build(validation.images, num_classes, False, config.weight_decay)
            validation_metrics = per_example(validation_logits, validation.labels)

        with tf.name_scope("loss"):
            metrics = per_example(logits, batches.labels)
            loss = tf.reduce_mean(metrics.loss)
            regularization_loss = tf.losses.get_regularization_loss()
            total_loss = loss + regularization_loss
            for head in net.auxiliary:
                head_loss = per_example(end_points[f"{net.scope}/{head}"], batches.labels).loss
                total_loss += net.auxiliary_weight * tf.reduce_mean(head_loss)
        with tf.name_scope("learning_rate"):
            rate = learning_rate(
                global_step,
                config.learning_rate,
                config.schedule,
                config.total_steps,
                config.warmup_steps,
                config.decay_at_steps,
                config.decay_steps,
                config.decay_rate,
                config.end_learning_rate,
            )
        rule = optimizer(
            config.optimizer,
            rate,
            config.momentum,
            config.adam_beta1,
            config.adam_beta2,
            config.rmsprop_decay,
            config.optimizer_epsilon,
        )
        gradients = rule.compute_gradients(total_loss)
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):  # batch norm's moving averages
            train_op = rule.apply_gradients(gradients, global_step)

        initial_saver = restorer(initial, net) if initial else None
        place = config.data, dataset, config.on_error
        model = Model(
            graph,
            Records(batches, train_index, lambda: training_index(config, dataset), *place),
            {
                "train_op": train_op,
                "loss": loss,
                "regularization_loss": regularization_loss,
                "top1": tf.reduce_mean(metrics.top1),
                "learning_rate": rate,
            },
            summaries.pictures(batches.images),
            summaries.histograms(),
            Records(validation, validation_index, lambda: validation_index_of(config, dataset), *place),
            validation_metrics,
            tf.reduce_all([tf.reduce_all(tf.is_finite(v)) for v in tf.global_variables() if v.dtype.is_floating]),
            tf.global_variables_initializer(),
            initial_saver,
            tf.train.Saver(tf.global_variables(), max_to_keep=None),
        )
        graph.finalize()
    return model


def training_index(config: configuration.Config, dataset: dict) -> Index:
    """The records to train on; with --on-error skip others stand in for those that are corrupt."""
    whole = load_index(config.data, dataset, "train", config.on_error)
    return first_shuffled(whole, config.train_examples, config.seed)


def validation_index_of(config: configuration.Config, dataset: dict) -> Index:
    """The records to validate on; with --on-error skip without those that are corrupt."""
    return load_index(config.data, dataset, "validation", config.on_error).intact()


def train(config: configuration.Config) -> int:
    """Trains until config.total_steps. Returns the exit code: 0 done, 143 or 130 stopped by a signal, after saving."""
    configuration.validate(config, NETS, PREPROCESSINGS)
    with exclusive(config.run_dir):
        return run_training(configuration.resolve(config, NETS))


def run_training(config: configuration.Config) -> int:
    """As `train`, with a resolved configuration and the run directory held."""
    # Is there a run already, and is it the one that is asked for?
    run = config.run_dir
    newest = newest_valid(run)
    if os.listdir(run):
        if not os.path.exists(os.path.join(run, "config.json")):
            raise errors.UserError(f"{run} is not empty and holds no run (no config.json); choose another --run-dir")
        config = configuration.resumed(configuration.load(os.path.join(run, "config.json")), config)
    if newest is None and newest_valid(os.path.join(run, "best")):
        raise errors.UserError(
            f"{run} holds a best checkpoint but none to resume from, and starting over would replace it; copy "
            f"{run}/best/model.ckpt-* to {run} to go on from there, or choose another --run-dir"
        )
    dataset = checked_data(config) if has_dataset(config.data) else None
    if newest and step_of(newest) >= config.total_steps:
        print(f"{run} is finished: step {step_of(newest)} of {config.total_steps}")
        print_result(run, Journal(os.path.join(run, "metrics.jsonl"), step_of(newest)))
        return 0

    # Data and graph; nothing is written to the run directory before both are sound
    if dataset is None:
        print(f"making {config.data}: {config.dataset} from {config.source or 'the known source'}", flush=True)
        make_data(config)
        dataset = checked_data(config)
    initial = None
    if config.init_from and not newest:
        is_path = os.sep in config.init_from  # as resolved; else the name of published weights
        initial = locate(config.init_from, "--init-from") if is_path else fetch(config.init_from)
    model = build(config, dataset, initial)
    if not os.path.exists(os.path.join(run, DATASET_JSON)):
        with whole_file(os.path.join(run, DATASET_JSON)) as partial:
            partial.write_text(json.dumps(dataset, indent=2) + "\n")
    statistics.copy_pixel_statistics(config.data, run)
    configuration.save(config, os.path.join(run, "config.json"))

    stop = StopSignal()
    with tf.Session(graph=model.graph, config=session_config(config.compute_threads)) as session:
        # Where a run starts: 1. the run directory's newest valid checkpoint; 2. --init-from, weights only, on top of
        # fresh variables; 3. fresh variables.
        if newest:
            model.saver.restore(session, newest)
            step = step_of(newest)
            print(f"resuming {run} from {newest}, step {step} of {config.total_steps}", flush=True)
        else:
            session.run(model.initializer)
            if initial:
                model.initial_saver.restore(session, initial)
            step = 0
            print(
                f"starting {run} with {initial or 'fresh variables'}, seed {config.seed}: {config.net}, "
                f"{config.image_size} px, preprocessing {config.preprocessing}",
                flush=True,
            )
        training, validation = model.training, model.validation
        training.batches.start(session, step)
        journal = Journal(os.path.join(run, "metrics.jsonl"), step)
        writer = summaries.open_writer(run, step, model.graph)
        validation_writer = summaries.open_writer(os.path.join(run, "val"), step)
        checkpoints = CheckpointDirectory(run, config.keep_checkpoints, model.saver)
        best_checkpoint = CheckpointDirectory(os.path.join(run, "best"), 1, model.saver)

        window, seconds = [], 0.0  # since the last log
        progress = tqdm(total=config.total_steps, initial=step, unit="step", disable=not sys.stderr.isatty())
        while step < config.total_steps and stop.exit_code is None:
            step += 1
            last = step == config.total_steps
            validate = last or step % config.validate_every_steps == 0
            snapshot = last or step % config.snapshot_every_steps == 0

            began = time.perf_counter()
            fetches = {**model.step, "pictures": model.picture_summary} if validate else model.step
            # The one sync point of a step: the loss has to reach us for the check below.
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
            progress.update()
            save = snapshot or stop.exit_code is not None
            if not math.isfinite(values["loss"]) or ((save or validate) and not session.run(model.finite)):
                raise errors.TrainingError(
                    f"loss {values['loss']} or a variable is not finite at step {step}, learning rate "
                    f"{values['learning_rate']:.3g}; what was saved before stays. Try a lower --learning-rate or more "
                    "--warmup-steps, with another --run-dir"
                )

            if last or step % config.display_every_steps == 0:
                replaced = int(training.index.replaced.sum())
                log(config, step, window, seconds, replaced, journal, writer, progress)
                window, seconds = [], 0.0
            if validate:
                result = validation.attempt(
                    session,
                    lambda: evaluate(session, validation.batches, model.validation_metrics),
                    rows=lambda: range(len(validation.index.offsets)),
                    step=0,
                )
                tqdm.write(f"step {step}/{config.total_steps}: validation {result}")
                journal.add(step, VALIDATION, **result._asdict())
                scalars = {"loss/cross_entropy": result.loss, "accuracy/top1": result.top1}
                summaries.add_scalars(validation_writer, step, {**scalars, "accuracy/top5": result.top5})
                writer.add_summary(values["pictures"], step)
                writer.add_summary(session.run(model.histogram_summary), step)
                draw_curves(journal, os.path.join(run, "curves.png"), os.path.basename(os.path.abspath(run)))
                if journal.best()["step"] == step:
                    best_checkpoint.save(session, step)
            if save:
                checkpoints.save(session, step)
        progress.close()
        writer.close()
        validation_writer.close()

    if step < config.total_steps:
        print(f"stopped by a signal at step {step}, which is saved; the same command goes on from there")
        return stop.exit_code
    print(f"finished {run} at step {step}")
    if replaced:
        print(f"{replaced} of {training.batches.examples} training records are corrupt; others stood in for them")
    print_result(run, journal)
    return 0


def log(
    config: configuration.Config,
    step: int,
    window: list[dict],
    seconds: float,
    replaced: int,
    journal: Journal,
    writer: tf.summary.FileWriter,
    progress: tqdm,
) -> None:
    """Tells journal, TensorBoard and the user of the steps since the last log: means of loss and accuracy."""
    loss, top1 = (sum(float(values[key]) for values in window) / len(window) for key in ("loss", "top1"))
    regularization_loss, rate = float(window[-1]["regularization_loss"]), float(window[-1]["learning_rate"])
    speed = len(window) * config.batch_size / seconds
    journal.add(
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
        "loss/total": loss + regularization_loss,
        "accuracy/top1": top1,
        "progress/learning_rate": rate,
        "progress/images_per_second": speed,
    }
    if replaced:
        scalars["progress/replaced_records"] = replaced
    summaries.add_scalars(writer, step, scalars)
    if progress.disable:
        left = time.strftime("%H:%M:%S", time.gmtime((config.total_steps - step) * config.batch_size / speed))
        print(
            f"step {step}/{config.total_steps}: loss {loss:.4f}, top-1 {top1:.2%}, learning rate {rate:.3g}, "
            f"{speed:,.0f} images/s, {left} left",
            flush=True,
        )
    else:
        progress.set_postfix_str(f"loss {loss:.4f}, top-1 {top1:.1%}, {speed:,.0f} images/s")


def make_data(config: configuration.Config) -> None:
    """Converts the source in a process of its own, whose helpers then need not load TensorFlow."""
    command = [sys.executable, "-m", "pipeline.convert", config.dataset, "--out", config.data]
    if config.source:
        command += ["--source", os.path.abspath(config.source)]
    home = os.path.dirname(os.path.abspath(__file__))
    paths = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    status = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, check=False).returncode
    if status:  # the reason is told
        sys.exit(status if status > 0 else 128 - status)


def checked_data(config: configuration.Config) -> dict:
    """The content of dataset.json.

    Raises UserError where the shards are for evaluation alone, of another source than asked for, or not those that the
    run was started with.
    """
    dataset = load_dataset(config.data)
    if not dataset["splits"].get("train", {}).get("examples"):
        raise errors.UserError(
            f"there are no training pictures in {config.data}; it can only be evaluated: "
            f"python eval.py --ckpt PATH --data {config.data}"
        )
    if dataset.get("name", config.dataset) != config.dataset:
        raise errors.UserError(
            f"{config.data} holds {dataset['name']}, not {config.dataset}; give --dataset {dataset['name']}, or name "
            "another directory with --data"
        )
    source = config.source and os.path.realpath(config.source)
    if source and dataset.get("source") not in (None, source):
        raise errors.UserError(
            f"{config.data} was made from {dataset['source']}, not from {source}; name another directory with --data"
        )
    stored = os.path.join(config.run_dir, DATASET_JSON)
    if os.path.exists(stored) and load_dataset(config.run_dir) != dataset:
        raise errors.UserError(
            f"{config.data} is not the data that {config.run_dir} was started with; "
            "name that with --data, or start a new run with another --run-dir"
        )
    return dataset


def print_result(run: str, journal: Journal) -> None:
    """Says how good the run is and what to do next."""
    best = journal.best()
    if best:
        print(f"best validation: top-1 {best['top1']:.2%}, loss {best['loss']:.4f} at step {best['step']}")
    print(f"evaluate: python eval.py --ckpt {run}, or {run}/best    watch: tensorboard --logdir {run}")


if __name__ == "__main__":
    with errors.reported():
        sys.exit(train(CONFIG))
