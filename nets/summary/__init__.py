"""What a net consists of, layer by layer, and a picture of it: python -m nets.summary NAME

Prints a line per layer of the net in evaluation mode, for one picture: output (height × width × channels), trainable
parameters, multiply-adds; then the totals. Batch norm inside a layer counts with the layer. What neither computes sums
nor changes the shape (activations, padding, dropout, which rests in evaluation) has no line. --svg FILE also draws the
net, for any browser. Units that are alike and follow one another are told once, with their number.
"""

import argparse
import os

import errors
from files import atomic_write
from nets import NETS
from nets.summary.anatomy import Summary, in_words, runs, summarize


def table(summary: Summary) -> str:
    """Title, layers and totals, to print."""
    rows = [("layer", "kind", "output", "parameters", "multiply-adds")]
    for first, *others in runs(summary.layers):
        for x in first:
            does = x.does + (" (auxiliary)" if x.auxiliary else "")
            rows.append((x.name, does, x.size, *(f"{n:,}" if n else "" for n in (x.parameters, x.multiply_adds))))
        if others:
            sums = [sum(getattr(x, field) for o in others for x in o) for field in ("parameters", "multiply_adds")]
            rows.append((f"… {others[-1][0].block}", f"{len(others)} more like it", "", *(f"{n:,}" for n in sums)))
    a, b, c, d, e = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{r[0]:{a}}  {r[1]:{b}}  {r[2]:>{c}}  {r[3]:>{d}}  {r[4]:>{e}}".rstrip() for r in rows]
    rule = "-" * (a + b + c + d + e + 8)
    return "\n".join([summary.title, summary.family, "", lines[0], rule, *lines[1:], rule, *_totals(summary)])


def _totals(summary: Summary) -> list[str]:
    trained, moving, work = (summary.total(field) for field in ("parameters", "moving", "multiply_adds"))
    lines = [
        f"trainable parameters     {trained:>15,}  ({in_words(trained)})",
        f"non-trainable parameters {moving:>15,}  (moving averages of batch norm)",
        f"multiply-adds            {work:>15,}  ({in_words(work)})",
        f"size on disk             {4 * (trained + moving) / 1e6:>15,.1f}  MB (float32)",
    ]
    if any(layer.auxiliary for layer in summary.layers):
        trained, work = (summary.total(field, auxiliary=False) for field in ("parameters", "multiply_adds"))
        lines.append(
            f"without the auxiliary heads, which only help training: {in_words(trained)} trainable parameters, "
            f"{in_words(work)} multiply-adds"
        )
    return lines


def check_target(path: str) -> None:
    """Raises UserError where the picture could not be written, before a net is built for it."""
    if not path.endswith(".svg"):
        raise errors.UserError(f"--svg {path}: must end in .svg, the only format it draws")
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        raise errors.UserError(f"--svg {path}: is a directory; give the name of a file in it")
    if not (os.path.isdir(directory) and os.access(directory, os.W_OK)):
        raise errors.UserError(f"--svg {path}: there is no directory {directory} to write to")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nets.summary", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(NETS)}")
    parser.add_argument("--num-classes", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--image-size", type=int, metavar="N", help="side of the pictures (default: the net's own)")
    parser.add_argument("--svg", metavar="FILE", help="draw the net into this file")
    args = parser.parse_args()
    if args.svg is not None:
        check_target(args.svg)
    summary = summarize(args.name, args.num_classes, args.image_size)
    if args.svg is not None:
        from nets.summary.drawing import draw  # the table does without the layout engine

        with atomic_write(args.svg) as partial:
            partial.write_bytes(draw(summary))
    print(table(summary))


if __name__ == "__main__":
    with errors.reported():
        main()
