"""Converts weights between the layers of keras.applications and the variables of our nets.

Keras's VGG and ResNet-50 take BGR pictures, as the Caffe models did; our nets take RGB. So the input channels of the
first convolution are reversed.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np

import nets
from errors import UserError
from nets.weights.keras_models import MODELS, KerasLayer, Model, model_of, variables_of
from nets.weights.keras_reading import Layers


def _rgb_bgr(array: np.ndarray, layer: KerasLayer, model: Model) -> np.ndarray:
    """Reverses the input channels, axis 2, of the first convolution's kernel [H, W, 3, filters] if Keras takes BGR."""
    return array[:, :, ::-1] if model.bgr and layer == model.layers[0] and array.ndim == 4 else array


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _match(layers: Layers, model: Model) -> dict[KerasLayer, str]:
    """The model's layers that the file has, with their names in it: the current, the old, or the counted names."""
    count = Counter()
    generations = [{}, {}, {}]
    for layer in model.layers:
        path = f"layers/{layer.kind}_{count[layer.kind]}".removesuffix("_0")
        count[layer.kind] += 1
        for generation, name in zip(generations, (layer.name, layer.old_name, path), strict=True):
            if name in layers:
                generation[layer] = name
    # A counted name does not identify a net: every net with more than 12 convolutions has a conv2d_12.
    if any(f"layers/{kind}_{n}" in layers for kind, n in count.items() if kind != "dense"):
        del generations[2]
    return max(generations, key=len)


def _lacking(found: dict[KerasLayer, str], model: Model) -> list[str]:
    return [layer.name for layer in model.layers if not layer.in_head and layer not in found]


def _matched(layers: Layers, net_name: str) -> dict[KerasLayer, str]:
    """As _match. Raises UserError, with the net that they do fit, if these are the weights of another net."""
    found = _match(layers, MODELS[net_name])
    fitting = [name for name, model in MODELS.items() if not _lacking(_match(layers, model), model)]
    if missing := _lacking(found, MODELS[net_name]):
        remedy = f"they look like weights of {' or '.join(fitting)}" if fitting else f"known are {', '.join(MODELS)}"
        raise UserError(
            f"these are not the weights of {net_name}: expected also layers {_some(missing)}; "
            f"found layers {_some(layers)}; {remedy}"
        )
    # VGG-19 has all layers of VGG-16.
    deeper = [name for name in fitting if len(MODELS[name].layers) > len(MODELS[net_name].layers)]
    if deeper:
        raise UserError(f"these are not the weights of {net_name} but of {deeper[0]}, of which it has some layers")
    return found


def to_slim(layers: Layers, net_name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Our variables from Keras's layers.

    Args:
        layers: as read_weights returns them, with current or old layer names.
        net_name: key of MODELS.

    Returns:
        Variable names to float32 arrays of the variables' shapes, without the head's if the file has no head; and the
        arrays that are not used, as `layer/position`, with the reason.

    Raises:
        UserError: the weights of another net, a layer with other shapes than the net's variables, or values that are
            not finite.
    """
    model = model_of(net_name)
    found = _matched(layers, net_name)
    head = layers[found[model.layers[-1]]] if model.layers[-1] in found else [np.zeros(1)]
    num_classes = max(1, *head[-1].shape[-1:])
    values = {}
    for layer, variables in variables_of(net_name, num_classes).items():
        if layer not in found:
            continue
        arrays = layers[found[layer]]
        if [list(a.shape) for a in arrays] != [v.keras_shape for v in variables]:
            expected = ", ".join(f"{v.name} {v.shape}" for v in variables)
            raise UserError(
                f"layer {found[layer]} of the file does not fit {net_name}: it has arrays of shapes "
                f"{', '.join(str(list(a.shape)) for a in arrays)}, where the net has {expected}; "
                "use weights of the same net and width, or save the file without its top"
            )
        for array, variable in zip(arrays, variables, strict=True):
            array = _rgb_bgr(np.asarray(array, np.float32).reshape(variable.shape), layer, model)
            if not np.isfinite(array).all():
                raise UserError(
                    f"layer {found[layer]} of the file holds numbers that are not finite, for {variable.name}"
                )
            values[variable.name] = np.ascontiguousarray(array)
    reason = f"{net_name} has no such layer"
    others = [name for name in layers if name not in found.values()]
    return values, {f"{name}/{i}": reason for name in others for i in range(len(layers[name]))}


def to_keras(values: dict[str, np.ndarray], net_name: str) -> Layers:
    """Layers of keras.applications, with their current names, from our variables: the reverse of to_slim.

    values may hold other names too, such as an optimizer's. The whole head may be missing. Raises UserError if other
    variables of the net are missing, or have another shape.
    """
    model = model_of(net_name)
    head = nets.find(net_name).new_scopes[0]
    classes = [v.shape[-1] for name, v in values.items() if name.startswith(head) and name.endswith("/weights")]
    variables = variables_of(net_name, classes[0] if classes else 1)
    if not any(v.name in values for layer in variables if layer.in_head for v in variables[layer]):
        variables = {layer: found for layer, found in variables.items() if not layer.in_head}
    if missing := [v.name for found in variables.values() for v in found if v.name not in values]:
        raise UserError(
            f"these are not all variables of {net_name}: {_some(missing)} missing; only the whole head may be missing"
        )
    layers: Layers = {}
    for layer, found in variables.items():
        arrays = [values[v.name] for v in found]
        for array, variable in zip(arrays, found, strict=True):
            if list(array.shape) != variable.shape:
                raise UserError(
                    f"{variable.name} does not fit {net_name}: it is {list(array.shape)}, where the net has "
                    f"{variable.shape}, and {variable.keras_shape} in layer {layer.name} of Keras"
                )
        arrays = [_rgb_bgr(array, layer, model) for array in arrays]
        layers[layer.name] = [array.reshape(v.keras_shape) for array, v in zip(arrays, found, strict=True)]
    return layers
