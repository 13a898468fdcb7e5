"""The command python -m pipeline.convert."""

import os

import tyro

import errors
from channels import USUAL
from config import help_page
from pipeline import balance
from pipeline.convert import REJECTED_CSV, SOURCES, convert, duplicates

ONE = {"duplicates": "duplicate", "hidden pictures": "hidden picture"}
ONE |= {"pictures beside the folders": "picture beside the folders"}


def main() -> None:
    """Runs the command."""
    lines = {name: (source.__doc__ or "").partition(".\n")[0] for name, source in SOURCES.items()}
    sources = "\n".join(f"  {name:<13}  {line}" for name, line in lines.items())
    about = (
        f"Converts pictures to TFRecord shards and a dataset.json.\n\nNAME is one of\n{sources}\n\nEvery picture is "
        "decoded before it is stored. TF-Slim's own TFRecords with labels.txt need no conversion: use train.py --data."
    )
    done = tyro.cli(convert, prog="python -m pipeline.convert", description=help_page(about))
    counts = ", ".join(f"{count:,} {split}" for split, count in done.splits.items())
    rejected = balance.counted(done.rejected, "picture")
    found = f"; {done.channels} channels" if done.channels not in USUAL else ""
    print(f"{done.directory}: {counts}; {len(done.class_names)} classes{found}; {rejected} rejected")
    print(balance.describe(done.balance, done.class_names))
    if done.rejected:
        print(f"{os.path.join(done.directory, REJECTED_CSV)} lists them with the reasons")
    if done.duplicates:
        listed = os.path.join(done.directory, duplicates.DUPLICATES_CSV)
        found = errors.printable(duplicates.describe(done.duplicates))
        print(f"note: {found}; {listed} lists all, --on-duplicates drop leaves them out")
    if done.ignored:
        kinds = (f"{number} {ONE.get(kind, kind) if number == 1 else kind}" for kind, number in done.ignored.items())
        print(f"left out: {errors.printable(', '.join(kinds))}")


if __name__ == "__main__":  # spawned processes import this module, too
    with errors.reported():
        main()
