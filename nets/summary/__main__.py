"""Prints the layers of a net: python -m nets.summary NAME

Prints a line per layer of the net in evaluation mode, for one picture: output (height × width × channels), trainable
parameters, multiply-adds; then the totals. The parameters of batch norm count with the layer before it, or have a line
where the net makes it by itself. Operations that compute no sums and keep the shape (activations, padding, dropout)
have no line. Repeated equal units are printed once, with their number. --svg FILE also draws the net, as an SVG file
for any browser.
"""

import argparse

import errors
import own_code
from files import check_output, expand, output_file
from nets import NETS
from nets.summary import summarize, table
from sizes import size_argument


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nets.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"your own, FILE.py:NAME, or one of {', '.join(NETS)}")
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument(
        "--image-size", type=size_argument, metavar="N|HxW", help="of the pictures (default: the net's own)"
    )
    parser.add_argument("--svg", type=expand, metavar="FILE", help="draw the net into this file")
    args = parser.parse_args()
    if args.svg is not None:
        check_output("--svg", args.svg, ".svg")
    summary = summarize(own_code.named(args.name), args.num_classes, args.image_size)
    if args.svg is not None:
        from nets.summary.drawing import draw  # the table does not need the layout engine

        with output_file("--svg", args.svg) as partial:
            partial.write_bytes(draw(summary))
    print(table(summary))


if __name__ == "__main__":
    with errors.reported():
        main()
