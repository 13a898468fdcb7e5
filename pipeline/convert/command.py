"""The command line of the converter."""

import dataclasses
import os
import signal
import sys
from typing import Annotated, Literal

import tyro

from pipeline import images
from pipeline.convert import REJECTED_CSV, SOURCES, convert

_Raw, _Regex, _Channels, _Count = (
    Annotated[kind | None, tyro.conf.arg(metavar=metavar, help_behavior_hint="")]
    for kind, metavar in ((str, "RAW"), (str, "REGEX"), (Literal[1, 3], "{1,3}"), (int, "N"))
)


@dataclasses.dataclass(frozen=True)
class Options:
    """The arguments of `convert`."""

    name: tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
    """The source: one of the names above."""
    out: Annotated[str, tyro.conf.arg(metavar="DIR")]
    """Directory to make."""
    source: _Raw = None
    """The raw files: a directory, or for csv a file. Default: download them, if the source can."""
    label_regex: _Regex = None
    r"""For folder: finds the class in a file name, as the only group, such as '^(\w+)\.' in cat.0.jpg."""
    channels: _Channels = None
    """Store grey (1) or RGB (3). Default: as in the source."""
    short_side: _Count = None
    """Shrink larger pictures, so that the shorter side has N pixels."""
    max_pixels: Annotated[int, tyro.conf.arg(metavar="N")] = images.MAX_PIXELS
    """Reject a picture whose header has more pixels."""
    on_error: Literal["stop", "skip"] = "stop"
    """If pictures cannot be used: stop after all are checked, or skip them. rejected.csv lists them either way."""
    processes: _Count = None
    """Number of processes that decode pictures. Default: one for each core."""


def main() -> None:
    """Runs the command."""
    lines = {name: (source.__doc__ or "").partition(".\n")[0] for name, source in SOURCES.items()}
    sources = "\n".join(f"  {name:<13}  {line}" for name, line in lines.items())
    about = (
        f"Converts pictures to TFRecord shards and a dataset.json.\n\nNAME is one of\n{sources}\n\nEvery picture is "
        "decoded before it is stored. TF-Slim's own TFRecords with labels.txt need no conversion: use train.py --data."
    )
    options = tyro.cli(Options, prog="python -m pipeline.convert", description=about)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that the partial output is removed
    done = convert(**vars(options))
    counts = ", ".join(f"{count:,} {split}" for split, count in done.splits.items())
    print(f"{done.directory}: {counts}; {len(done.class_names)} classes; {done.rejected} pictures rejected")
    if done.rejected:
        print(f"{os.path.join(done.directory, REJECTED_CSV)} lists them with the reasons")
    if done.ignored:
        print(f"left out: {', '.join(f'{number} {kind}' for kind, number in done.ignored.items())}")
