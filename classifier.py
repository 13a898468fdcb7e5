"""A trained net as evaluation, prediction and export find it: one checkpoint, and all that must be known to use it.

net = classifier.find(args)  # of arguments.checkpoint_parser
heads, end_points = net.build(images)
with tf.Session(config=net.session_config()) as session:
    net.restore(session)
"""

import argparse
import dataclasses
import os
from typing import NamedTuple

import config as configuration
from checkpoints import check_restorable, locate, shapes_of
from engine.metrics import class_logits
from engine.session import make_deterministic, session_config
from errors import UserError
from files import os_errors_as_user_errors
from nets import NETS, Net
from nets.weights import head_width
from pipeline import statistics
from pipeline.dataset import DATASET_JSON, load_dataset
from pipeline.preprocess import PREPROCESSINGS
from pipeline.statistics import Statistics
from run_directory import CONFIG_JSON, run_of
from tfcompat import tf

AVERAGE = "ExponentialMovingAverage"


class Trained(NamedTuple):
    """A checkpoint and what it is of."""

    prefix: str  # of the checkpoint
    run: str | None  # its run directory
    config: configuration.Config  # resolved: of the run, or of what the command line says of a checkpoint alone
    dataset: dict  # dataset.json of what it was trained on; of a checkpoint alone, of --data, or numbers for names
    statistics: Statistics  # of the training pictures
    outputs: int  # of the net's heads: one for each class, one more with a background, 1 for a sigmoid unit
    background: bool  # whether the first output is none of the classes
    ema: bool  # whether the averages of the weights stand in for them

    @property
    def net(self) -> Net:
        """Its registry record."""
        return NETS[self.config.net]

    @property
    def class_names(self) -> list[str]:
        """In label order."""
        return self.dataset["class_names"]

    def build(self, images: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """The net as it is evaluated, on preprocessed pictures [N, H, W, C].

        Returns:
            Logits [N, classes] of the main head, "", and of auxiliary heads by their names; the end points.
        """
        logits, end_points = self.net.build(images, self.outputs, False, 0.0)
        heads = {"": logits}
        for name in self.net.auxiliary:
            heads[name.removesuffix("/logits")] = end_points[f"{self.net.scope}/{name}"]
        first = int(self.background)
        return {name: class_logits(head[:, first:]) for name, head in heads.items()}, end_points

    def restore(self, session: tf.Session) -> None:
        """Restores the variables of the session's graph. Raises UserError where the checkpoint does not fit them."""
        with session.graph.as_default():
            names = {f"{v.op.name}/{AVERAGE}" if self.ema else v.op.name: v for v in tf.global_variables()}
            check_restorable(self.prefix, names)
            tf.train.Saver(names).restore(session, self.prefix)

    def session_config(self) -> tf.ConfigProto:
        """Threads and precision of the run."""
        return session_config(self.config.compute_threads, self.config.precision)


@os_errors_as_user_errors()
def find(args: argparse.Namespace, data: str | None = None, batch_size: int | None = None) -> Trained:
    """What --ckpt and, without a run directory, the flags beside it name.

    Args:
        args: of arguments.checkpoint_parser.
        data: directory that describes the classes of a checkpoint without run directory. Of a run, other shards of the
            same classes.
        batch_size: in the place of the run's own, or of 64.

    Raises:
        UserError: a checkpoint that cannot be read or is of another net, flags that are missing or contradict the run.
    """
    prefix, run = locate(args.ckpt), run_of(args.ckpt)
    named = {key: getattr(args, key) for key in ("net", "image_size", "preprocessing")}
    named = {
        key: value for key, value in {**named, "data": data, "batch_size": batch_size}.items() if value is not None
    }
    config = _of_run(run, named) if run else _alone(args.ckpt, named)
    configuration.validate(config, NETS, PREPROCESSINGS)
    config = configuration.resolve(config, NETS)
    make_deterministic(config.seed)

    stored, net = shapes_of(prefix), NETS[config.net]
    if args.ema and not any(name.endswith(f"/{AVERAGE}") for name in stored):
        raise UserError(f"--ema: {prefix} holds no averages; train with --ema-decay 0.999 to keep them")
    width = head_width(stored, net)
    if run:
        dataset = load_dataset(run)
    elif data:
        dataset = load_dataset(data)
    elif width is None:
        raise UserError(f"{prefix} holds no head of {config.net}; python -m nets.weights inspect tells what it fits")
    else:  # the published heads are of ImageNet's 1,000 classes, most with a background before them
        names = list(map(str, range({1: 2, 1001: 1000}.get(width, width))))
        dataset = {"class_names": names, "channels": net.channels}
    classes = len(dataset["class_names"])
    background = run is None and width == classes + 1
    return Trained(
        prefix,
        run,
        config,
        dataset,
        statistics.load(run or data, dataset) if run or data else Statistics(),
        1 if width == 1 and classes == 2 else classes + background,
        background,
        args.ema,
    )


def _of_run(run: str, named: dict) -> configuration.Config:
    config = configuration.load(os.path.join(run, CONFIG_JSON))
    for key in ("net", "image_size", "preprocessing"):
        if key in named and named[key] != getattr(config, key):
            raise UserError(
                f"--{key.replace('_', '-')} {named[key]} contradicts {run}/{CONFIG_JSON}, which says "
                f"{getattr(config, key)}; leave it out"
            )
    return dataclasses.replace(config, **named)


def _alone(ckpt: str, named: dict) -> configuration.Config:
    if "net" not in named:
        raise UserError(
            f"{ckpt} lies in no run directory ({CONFIG_JSON} and {DATASET_JSON} are not both there), so --net is "
            f"needed; python -m nets.weights inspect {ckpt} tells which"
        )
    return configuration.Config(**named)
