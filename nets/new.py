"""Writes a file with a net to start from: python -m nets.new my_net.py

The net trains as it is: python train.py folder --source PICTURES --net my_net.py:my_net. Its name is that of the file.
"""

import argparse
import re
from pathlib import Path

import errors
from errors import UserError
from files import check_output, expand, output_file

TEMPLATE = Path(__file__).with_name("template.py")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nets.new", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", metavar="FILE.py", help="the file to write; it must not exist")
    file = Path(expand(parser.parse_args().file))
    check_output("FILE", str(file), ".py")
    if file.exists():
        raise UserError(f"{file} exists; choose another name")
    if not re.fullmatch(r"[A-Za-z]\w*", file.stem):
        raise UserError(
            f"the net is named like its file, and {file.stem!r} is no name in Python; use such as my_net.py"
        )
    with output_file("FILE", str(file)) as partial:
        partial.write_text(TEMPLATE.read_text().replace("my_net", file.stem).replace("FILE.py", file.name))
    print(f"written {file}; train it: python train.py folder --source PICTURES --net {file}:{file.stem}")


if __name__ == "__main__":
    with errors.reported():
        main()
