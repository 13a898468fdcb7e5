"""The models of keras.applications that are nets here: for each layer its names in Keras and its scope in our net.

Most of Keras's layers have names, which changed over the years. In the Inceptions they have none, and Keras numbers
them as they are made: conv2d_17 is the 18th convolution of a process. Their branches are made in the order of ours.
"""

from collections.abc import Iterator
from typing import NamedTuple

from nets import densenet, inception, mobilenet, mobilenet_v1, nasnet, resnet, resnet_keras, vgg


class KerasLayer(NamedTuple):
    """A layer of a Keras model."""

    kind: str  # key of keras_layers.PARTS
    scope: str  # under the net's scope; {classes} is filled in
    names: tuple[str, ...]  # in Keras, today's first; none for one that Keras numbers
    in_head: bool = False


class Model(NamedTuple):
    """A model of keras.applications."""

    application: str  # in keras.applications
    layers: list[KerasLayer]  # in the order of Keras's model.layers, or, if not `in_order`, as they are made
    bgr: bool = False  # takes BGR pictures
    options: tuple[tuple[str, object], ...] = ()  # arguments of the application
    in_order: bool = True
    differs: str = ""  # how its logits differ from our net's, for the same weights


def _normalized(kind: str, scope: str, name: str, norm: str, *olds: str, at: str = "BatchNorm") -> list[KerasLayer]:
    """A convolution and the batch norm after it."""
    norms = [f"{old}/BatchNorm" for old in olds]
    return [
        KerasLayer(kind, scope, (name, *olds)),
        KerasLayer("batch_normalization", f"{scope}/{at}", (norm, *norms)),
    ]


def _vgg(depth: int) -> Iterator[KerasLayer]:
    for block, convolutions in enumerate(vgg.CONVOLUTIONS[depth], start=1):
        for i in range(1, convolutions + 1):
            yield KerasLayer("conv2d", f"conv{block}/conv{block}_{i}", (f"block{block}_conv{i}",))
    for scope, name in (("fc6", "fc1"), ("fc7", "fc2"), ("fc8", "predictions")):
        yield KerasLayer("dense", scope, (name,), in_head=True)


def _resnet50() -> Iterator[KerasLayer]:
    yield KerasLayer("conv2d", "conv1", ("conv1_conv", "conv1"))
    yield KerasLayer("batch_normalization", "bn_conv1", ("conv1_bn", "bn_conv1"))
    for stage, units in enumerate(resnet_keras.UNITS, start=2):
        for unit, letter in enumerate("abcdef"[:units], start=1):
            branches = ((1, "2a"), (2, "2b"), *([(0, "1")] if unit == 1 else []), (3, "2c"))
            for kind, ours, theirs in (("conv2d", "res", "conv"), ("batch_normalization", "bn", "bn")):
                for number, branch in branches:
                    old_name = f"{ours}{stage}{letter}_branch{branch}"
                    yield KerasLayer(kind, old_name, (f"conv{stage}_block{unit}_{number}_{theirs}", old_name))
    yield KerasLayer("dense", "fc{classes}", ("predictions", "fc1000", "probs"), in_head=True)


def _resnet_v2(depth: int) -> Iterator[KerasLayer]:
    yield KerasLayer("conv2d", "conv1", ("conv1_conv",))
    for stage, units in enumerate(resnet.UNITS[depth], start=1):
        for unit in range(1, units + 1):
            scope, name = f"block{stage}/unit_{unit}/bottleneck_v2", f"conv{stage + 1}_block{unit}"
            yield KerasLayer("batch_normalization", f"{scope}/preact", (f"{name}_preact_bn",))
            for i in (1, 2):
                yield from _normalized("conv2d", f"{scope}/conv{i}", f"{name}_{i}_conv", f"{name}_{i}_bn")
            if unit == 1:
                yield KerasLayer("conv2d", f"{scope}/shortcut", (f"{name}_0_conv",))
            yield KerasLayer("conv2d", f"{scope}/conv3", (f"{name}_3_conv",))
    yield KerasLayer("batch_normalization", "postnorm", ("post_bn",))
    yield KerasLayer("dense", "logits", ("predictions", "probs"), in_head=True)


def _densenet(depth: int) -> Iterator[KerasLayer]:
    yield from [
        KerasLayer("conv2d", "conv1", ("conv1_conv", "conv1/conv")),
        KerasLayer("batch_normalization", "conv1/norm", ("conv1_bn", "conv1/bn")),
    ]
    for stage, units in enumerate(densenet.UNITS[depth], start=1):
        for unit in range(1, units + 1):
            scope, name = f"block{stage}/unit_{unit}", f"conv{stage + 1}_block{unit}"
            yield KerasLayer("batch_normalization", f"{scope}/preact", (f"{name}_0_bn",))
            yield KerasLayer("conv2d", f"{scope}/conv1", (f"{name}_1_conv",))
            yield KerasLayer("batch_normalization", f"{scope}/norm", (f"{name}_1_bn",))
            yield KerasLayer("conv2d", f"{scope}/conv2", (f"{name}_2_conv",))
        if stage < len(densenet.UNITS[depth]):
            yield KerasLayer("batch_normalization", f"transition{stage}/preact", (f"pool{stage + 1}_bn",))
            yield KerasLayer("conv2d", f"transition{stage}/conv", (f"pool{stage + 1}_conv",))
    yield KerasLayer("batch_normalization", "postnorm", ("bn",))
    yield KerasLayer("dense", "logits", ("predictions", "fc1000"), in_head=True)


