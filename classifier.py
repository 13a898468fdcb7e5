"""A checkpoint, with all that is needed to evaluate, predict and export: Classifier.load("runs/digits").

docs/python.md shows its use.
"""

import contextlib
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

import numpy as np

import config as configuration
import nets
import own_code
from channels import USUAL
from checkpoints import averages, check_restorable, locate, shapes_of, sources, step_of
from config import CheckpointOptions, Config
from engine.evaluation import Evaluation, averaged, with_mirror_images
from engine.metrics import class_logits, evaluate, per_example
from engine.session import session_config
from errors import UserError, unknown
from files import expand, expand_data, os_errors_as_user_errors
from nets import Net
from nets.weights import absent_heads, head_width, input_channels
from pipeline.batches import evaluation_batches
from pipeline.corruption import Reader
from pipeline.dataset import Dataset, Selection
from pipeline.preprocess import Preprocessor
from pipeline.statistics import Statistics
from pipeline.tfrecord import DATASET_JSON
from prediction.heatmaps import class_activation_map
from prediction.pictures import Features, PictureReader, Prediction, list_pictures
from run_directory import CONFIG_JSON, OWN_CODE, load_config, resolve, run_of
from sizes import PictureSize
from tfcompat import op_determinism, tf

Files = "str | os.PathLike | Iterable[str | os.PathLike]"


