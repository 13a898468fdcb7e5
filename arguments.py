"""The part of the command line that evaluation, prediction and export share: which checkpoint, and what it is of."""

import argparse


def checkpoint_parser(prog: str, about: str) -> argparse.ArgumentParser:
    """A parser with --ckpt and, for a checkpoint that lies in no run directory, what its config.json would say."""
    parser = argparse.ArgumentParser(prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--ckpt",
        required=True,
        metavar="PATH",
        help="run directory, checkpoint prefix, or file of the V1 format",
    )
    parser.add_argument(
        "--ema", action="store_true", help="the averages of the weights, in their place, where --ema-decay kept them"
    )
    alone = parser.add_argument_group("for a checkpoint without a run directory")
    alone.add_argument("--net", metavar="NAME", help="name in the registry nets.NETS")
    alone.add_argument("--image-size", type=int, metavar="N", help="default: the net's own")
    alone.add_argument("--preprocessing", metavar="NAME", help="default: the net's own")
    return parser