def _mobilenet_v1() -> Iterator[KerasLayer]:
    rows = [("conv2d", "Conv2d_0", "conv1")]
    for i in range(1, len(mobilenet_v1.ROWS) + 1):
        rows += [("depthwise_conv2d", f"Conv2d_{i}_depthwise", f"conv_dw_{i}")]
        rows += [("conv2d", f"Conv2d_{i}_pointwise", f"conv_pw_{i}")]
    for kind, scope, name in rows:
        yield from _normalized(kind, scope, name, f"{name}_bn")
    yield KerasLayer("conv2d", "Logits/Conv2d_1c_1x1", ("conv_preds",), in_head=True)


def _mobilenet_v2() -> Iterator[KerasLayer]:
    yield from _normalized("conv2d", "Conv", "Conv1", "bn_Conv1")
    for i, block in enumerate(mobilenet.V2.blocks):
        scope, name = f"expanded_conv_{i}" if i else "expanded_conv", f"block_{i}" if i else "expanded_conv"
        layers = [("conv2d", "expand")] if block.expansion != 1 else []
        for kind, layer in (*layers, ("depthwise_conv2d", "depthwise"), ("conv2d", "project")):
            yield from _normalized(kind, f"{scope}/{layer}", f"{name}_{layer}", f"{name}_{layer}_BN")
    yield from _normalized("conv2d", "Conv_1", "Conv_1", "Conv_1_bn")
    yield KerasLayer("dense", "Logits/Conv2d_1c_1x1", ("predictions", "Logits"), in_head=True)


def _mobilenet_v3(body: mobilenet.Body) -> Iterator[KerasLayer]:
    """Keras's first names were TF-Slim's scopes."""
    yield from _normalized("conv2d", "Conv", "conv", "conv_bn", "Conv")
    for i, block in enumerate(body.blocks):
        scope = f"expanded_conv_{i}" if i else "expanded_conv"
        layers = [("conv2d", "expand")] if i else []
        for kind, layer in (*layers, ("depthwise_conv2d", "depthwise"), ("conv2d", "project")):
            if layer == "project" and block.gate:
                for conv in ("Conv", "Conv_1"):
                    gate = f"{scope}/squeeze_excite/{conv}"
                    yield KerasLayer("conv2d", gate, (f"{scope}_squeeze_excite_{conv.lower()}", gate))
            names = (f"{scope}_{layer}", f"{scope}_{layer}_bn", f"{scope}/{layer}")
            yield from _normalized(kind, f"{scope}/{layer}", *names)
    yield from _normalized("conv2d", "Conv_1", "conv_1", "conv_1_bn", "Conv_1")
    yield KerasLayer("conv2d", "Conv_2", ("conv_2", "Conv_2"), in_head=True)
    yield KerasLayer("conv2d", "Logits/Conv2d_1c_1x1", ("logits", "Logits"), in_head=True)


def _numbered(scope: str, text: str) -> Iterator[KerasLayer]:
    """The convolutions of a chain of inception.BODIES, without names."""
    for layer in (inception.Layer.of(each) for word in text.split(", ") for each in word.split(" & ")):
        if layer.width is not None:
            yield KerasLayer("conv2d", f"{scope}{layer.scope}", ())
            yield KerasLayer("batch_normalization", f"{scope}{layer.scope}/BatchNorm", ())


def _inception(variant: str) -> Iterator[KerasLayer]:
    for row in inception.BODIES[variant]:
        if isinstance(row, str):
            # The last layer of inception_resnet_v2 has a name.
            named = row == "7b_1x1 1536"
            yield from _normalized("conv2d", "Conv2d_7b_1x1", "conv_7b", "conv_7b_bn") if named else _numbered("", row)
        elif isinstance(row, inception.Residual):
            for i in range(1, row.count + 1):
                scope, name = f"{row.scope}/{row.name}_{i}", f"{row.name}_{i}"
                if not row.scope:
                    scope, name = row.name, "block8_10"
                for branch, text in enumerate(row.branches):
                    yield from _numbered(f"{scope}/Branch_{branch}/", text)
                yield KerasLayer("conv2d", f"{scope}/Conv2d_1x1", (f"{name}_conv",))
        else:
            for branch, text in enumerate(row[1]):
                yield from _numbered(f"{row[0]}/Branch_{branch}/", text)
    head = inception.HEADS[variant]
    yield KerasLayer("dense", f"Logits/{head.logits}", ("predictions",), in_head=True)