@dataclass(frozen=True)
class Classifier:
    """A trained net. No method changes the caller's default graph, and none prints."""

    checkpoint: str  # prefix
    run: str | None  # its run directory; None for a checkpoint alone
    config: Config  # of the run, resolved; of a checkpoint alone the defaults and the arguments of `load`
    net: Net
    dataset: Dataset  # that it was trained on; of a checkpoint alone that of `data`, or with numbers as class names
    preprocessor: Preprocessor
    outputs: int  # of the net's heads: one for each class, one more with a background, 1 for a sigmoid unit
    background: bool  # whether the first output is none of the classes
    ema: bool  # whether EMA weights are used
    trained_size: PictureSize | None  # of the training's inputs; None where it is unknown

    @classmethod
    @os_errors_as_user_errors()
    def load(
        cls,
        path: "str | os.PathLike",
        *,
        ema: bool | None = None,
        net: str | None = None,
        image_size: PictureSize | tuple[int, int] | str | None = None,
        preprocessing: str | None = None,
        data: str | None = None,
        batch_size: int | None = None,
        allow_code: bool = False,
    ) -> "Classifier":
        """Finds and checks a checkpoint; `restore` reads its weights.

        path is a run directory, a checkpoint prefix, or a file of the V1 format. ema uses the EMA weights; by default
        those of a checkpoint without run directory that holds any, as published ones do. image_size, of the net's
        input, is a number, a pair (height, width), or text such as 224x320; it and batch_size are by default the run's,
        or the net's own and 64. A checkpoint without run directory needs net, its name in NETS; preprocessing is its
        family, and data are shards that name the classes. For a run, data are other shards of its classes to evaluate
        on. allow_code runs the copy of the user's own net or preprocessing in the run directory, where own_code.admit
        does not run the file itself.

        Raises UserError for a checkpoint that cannot be read, and arguments that are missing or contradict the run.
        """
        path, data = expand(path), data and expand_data(data)
        prefix, run = locate(path), run_of(path)
        given: dict[str, Any] = {"net": net, "image_size": image_size, "preprocessing": preprocessing}
        config, trained_size = _options(path, run, {**given, "data": data, "batch_size": batch_size}, allow_code)
        record, inputs, stored = nets.find(config.network.net), config.input, shapes_of(prefix)
        held = averages(stored, record.prefix)
        if ema and not held:
            raise UserError(f"--ema: {prefix} holds no EMA weights; train with --ema-decay 0.999 to keep them")
        ema = bool(run is None and held) if ema is None else ema
        stored = {name: stored[source] for name, source in sources(stored, ema).items()}
        width = head_width(stored, record)
        dataset = Dataset.load(run or data) if run or data else _numbered(prefix, config.network.net, record, width)
        if run is None:  # data may be grey, and the net for colours
            dataset = replace(dataset, channels=input_channels(stored, record))
        classes = len(dataset.class_names)
        background = run is None and width == classes + 1
        return cls(
            checkpoint=prefix,
            run=run,
            config=config,
            net=record,
            dataset=dataset,
            preprocessor=Preprocessor(inputs.preprocessing, inputs.image_size, dataset.channels, dataset.statistics),
            outputs=1 if width == 1 and classes == 2 else classes + background,
            background=background,
            ema=ema,
            trained_size=trained_size,
        )

    @classmethod
    def of(cls, options: CheckpointOptions) -> "Classifier":
        """Loads the checkpoint that the options of a command name. Raises UserError as `load`."""
        if options.ema and options.no_ema:
            raise UserError("--ema and --no-ema exclude each other; give one of them")
        keys = ("net", "image_size", "preprocessing", "data", "batch_size", "allow_code")
        given = {key: getattr(options, key) for key in keys if hasattr(options, key)}
        return cls.load(options.ckpt, ema=options.ema or (False if options.no_ema else None), **given)

    @cached_property
    def step(self) -> int | None:
        """The step that the checkpoint was saved at; None where it is unknown."""
        return step_of(self.checkpoint)

    @property
    def title(self) -> str:
        """Checkpoint and step, EMA weights that nobody asked for, and the training's picture size where it differs."""
        size = self.preprocessor.size
        other = f", at {size} px, trained at {self.trained_size} px" if self.trained_size not in (None, size) else ""
        if self.ema and self.run is None:
            count = len(averages(self._stored, self.net.prefix))
            other = f", EMA weights of {count} variables (--no-ema for the raw ones){other}"
        return f"{self.checkpoint}, step {self.step}{other}"

    @cached_property
    def _stored(self) -> dict[str, list[int]]:
        return shapes_of(self.checkpoint)

    @cached_property
    def _absent(self) -> tuple[str, ...]:
        return absent_heads(self._stored, self.net)

    @contextlib.contextmanager
    def graph(self) -> Iterator[tf.Graph]:
        """Within a block, the default graph is a new one with the run's seed, and ops are deterministic."""
        with op_determinism(), tf.Graph().as_default() as graph:
            tf.set_random_seed(self.config.run.seed)
            yield graph

    def inputs(self) -> tf.Tensor:
        """A placeholder of preprocessed pictures, float32 [N, height, width, C]."""
        to = self.preprocessor
        return tf.placeholder(tf.float32, [None, to.height, to.width, to.channels])

    def build(self, images: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        """Builds the net in evaluation mode, on preprocessed pictures [N, H, W, C].

        Returns logits [N, classes] of the main head, "", and by name of the auxiliary heads that the checkpoint has;
        and the end points, among them the main head's "logits". Raises UserError where the pictures are too small.
        """
        logits, end_points = self.net.build(images, self.outputs, False, 0.0)
        end_points = {name: point for name, point in end_points.items() if not name.startswith(self._absent)}
        heads = {"": logits}
        for name in self.net.auxiliary:
            if f"{self.net.prefix}{name}" in end_points:
                heads[name.removesuffix("/logits")] = end_points[f"{self.net.prefix}{name}"]
        first = int(self.background)
        heads = {name: class_logits(head[:, first:]) for name, head in heads.items()}
        return heads, {"logits": heads[""], **end_points}

    def end_points(self) -> list[str]:
        """Names of the net's end points, that `features` takes."""
        with self.graph():
            return list(self.build(self.inputs())[1])

    def restore(self, session: tf.Session) -> None:
        """Restores the variables of the session's graph. Raises UserError where the checkpoint does not fit them."""
        with session.graph.as_default():
            stored = sources(self._stored, self.ema)
            names = {stored.get(v.op.name, v.op.name): v for v in tf.global_variables()}
            names = {name: v for name, v in names.items() if not name.startswith(self._absent)}
            check_restorable(self.checkpoint, names)
            tf.train.Saver(names).restore(session, self.checkpoint)

    def session_config(self) -> tf.ConfigProto:
        """Threads and precision of the run."""
        return session_config(self.config.run.compute_threads, self.config.run.precision)

    def selection(self, split: str | None = None, *, data: str | None = None, on_error: str = "stop") -> Selection:
        """The records that `evaluate` reads, by the same arguments. Raises UserError where the classes differ."""
        if not (data or self.dataset.directory):
            raise UserError(f"{self.checkpoint} lies in no run directory, so --data is needed")
        dataset = Dataset.load(expand_data(data or self.config.input.data), self.dataset if self.run else None)
        if dataset.class_names != self.dataset.class_names:
            raise UserError(
                f"{dataset.directory} has other classes than {self.run or self.checkpoint}: "
                f"{_class_differences(self.dataset.class_names, dataset.class_names)}; name data of the same classes "
                "with --data; classes without pictures may be in labels.txt or dataset.json"
            )
        self._check_samples(dataset)
        return Selection(dataset, split or ("test" if dataset.size("test") else "validation"), on_error, intact=True)

    def _check_samples(self, dataset: Dataset) -> None:
        """Raises UserError where the net takes other samples than those of the data."""
        found, taken = dataset.channels, self.preprocessor.channels
        if found != taken and not {found, taken} <= set(USUAL):  # grey and RGB are converted
            raise UserError(f"{dataset.directory} has {found} channels, and {self.checkpoint} takes {taken}")
        if self.run and dataset.sample_range != self.dataset.sample_range:
            found, taken = (" ".join(map(str, each.sample_range or ["none"])) for each in (dataset, self.dataset))
            other = f"{dataset.directory} was converted with --sample-range {found}"
            raise UserError(f"{other}, the data of {self.run} with {taken}; convert it with the same")

    def evaluate(
        self,
        split: str | None = None,
        *,
        data: str | None = None,
        on_error: Literal["stop", "skip"] = "stop",
        crops: int = 1,
        flip: bool = False,
        progress: bool = False,
    ) -> Evaluation:
        """Evaluates every picture of a split once.

        split is train, validation or test; by default test, or validation where the data have no test split. data is
        the directory of other shards of the same classes. on_error, crops and flip are options of eval.py. With
        progress, a terminal shows a progress bar.

        Raises UserError for data that cannot be read or have other classes, and a checkpoint that does not fit the net
        or whose outputs are not finite.
        """
        if flip and crops != 1:
            raise UserError(f"--flip with --crops {crops}: ten crops have their mirror images; leave it out")
        selection = self.selection(split, data=data, on_error=on_error)
        index = selection.index()
        with self.graph():
            batch_size = min(self.config.input.batch_size, len(index.offsets))
            batches = evaluation_batches(index, self.preprocessor, batch_size, crops=crops)
            images = with_mirror_images(batches.images) if flip else batches.images
            views = 2 if flip else crops
            heads = {name: averaged(logits, views) for name, logits in self.build(images)[0].items()}
            metrics = {name: per_example(logits, batches.labels) for name, logits in heads.items()}
            with tf.Session(config=self.session_config()) as session:
                self.restore(session)
                reader = Reader(batches, selection)
                tables = reader.attempt(session, lambda: evaluate(session, reader, metrics, progress=progress))
        self._check_finite([table.loss for table in tables.values()])
        return Evaluation(
            checkpoint=self.checkpoint,
            step=self.step,
            data=selection.dataset.directory,
            split=selection.split,
            class_names=self.dataset.class_names,
            image_size=self.preprocessor.size,
            trained_image_size=self.trained_size,
            index=batches.index,
            channels=self.dataset.channels,
            tables=tables,
        )

    def predict(
        self, files: Files, *, top_k: int | Literal["all"] = 5, invert: str = "auto", max_pixels: int | None = None
    ) -> list[Prediction]:
        """Predicts pictures of any kind and size; `stream` does the same with the memory of one batch.

        files are pictures and folders of pictures, top_k is a number of classes or 'all', invert as predict.py has it.
        A picture with more than max_pixels is an error; by default those that the training's pictures may have.
        Returns one Prediction for each picture, in order; with an error where it cannot be read. Raises UserError for
        a file that does not exist, and a checkpoint that does not fit the net or whose outputs are not finite.
        """
        return list(self.stream(files, top_k=top_k, invert=invert, max_pixels=max_pixels))

    def features(self, files: Files, end_point: str) -> Features:
        """The outputs of a layer for pictures, flattened. Raises UserError as `predict`, and for an unknown name."""
        return Features.of(self.stream(files, end_point=end_point))

    def stream(
        self,
        files: Files,
        *,
        top_k: int | Literal["all"] = 5,
        invert: str = "auto",
        end_point: str | None = None,
        cam: bool = False,
        max_pixels: int | None = None,
    ) -> Iterator[Prediction]:
        """Predicts picture files batch by batch, as `predict`; the net is built and restored before it returns.

        end_point names a layer whose outputs become `Prediction.features`; cam adds class activation maps.
        """
        if top_k != "all" and top_k < 1:
            raise UserError(f"--top-k is {top_k}; it must be at least 1, or all")
        pictures = iter(list_pictures(files))
        with self.graph() as graph:
            batch = self.inputs()
            heads, end_points = self.build(batch)
            fetches = {"probabilities": tf.nn.softmax(heads[""])}
            if end_point is not None:
                if end_point not in end_points:
                    raise unknown("end point", end_point, end_points)
                fetches["features"] = tf.reshape(end_points[end_point], [tf.shape(batch)[0], -1])
            if cam:
                fetches["cam"] = class_activation_map(batch, heads[""])
            session = tf.Session(graph=graph, config=self.session_config())
            reader = PictureReader(
                self.preprocessor, self.dataset, session, invert, max_pixels or self.dataset.max_pixels
            )
            self.restore(session)
        net = session.make_callable(fetches, [batch])
        return self._predictions(pictures, reader, net, None if top_k == "all" else top_k)

    def _predictions(
        self, files: Iterator[str], reader: PictureReader, net: Callable, top_k: int | None
    ) -> Iterator[Prediction]:
        """Reads and predicts batch by batch; net gives the outputs of a batch by name, among them probabilities."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
            while batch := list(islice(files, self.config.input.batch_size)):
                # The filters of warnings belong to the process: threads that change them undo each other's changes.
                with op_determinism(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    inputs = list(threads.map(reader.read, batch))
                    images = [each.image for each in inputs if not each.error]
                    outputs = net(np.stack(images)) if images else {"probabilities": np.zeros(0)}
                self._check_finite(outputs["probabilities"])
                rows = (dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True))
                for each in inputs:
                    yield each if each.error else self._prediction(each, top_k, **next(rows))

    def _prediction(self, read: Prediction, top_k: int | None, probabilities: np.ndarray, **others: Any) -> Prediction:
        # Stable, so that of equal ones the first comes first, as argmax has it.
        best = np.argsort(-probabilities, kind="stable")[:top_k]
        top = [(self.dataset.class_names[label], float(f"{probabilities[label]:.9g}")) for label in best]
        image = read.image if "cam" in others else None  # else a list of predictions takes much memory
        return replace(read, top=top, image=image, **others)

    def _check_finite(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise UserError(f"{self.checkpoint}: the net's outputs are not finite; its weights are too large")


def _class_differences(trained: Sequence[str], found: Sequence[str]) -> str:
    """How two lists of class names differ, in words."""
    parts = {"without": [n for n in trained if n not in found], "with": [n for n in found if n not in trained]}
    words = [f"{word} {', '.join(names[:8])}{' …' * (len(names) > 8)}" for word, names in parts.items() if names]
    return " and ".join(words) or "the same names in another order"


def _options(
    path: str, run: str | None, given: Mapping[str, Any], allow_code: bool
) -> tuple[Config, PictureSize | None]:
    """The options of a checkpoint, with those that are given, and the training size. Raises UserError.

    The user's own code may run then: that which is given, and that of a run directory where own_code.admit allows it.
    """
    given = {key: value for key, value in given.items() if value is not None}
    if "image_size" in given:
        given["image_size"] = configuration.checked_size(given["image_size"])
    if run is None:
        given |= {key: own_code.named(given[key]) for key in OWN_CODE if key in given}
        if "net" not in given:
            missing = f"{path} lies in no run directory ({CONFIG_JSON} and {DATASET_JSON} are not both there)"
            raise UserError(f"{missing}, so --net is needed; python -m nets.weights inspect {path} names it")
        return resolve(Config.of(**given)), None
    trained = _with_own_code(load_config(run), run, given, allow_code)
    flat, fixed = trained.flat(), ["net", "preprocessing"]
    for key in ("image_size", "preprocessing"):  # a default of the net could be another than the training's
        if flat[key] is None:
            raise UserError(f"{run}/{CONFIG_JSON} has no {key}; restore the file")
    if not nets.find(trained.network.net).any_size:
        fixed.append("image_size")
    for key in fixed:
        if given.get(key, flat[key]) != flat[key]:
            says = f"{run}/{CONFIG_JSON}, which says {flat[key]}; leave it out"
            raise UserError(f"{configuration.flag(key)} {given[key]} contradicts {says}")
    return resolve(trained.replace(**given)), trained.input.image_size


def _with_own_code(trained: Config, run: str, given: dict[str, Any], allow_code: bool) -> Config:
    """The options of a run, whose own code may then run; its file may be given anew, at another place."""
    values = {}
    for key in OWN_CODE:
        name, stored = given.get(key), trained.flat()[key]
        if own_code.is_own(name) and own_code.short(name) == own_code.short(stored):
            values[key] = given[key] = own_code.named(name, run, allow_code)
        else:
            own_code.admit(stored, run, allow_code)
    return trained.replace(**values)


def _numbered(prefix: str, name: str, net: Net, width: int | None) -> Dataset:
    """A data set without records, whose classes are numbers, for a head of `width` outputs."""
    if width is None:
        raise UserError(f"{prefix} holds no head of {name}; python -m nets.weights inspect names the nets that it fits")
    classes = {1: 2, 1001: 1000}.get(width, width)  # published heads: ImageNet's classes, most with a background
    return Dataset("", tuple(map(str, range(classes))), net.channels, {}, Statistics(), {})
