"""Random weights and logits of torchvision's and timm's models, for tests; run where PyTorch and both are installed.

python torch_models.py DIR LIBRARY MODEL [HALF]   DIR/pictures.npy [N, 3, H, W] to DIR/weights.safetensors, .pth,
                                                  and logits in evaluation and training mode, .npy
python torch_models.py golden FILE.json.gz        names and shapes of the state dicts of all models
"""

import gzip
import json
import pathlib
import sys

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file

CLASSES = 10
DEPTHS = {"resnet": (18, 34), "resnetv2_": (18, 34), "densenet": (121, 169, 201), "vgg": (11, 13, 16, 19)}


def made(library: str, name: str, classes: int = CLASSES) -> torch.nn.Module:
    """A model without trained weights."""
    if library == "timm":
        return timm.create_model(name, num_classes=classes)
    return getattr(torchvision.models, name)(num_classes=classes)


@torch.no_grad()
def randomize(model: torch.nn.Module) -> None:
    """Sets weights, biases, and the statistics of batch norm to random values of usual size."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            value.fill_(1234)
        elif value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.uniform_(0.5, 1.3, generator=generator)
        else:
            value.normal_(0, 0.2, generator=generator)


@torch.no_grad()
def write(directory: pathlib.Path, library: str, name: str, half: bool) -> None:
    """Writes the files of a model."""
    torch.set_num_threads(1)
    model = made(library, name)
    randomize(model)
    if half:  # the logits are of the weights as the file has them
        model.load_state_dict({n: t.bfloat16().to(t.dtype) for n, t in model.state_dict().items()})
    state = {n: t.bfloat16() if half and t.is_floating_point() else t.clone() for n, t in model.state_dict().items()}
    save_file(state, directory / "weights.safetensors")
    wrapped = {"epoch": 3, "arch": name, "state_dict": {f"module.{n}": t for n, t in state.items()}}
    torch.save(wrapped if "resnet18" in name else state, directory / "weights.pth")
    pictures = torch.from_numpy(np.load(directory / "pictures.npy"))
    np.save(directory / "evaluation.npy", model.eval()(pictures).numpy())
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    np.save(directory / "training.npy", model.train()(pictures).numpy())


def golden(path: str) -> None:
    """Writes names and shapes: {library: {model: {name: shape}}}."""
    found = {}
    with torch.device("meta"):
        for family, depths in DEPTHS.items():
            for depth in depths:
                for library in ("timm",) if family == "resnetv2_" else ("torchvision", "timm"):
                    state = made(library, f"{family}{depth}", 1000).state_dict()
                    found.setdefault(library, {})[f"{family}{depth}"] = {n: list(t.shape) for n, t in state.items()}
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(json.dumps(found, separators=(",", ":")).encode())


if __name__ == "__main__":
    if sys.argv[1] == "golden":
        golden(sys.argv[2])
    else:
        write(pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:] == ["half"])
