"""Makes TFRecord shards and dataset.json from raw pictures.

    python -m pipeline.convert NAME --out DIR [--source RAW]

NAME is digits (embedded in scikit-learn), mnist (the four IDX .gz files, downloaded without --source), folder (one
folder of pictures for each class, in train/ and test/ folders or without; labels follow the sorted folder names) or
imagenet (LOC_synset_mapping.txt, and pictures whose name begins with a synset or whose folder is called by one; all
become the test split, to evaluate published weights on).
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pooch
from tqdm import tqdm

import errors
from errors import UserError
from files import whole_directory
from pipeline import preprocess, records
from pipeline.images import EncodedImage, ImageError, check, encode_png
from pipeline.sources import SOURCES, SPLITS, Example
from tfcompat import tf


class PixelMoments:
    """Sums from which the statistics of all pixels follow: mean, deviation, principal components."""

    def __init__(self, channels: int):
        self.count, self.sum, self.products = 0, np.zeros(channels), np.zeros((channels, channels))

    def add(self, pixels: np.ndarray) -> None:
        """Takes in a picture, uint8 [H, W, C]."""
        rows = pixels.reshape(-1, len(self.sum)).astype(np.float64)
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.products += rows.T @ rows

    def statistics(self) -> dict:
        """dataset.json's `statistics`."""
        mean = self.sum / self.count
        covariance = self.products / self.count - np.outer(mean, mean)
        eigenvalues, vectors = np.linalg.eigh(covariance)
        return {
            "mean": mean.tolist(),
            "deviation": np.sqrt(np.diag(covariance)).tolist(),
            "components": vectors.T[::-1].tolist(),
            "eigenvalues": eigenvalues[::-1].tolist(),
        }


def convert(name: str, out: str, source: str | None = None, on_error: str = "stop") -> dict:
    """Converts a source into the directory `out`, which appears only when it is complete.

    Args:
        name: key of SOURCES.
        out: directory to make; it may exist only if it is empty.
        source: directory of raw files; None downloads what is known.
        on_error: what to do with a picture that does not decode: 'stop' with an error that names it, or 'skip' it.

    Returns:
        The content of dataset.json.

    Raises:
        UserError: an unknown name, an `out` that holds files, files that are missing or damaged, a class without
            training pictures, a split without pictures.
    """
    if name not in SOURCES:
        raise errors.unknown("data set", name, SOURCES)
    source_path = Path(source) if source else None
    if source_path and not source_path.is_dir():
        raise UserError(f"--source {source} is no directory")
    data = SOURCES[name](source_path, pooch.os_cache("slimgraph") / name)
    with whole_directory(out) as unfinished:
        moments, skipped = PixelMoments(data.channels), []
        splits = {}
        for split in SPLITS:
            examples = data.splits.get(split, [])
            progress = tqdm(examples, desc=f"{name} {split}", unit="picture", disable=not sys.stderr.isatty())
            rows = _serialized(progress, data.class_names, on_error, skipped, moments if split == "train" else None)
            shards = records.write_shards(rows, unfinished, f"{name}_{split}")
            splits[split] = {"examples": sum(s["examples"] for s in shards), "shards": shards}
        left_out = {row["file"] for row in skipped}
        train = data.splits.get("train", [])
        left = {example.label for example in train if example.filename not in left_out}
        empty = [data.class_names[label] for label in sorted({example.label for example in train} - left)]
        if empty:
            raise UserError(f"every training picture was skipped of {', '.join(empty)}")
        for split in ("train", "validation") if "train" in data.splits else ("test",):
            if not splits[split]["examples"]:
                raise UserError(f"no picture is left for the {split} split; {len(skipped)} were skipped")
        dataset = {
            "name": name,
            "source": str(source_path.resolve()) if source_path else None,
            "class_names": data.class_names,
            "channels": data.channels,
            "splits": splits,
            "statistics": moments.statistics() if train else None,
            "skipped": skipped,
        }
        (unfinished / records.DATASET_JSON).write_text(json.dumps(dataset, indent=2) + "\n")
    return dataset


def _serialized(
    examples: Iterable[Example],
    class_names: list[str],
    on_error: str,
    skipped: list[dict],
    moments: PixelMoments | None,
) -> Iterator[bytes]:
    with tf.Graph().as_default(), tf.Session() as session:
        encoded = tf.placeholder(tf.string, [])
        reader = partial(session.run, preprocess.decode(encoded, channels=3))
        for example in examples:
            try:
                image = _encoded(example, lambda data: reader({encoded: data}))
            except ImageError as error:
                if on_error != "skip":
                    raise UserError(
                        f"{example.image}: {error}. Mend or remove it, or go on with python -m pipeline.convert … "
                        "--on-error skip"
                    ) from None
                tqdm.write(f"skipped {example.image}: {error}", file=sys.stderr)
                skipped.append({"file": example.filename, "reason": str(error)})
                continue
            if moments:
                moments.add(image.pixels)
            yield records.serialize(image, example.label, class_names[example.label], example.filename)


def _encoded(example: Example, read: Callable[[bytes], np.ndarray]) -> EncodedImage:
    """What the record stores. `read` decodes as training will."""
    if not isinstance(example.image, Path):
        return encode_png(example.image)
    image = check(example.image.read_bytes())
    try:
        same = np.array_equal(read(image.data), image.pixels)
    except tf.errors.InvalidArgumentError:  # libjpeg's warnings, such as a stray marker, are TensorFlow's errors
        raise ImageError("damaged: OpenCV decodes it, TensorFlow does not") from None
    return image if same else encode_png(image.pixels)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.convert", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(SOURCES)}")
    parser.add_argument("--out", required=True, metavar="DIR", help="directory to make")
    parser.add_argument("--source", metavar="RAW", help="directory of raw files that are already on disk")
    parser.add_argument(
        "--on-error",
        choices=["stop", "skip"],
        default="stop",
        help="a picture that does not decode stops the conversion, or is skipped and counted (default: stop)",
    )
    args = parser.parse_args()
    dataset = convert(args.name, args.out, args.source, args.on_error)
    counts = ", ".join(f"{part['examples']:,} {split}" for split, part in dataset["splits"].items())
    print(f"{args.out}: {counts}; {len(dataset['class_names'])} classes; {len(dataset['skipped'])} pictures skipped")


if __name__ == "__main__":
    with errors.reported():
        main()
