"""Weights from elsewhere: what a checkpoint holds, and bringing Keras's files in and out.

    python -m nets.weights inspect CKPT [--net NAME]      what fits which net, what is left over, what is missing
    python -m nets.weights import FILE --net NAME --out DIR   a Keras file into a TF-Slim-named checkpoint
    python -m nets.weights export CKPT --net NAME --out FILE  the reverse: FILE.weights.h5 for keras.applications
    python -m nets.weights fetch NAME                     published weights into the cache; --init-from NAME does it too

CKPT is a run directory, a checkpoint prefix, or a single file of TensorFlow's first format (vgg_16.ckpt).
"""

import argparse
import os
from collections import Counter
from collections.abc import Mapping
from glob import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pooch

import errors
from checkpoints import damage, locate, shapes_of
from errors import UserError
from files import atomic_directory
from nets import NETS, Net
from nets.weights import keras_files
from nets.weights.keras_reading import read_weights
from nets.weights.published import PUBLISHED, download
from tfcompat import slim, tf

Shapes = Mapping[str, list[int]]


class Plan(NamedTuple):
    """What becomes of each variable when a checkpoint is restored into a net."""

    restored: list[str]
    fresh: list[str]  # of the new scopes: not in the checkpoint, or of another shape there
    missing: list[str]  # of the rest: not in the checkpoint
    mismatched: list[str]  # of the rest: of another shape there
    unused: list[str]  # in the checkpoint, not in the net


def plan(stored: Shapes, wanted: Shapes, new_scopes: tuple[str, ...]) -> Plan:
    """Compares the shapes of a checkpoint with those of a net's variables.

    Args:
        stored: name to shape of what the checkpoint holds.
        wanted: name to shape of the net's variables.
        new_scopes: beginnings of the names of variables that may stay fresh.
    """
    result = Plan([], [], [], [], [name for name in stored if name not in wanted])
    for name, shape in wanted.items():
        if stored.get(name) == shape:
            result.restored.append(name)
        elif name.startswith(new_scopes):
            result.fresh.append(name)
        else:
            (result.mismatched if name in stored else result.missing).append(name)
    return result


def check(found: Plan, prefix: str, scope: str, stored: Shapes, wanted: Shapes) -> None:
    """Raises UserError where a plan restores nothing, or leaves variables out that no new task replaces."""
    if not found.restored:
        scopes = ", ".join(sorted({name.split("/")[0] for name in stored})[:5])
        raise UserError(f"{prefix} has nothing of {scope}; it holds the scopes {scopes}")
    problems = [f"{name} is {stored[name]} there and {wanted[name]} in the net" for name in found.mismatched]
    problems += [f"{name} is missing" for name in found.missing]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{prefix} does not fit {scope}: {'; '.join(problems[:3])}{more}; "
            "python -m nets.weights inspect tells which net it fits"
        )


def describe(found: Plan, wanted: Shapes) -> str:
    """A plan as a table of five lines."""
    rows = [
        ("restored", found.restored),
        ("fresh", found.fresh),
        ("missing", found.missing),
        ("differing", found.mismatched),
        ("unused", found.unused),
    ]
    lines = []
    for title, names in rows:
        values = sum(int(np.prod(wanted[name])) for name in names if name in wanted)
        amount = f", {values:,} values" if values and title != "unused" else ""
        named = f": {_listed(names)}" if names and title != "restored" else ""
        lines.append(f"  {title:<10}{len(names):>5} variables{amount}{named}")
    return "\n".join(lines)


def _listed(names: list[str]) -> str:
    # Optimizer slots and averages hang below the variable that they belong to; their kinds say enough.
    if len(names) > 6:
        kinds = Counter(name.rsplit("/", 1)[-1] for name in names)
        return ", ".join(f"{count} × …/{kind}" for kind, count in kinds.most_common(5)) + (
            ", …" if len(kinds) > 5 else ""
        )
    return ", ".join(names)


def head_width(stored: Shapes, net: Net) -> int | None:
    """Number of outputs of the net's main head in a checkpoint; None where it holds no such head."""
    head = [name for name in stored if name.startswith(net.new_scopes[0]) and name.endswith("/weights")]
    return stored[head[0]][-1] if len(head) == 1 and stored[head[0]] else None


