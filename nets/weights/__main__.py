"""Inspect checkpoints, convert Keras files, PyTorch files and frozen graphs, fetch published weights.

    python -m nets.weights inspect CKPT [--net NAME]          which net it fits, what is unused, what is missing
    python -m nets.weights import FILE --net NAME --out DIR   weights into a checkpoint with TF-Slim's names
    python -m nets.weights export CKPT --net NAME --out FILE  the reverse: FILE.weights.h5 for keras.applications
    python -m nets.weights fetch NAME                         published weights into the cache; --init-from NAME also
                                                              fetches them

FILE has Keras weights, or is a frozen graph (.pb), whose constants are the net's variables, or a state dict of
torchvision's or timm's (.safetensors, .pth), for the nets whose architecture is the same: resnet_v1_18 and _34,
resnet_v2_18 and _34 (timm), densenet_121, _169 and _201, vgg_11, _13, _16 and _19.
CKPT is a run directory, a directory with one checkpoint, a prefix, or a single V1 file (vgg_16.ckpt).
"""

import argparse
import os
from pathlib import Path

import errors
import nets
import own_code
from checkpoints import averages, locate, shapes_of
from files import expand
from nets.weights import export_keras, fetch, import_frozen, import_keras, import_torch, inspect
from nets.weights.frozen_graphs import is_graph
from nets.weights.keras_models import MODELS
from nets.weights.published import PUBLISHED
from nets.weights.torch_files import PREPROCESSING, is_state_dict


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nets.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, what: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.")

    inspecting = command("inspect", "what a checkpoint holds, and which net it fits")
    importing = command("import", "a Keras or PyTorch file or a frozen graph into a checkpoint with TF-Slim's names")
    exporting = command("export", "a checkpoint into a Keras .weights.h5 file")
    fetching = command("fetch", "published weights into the cache")
    for each in (inspecting, exporting):
        each.add_argument("ckpt", type=expand, metavar="CKPT", help="directory, prefix, or V1 file")
    kinds = ".h5, .weights.h5, .keras, .npz, a Keras checkpoint, .pb, .safetensors, or PyTorch's .pth"
    importing.add_argument("file", type=expand, metavar="FILE", help=kinds)
    for each in (inspecting, importing, exporting):
        is_needed = each is not inspecting
        each.add_argument("--net", metavar="NAME", required=is_needed, help="a net of docs/nets.md, or FILE.py:NAME")
    importing.add_argument("--out", type=expand, metavar="DIR", required=True, help="directory to make")
    exporting.add_argument("--out", type=expand, metavar="FILE", required=True, help="FILE.weights.h5")
    fetching.add_argument("name", metavar="NAME", help=f"one of {', '.join(PUBLISHED)}")
    args = parser.parse_args()

    if getattr(args, "net", None):
        args.net = own_code.named(args.net)
        nets.find(args.net)  # before any file is read
    if args.command == "inspect":
        print(inspect(locate(args.ckpt, "CKPT"), args.net))
    elif args.command == "import":
        notes, preprocessing = [], None
        if is_graph(args.file):
            lines = import_frozen(args.file, args.net, args.out)
        elif is_state_dict(args.file):
            lines, notes = import_torch(args.file, args.net, args.out), [PREPROCESSING]
            preprocessing = "torchvision"
        else:
            unused = import_keras(Path(args.file), args.net, Path(args.out))
            lines = [f"not used: {name}: {reason}" for name, reason in unused.items()]
            notes = _keras_notes(args.net)
        print(*lines, sep="\n", end="\n" * bool(lines))
        print(inspect(os.path.join(args.out, "model.ckpt-0"), args.net, preprocessing), *notes, sep="\n")
    elif args.command == "export":
        prefix = locate(args.ckpt, "CKPT")
        call = export_keras(prefix, args.net, args.out)
        if averages(shapes_of(prefix)):
            print("the raw weights are written; the checkpoint also holds EMA weights")
        print(f"written {args.out}; load it with {call}.load_weights({args.out!r})", *_keras_notes(args.net), sep="\n")
    else:
        prefix, net = fetch(args.name), PUBLISHED[args.name].net
        notes = _keras_notes(net) if args.name.startswith("keras_") else []
        print(inspect(prefix, net), *notes, sep="\n")


def _keras_notes(net: str) -> list[str]:
    """A line that says how Keras's logits differ from ours for the same weights, if they do."""
    return [f"note: {MODELS[net].differs}"] if MODELS[net].differs else []


if __name__ == "__main__":
    with errors.reported():
        main()