def _nasnet_cell(scope: str, kind: str, block: str, reduces_previous: bool) -> Iterator[KerasLayer]:
    """A cell; kind is 'normal' or 'reduction', block Keras's name of it."""
    if reduces_previous:
        for i in (1, 2):
            yield KerasLayer("conv2d", f"{scope}/path{i}_conv", (f"adjust_conv_{i}_{block}",))
        yield KerasLayer("batch_normalization", f"{scope}/final_path_bn", (f"adjust_bn_{block}",))
    elif block != "stem_1":
        yield KerasLayer("conv2d", f"{scope}/prev_1x1", (f"adjust_conv_projection_{block}",))
        yield KerasLayer("batch_normalization", f"{scope}/prev_bn", (f"adjust_bn_{block}",))
    yield KerasLayer("conv2d", f"{scope}/1x1", (f"{kind}_conv_1_{block}",))
    yield KerasLayer("batch_normalization", f"{scope}/beginning_bn", (f"{kind}_bn_1_{block}",))
    pairs = (nasnet.NORMAL_A if kind == "normal" else nasnet.REDUCTION_A).pairs
    for number, pair in enumerate(pairs, start=1):
        for side, (operation, _) in zip(("left", "right"), pair, strict=True):
            if not operation.startswith("separable"):
                continue
            kernel = operation.split("_")[1]
            # Keras calls the last one of a reduction cell left4, which the pool before it is called too.
            place = f"{kind}_{side}{4 if (kind, number) == ('reduction', 5) else number}_{block}"
            for i in (1, 2):
                inner = f"{scope}/comb_iter_{number - 1}/{side}"
                yield KerasLayer(
                    "separable_conv2d", f"{inner}/separable_{kernel}_{i}", (f"separable_conv_{i}_{place}",)
                )
                name = f"separable_conv_{i}_bn_{place}"
                yield KerasLayer("batch_normalization", f"{inner}/bn_sep_{kernel}_{i}", (name,))


def _nasnet(variant: str) -> Iterator[KerasLayer]:
    cells = nasnet.BODIES[variant].cells
    third = cells // 3
    yield KerasLayer("conv2d", "conv0", ("stem_conv1",))
    yield KerasLayer("batch_normalization", "conv0_bn", ("stem_bn1",))
    yield from _nasnet_cell("cell_stem_0", "reduction", "stem_1", reduces_previous=False)
    yield from _nasnet_cell("cell_stem_1", "reduction", "stem_2", reduces_previous=True)
    for i in range(cells):
        after_reduction = i % third == 0
        if after_reduction and i:
            reduction = i // third
            yield from _nasnet_cell(f"reduction_cell_{reduction - 1}", "reduction", f"reduce_{i}", False)
        yield from _nasnet_cell(f"cell_{i}", "normal", str(i + (i >= third)), after_reduction)
    yield KerasLayer("dense", "final_layer/FC", ("predictions",), in_head=True)


_POOL1 = (
    "Keras pads the map before pool1 with zeros on all sides; TF-Slim's net pads below and at the right, and the "
    "padding never is the maximum. The logits differ: measure with eval.py, or fine-tune"
)
_POOLS = (
    "Keras pads with zeros before the pools of reduction cells, and counts them; TF-Slim's net does not count padding. "
    "The logits differ: measure with eval.py, or fine-tune"
)
_GATES = (
    "Keras's gates are relu6(x + 3) / 6, those of TF-Slim's graphs relu6(x + 3) · 0.16667: the logits differ by less "
    "than a thousandth"
)

MODELS = {
    "vgg_16": Model("VGG16", list(_vgg(16)), bgr=True),
    "vgg_19": Model("VGG19", list(_vgg(19)), bgr=True),
    "resnet50_keras": Model("ResNet50", list(_resnet50()), bgr=True),
    **{
        f"resnet_v2_{depth}": Model(f"ResNet{depth}V2", list(_resnet_v2(depth)), differs=_POOL1)
        for depth in (50, 101, 152)
    },
    **{f"densenet_{depth}": Model(f"DenseNet{depth}", list(_densenet(depth))) for depth in densenet.UNITS},
    "inception_v3": Model("InceptionV3", list(_inception("inception_v3")), in_order=False),
    "inception_resnet_v2": Model("InceptionResNetV2", list(_inception("inception_resnet_v2")), in_order=False),
    **{
        f"mobilenet_v1{suffix}": Model("MobileNet", list(_mobilenet_v1()), options=(("alpha", width),))
        for suffix, width in mobilenet_v1.SUFFIXES.items()
    },
    **{
        f"mobilenet_v2{suffix}": Model("MobileNetV2", list(_mobilenet_v2()), options=(("alpha", width),))
        for suffix, width in mobilenet.V2_WIDTHS.items()
    },
    **{
        f"mobilenet_v3_{name}": Model(
            f"MobileNetV3{name.split('_')[0].capitalize()}",
            list(_mobilenet_v3(body)),
            options=(("alpha", width), ("minimalistic", name.endswith("minimalistic"))),
            differs="" if name.endswith("minimalistic") else _GATES,
        )
        for name, (body, width) in mobilenet.V3.items()
    },
    "nasnet_mobile": Model("NASNetMobile", list(_nasnet("nasnet_mobile")), in_order=False, differs=_POOLS),
    "nasnet_large": Model("NASNetLarge", list(_nasnet("nasnet_large")), in_order=False, differs=_POOLS),
}