def restorer(prefix: str, net: Net) -> tf.train.Saver:
    """The saver of what a checkpoint has for the net in the current graph. Prints the plan.

    Raises UserError where it has nothing, or lacks more than a new task replaces.
    """
    variables = {variable.op.name: variable for variable in slim.get_model_variables()}
    stored, wanted = shapes_of(prefix), {name: variable.shape.as_list() for name, variable in variables.items()}
    found = plan(stored, wanted, net.new_scopes)
    print(f"weights from {prefix}:\n{describe(found, wanted)}", flush=True)
    check(found, prefix, net.scope, stored, wanted)
    types = tf.train.NewCheckpointReader(prefix).get_variable_to_dtype_map()
    for name in found.restored:
        if types[name] != variables[name].dtype.base_dtype:
            raise UserError(f"{prefix}: {name} is {types[name].name}; the net needs {variables[name].dtype.name}")
    return tf.train.Saver({name: variables[name] for name in found.restored})


def fetch(name: str) -> str:
    """Downloads published weights, imports Keras's, and returns the prefix of a checkpoint in the cache."""
    directory = Path(pooch.os_cache("slimgraph")) / "weights"
    path = download(name, directory)
    prefix = path
    if path.suffix == ".h5":
        prefix = directory / name / "model.ckpt-0"
        if not prefix.parent.exists():
            import_keras(path, PUBLISHED[name].net, prefix.parent)
    wrong = damage(str(prefix))
    if wrong:
        raise UserError(f"{prefix} cannot be read ({wrong}); remove {prefix.parent} and {path}, and fetch it again")
    return str(prefix)


def import_keras(path: Path, net_name: str, out: Path) -> dict[str, str]:
    """Imports a Keras file into the checkpoint OUT/model.ckpt-0 under TF-Slim's names.

    Args:
        path: what keras_files.read_weights takes.
        net_name: key of NETS.
        out: directory to make; it may exist only if it is empty.

    Returns:
        The arrays of the file that were not used, with the reason.

    Raises:
        UserError: a file that does not fit the net, a directory that holds files.
    """
    if escape(str(out)) != str(out) or "\\" in str(out):
        raise UserError(f"--out {str(out)!r} holds one of * ? [ \\; TensorFlow takes those for wildcards")
    with atomic_directory(out) as partial:
        values, unused = keras_files.to_slim(read_weights(path), net_name)
        write_checkpoint(values, partial / "model.ckpt-0")
    return unused


def write_checkpoint(values: Mapping[str, np.ndarray], prefix: Path) -> None:
    """Writes a checkpoint of these values, and the `checkpoint` file beside it that names it."""
    with tf.Graph().as_default(), tf.Session() as session:
        tensors = {tf.placeholder(value.dtype, value.shape): value for value in values.values()}
        names, slices = list(values), [""] * len(values)
        save = tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=slices, tensors=list(tensors))
        session.run(save, tensors)
    tf.train.update_checkpoint_state(str(prefix.parent.absolute()), prefix.name)


def export_keras(prefix: str, net_name: str, path: str) -> str:
    """Exports a checkpoint to PATH.weights.h5. Returns the call of Keras that makes the model for it."""
    stored, net = shapes_of(prefix), NETS[net_name]
    wanted = net.variable_shapes(head_width(stored, net) or 1000)
    found = plan(stored, wanted, net.new_scopes)
    check(found, prefix, net.scope, stored, wanted)
    reader = tf.train.NewCheckpointReader(prefix)
    layers = keras_files.to_keras({name: reader.get_tensor(name) for name in found.restored}, net_name)
    return keras_files.write_weights(layers, net_name, path)


def inspect(prefix: str, net_name: str | None) -> str:
    """The report of the checkpoint doctor: which nets the checkpoint fits, and how.

    Raises UserError where it holds nothing of the net, or of any net.
    """
    stored = shapes_of(prefix)
    scopes = {name.split("/")[0] for name in stored}
    names = [net_name] if net_name else [name for name, net in NETS.items() if net.scope in scopes]
    if not names:
        known = ", ".join(sorted({net.scope for net in NETS.values()}))
        raise UserError(f"{prefix} holds the scopes {', '.join(sorted(scopes)[:8])}; the nets know {known}")
    plans = {}
    for name in names:
        wanted = NETS[name].variable_shapes(head_width(stored, NETS[name]) or 1000)
        plans[name] = plan(stored, wanted, NETS[name].new_scopes), wanted
    best = min(plans, key=lambda name: [len(part) for part in _failures(plans[name][0])])
    net, (found, wanted) = NETS[best], plans[best]
    if not found.restored:
        check(found, prefix, net.scope, stored, wanted)
    form = "V2" if os.path.exists(prefix + ".index") else "V1"
    count = sum(int(np.prod(shape)) for shape in stored.values())
    fits = not (found.missing or found.mismatched)
    lines = [
        f"{prefix}: {form} checkpoint, {len(stored)} variables, {count:,} values",
        f"{'fits' if fits else 'does not fit'} {best}",
        describe(found, wanted),
        *(f"    {name} is {stored[name]} there and {wanted[name]} in the net" for name in found.mismatched[:5]),
        *_advice(prefix, best, head_width(stored, net), fits, whole=fits and not found.fresh),
    ]
    others = [name for name in plans if name != best]
    if others:
        lines.append(f"also under the scope {net.scope}: {', '.join(others)}; --net NAME compares with one of them")
    return "\n".join(lines)


def _failures(found: Plan) -> tuple[list[str], ...]:
    return found.mismatched, found.missing, found.fresh, found.unused


def _advice(prefix: str, name: str, width: int | None, fits: bool, whole: bool) -> list[str]:
    net = NETS[name]
    if width is None:
        lines = [f"no head under {net.new_scopes[0]}: good for fine-tuning only"]
    elif width == 1001:
        lines = [f"head {net.new_scopes[0]}: 1,001 outputs, of which output 0 is background: label offset 1"]
    else:
        lines = [f"head {net.new_scopes[0]}: {width:,} outputs, output 0 is the first class: label offset 0"]
    lines.append(f"the net's own preprocessing {net.preprocessing}, {net.image_size} px, {net.channels} channels")
    if fits:
        if whole:
            lines.append(f"evaluate:   python eval.py --ckpt {prefix} --net {name} --data DATA")
        tune = f"--net {name} --init-from {prefix} --train-only {' '.join(net.heads)} --learning-rate 0.01"
        lines.append(f"fine-tune:  python train.py folder --source PICTURES {tune}")
    return lines


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m nets.weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    inspecting = commands.add_parser("inspect", help="what a checkpoint holds, and which net it fits")
    importing = commands.add_parser("import", help="a Keras file into a TF-Slim-named checkpoint")
    exporting = commands.add_parser("export", help="a checkpoint into a Keras .weights.h5 file")
    fetching = commands.add_parser("fetch", help="published weights into the cache")
    for command in (inspecting, exporting):
        command.add_argument("ckpt", metavar="CKPT", help="run directory, prefix, or V1 file")
    importing.add_argument("file", metavar="FILE", help=".h5, .weights.h5, .keras, or .npz of Keras's variable names")
    for command in (inspecting, importing, exporting):
        command.add_argument("--net", metavar="NAME", required=command is not inspecting, help="name in nets.NETS")
    importing.add_argument("--out", metavar="DIR", required=True, help="directory to make")
    exporting.add_argument("--out", metavar="FILE", required=True, help="FILE.weights.h5")
    fetching.add_argument("name", metavar="NAME", help=f"one of {', '.join(PUBLISHED)}")
    args = parser.parse_args()

    if getattr(args, "net", None) and args.net not in NETS:
        raise errors.unknown("net", args.net, NETS)
    if args.command == "inspect":
        print(inspect(locate(args.ckpt, "CKPT"), args.net))
    elif args.command == "import":
        unused = import_keras(Path(args.file), args.net, Path(args.out))
        for name, reason in unused.items():
            print(f"not used: {name}: {reason}")
        print(inspect(os.path.join(args.out, "model.ckpt-0"), args.net))
    elif args.command == "export":
        call = export_keras(locate(args.ckpt, "CKPT"), args.net, args.out)
        print(f"written {args.out}; load it with {call}.load_weights({args.out!r})")
    else:
        print(inspect(fetch(args.name), PUBLISHED[args.name].net))


if __name__ == "__main__":
    with errors.reported():
        main()
