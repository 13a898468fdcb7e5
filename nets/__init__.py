"""The registry of nets: one record per net, with everything that the program needs to know about it.

    logits, end_points = find("vgg_16").build(images, num_classes, is_training=False, weight_decay=5e-4)

A new net is a function in a family's file, and a record here.
"""

import dataclasses
from collections.abc import Callable
from functools import cache, partial

from errors import UserError, unknown
from nets import alexnet, googlenet, lenet, mobilenet_v1, preact_elu, preact_resnet, resnet, resnet_keras, teaching, vgg
from tfcompat import slim, tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A registry record."""

    function: Callable  # (inputs, num_classes, is_training, scope) -> (logits [N, num_classes], end_points)
    arg_scope: Callable  # (weight_decay) -> arg scope for `function`
    scope: str  # variable scope in the published checkpoints
    heads: tuple[str, ...]  # scopes under `scope`, or beginnings of them, that a new task replaces; the logits' first
    preprocessing: str  # family that the published weights were trained with
    weight_decay: float  # default
    image_size: int  # default side of the pictures, pixels
    smallest_size: int = 1  # smallest side that the net's pools accept, pixels
    any_size: bool = True  # the variables' shapes do not depend on the picture size
    channels: int = 3
    learning_rate: float = 0.1  # default for momentum and fresh variables; 0.1 is too high without batch norm
    label_offset: int = 0  # output of the first class in the published checkpoint; 1 if output 0 is background
    auxiliary: tuple[str, ...] = ()  # end points under `scope` with the logits of auxiliary heads
    auxiliary_weight: float = 0.0  # weight of their losses

    def build(
        self, inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", weight_decay: float
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Builds the net under its arg scope.

        Args:
            inputs: preprocessed pictures [N, H, W, C], float32.
            num_classes: number of logits.
            is_training: whether dropout is active and batch norm uses the batch's statistics.
            weight_decay: factor of the L2 regularizer.

        Returns:
            Logits [N, num_classes]; end points, from their names to tensors.

        Raises:
            UserError: the pictures are smaller than smallest_size.
        """
        if min(inputs.shape.as_list()[1:3]) < self.smallest_size:
            raise UserError(
                f"the net cannot take pictures of {inputs.shape[1]}×{inputs.shape[2]}: --image-size must be at "
                f"least {self.smallest_size}, and is {self.image_size} by default"
            )
        with slim.arg_scope(self.arg_scope(weight_decay)):
            return self.function(inputs, num_classes, is_training=is_training, scope=self.scope)

    @cache  # noqa: B019 – building a deep net takes seconds, and the records last as long as the program
    def variable_shapes(self, num_classes: int, image_size: int | None = None) -> dict[str, list[int]]:
        """Names and shapes of the variables in a checkpoint. Do not change the result.

        image_size is the side of the pictures in pixels; None for the net's default.
        """
        side = image_size or self.image_size
        with tf.Graph().as_default():
            inputs = tf.placeholder(tf.float32, [1, side, side, self.channels])
            self.build(inputs, num_classes, is_training=False, weight_decay=0.0)
            return {variable.op.name: variable.shape.as_list() for variable in slim.get_model_variables()}

    @property
    def new_scopes(self) -> tuple[str, ...]:
        """Beginnings of the names of the variables that a new task replaces; the logits' first."""
        return tuple(f"{self.scope}/{head}" for head in self.heads)


_ALEXNET = {"arg_scope": alexnet.alexnet_arg_scope, "heads": ("fc8",), "weight_decay": alexnet.WEIGHT_DECAY}
_ALEXNET["learning_rate"] = 0.01
_VGG = {"arg_scope": vgg.vgg_arg_scope, "preprocessing": "vgg", "weight_decay": vgg.WEIGHT_DECAY, "image_size": 224}
_VGG["learning_rate"] = 0.01
_RESNET = {"arg_scope": resnet.resnet_arg_scope, "heads": ("logits",), "weight_decay": resnet.WEIGHT_DECAY}
_KERAS = {"arg_scope": resnet_keras.resnet_keras_arg_scope, "heads": ("fc",), "weight_decay": 0.0}
_TEACHING = {"arg_scope": teaching.teaching_arg_scope, "heads": ("logits",), "weight_decay": 0.0}
_TEACHING |= {"learning_rate": 0.01, "any_size": False}

NETS: dict[str, Net] = {
    **{
        name: Net(
            function=partial(alexnet.alexnet, variant=name),
            scope=name,
            preprocessing=preprocessing,
            image_size=image_size,
            smallest_size=smallest_size,
            channels=channels,
            **_ALEXNET,
        )
        for name, preprocessing, image_size, smallest_size, channels in (
            ("alexnet_2012", "vgg", 224, 224, 3),
            ("alexnet_half", "vgg", 224, 224, 3),
            ("alexnet_mnist", "unit", 28, 25, 1),
            ("alexnet_v2", "vgg", 224, 195, 3),
        )
    },
    # TF-Slim calls the 11-layer net vgg_a, after the paper's configuration A.
    **{
        f"vgg_{depth}": Net(
            function=partial(vgg.vgg, depth=depth),
            scope="vgg_a" if depth == 11 else f"vgg_{depth}",
            heads=("fc8",),
            smallest_size=224,
            **_VGG,
        )
        for depth in vgg.CONVOLUTIONS
    },
    "vgg_16_transfer": Net(
        function=partial(vgg.vgg, depth=16, fc6_kernel=None, dense_widths=(1024, 1024), dropout_first=True),
        scope="vgg_16",
        heads=("fc8", "fc6", "fc7"),
        smallest_size=32,
        any_size=False,
        **_VGG,
    ),
    "inception_v1": Net(
        function=partial(googlenet.googlenet, as_published_2014=False),
        arg_scope=googlenet.inception_v1_arg_scope,
        scope="InceptionV1",
        heads=("Logits",),
        preprocessing="inception",
        weight_decay=googlenet.WEIGHT_DECAY,
        image_size=224,
        label_offset=1,
    ),
    "googlenet_2014": Net(
        function=partial(googlenet.googlenet, as_published_2014=True),
        arg_scope=googlenet.googlenet_arg_scope,
        scope="googlenet_2014",
        heads=("Logits", *(f"{head}/logits" for head in googlenet.AUXILIARY_HEADS.values())),
        preprocessing="vgg",
        weight_decay=googlenet.WEIGHT_DECAY,
        image_size=224,
        smallest_size=209,
        auxiliary=tuple(f"{head}/logits" for head in googlenet.AUXILIARY_HEADS.values()),
        auxiliary_weight=googlenet.AUXILIARY_LOSS_WEIGHT,
        learning_rate=0.01,
    ),
    **{
        f"resnet_v1_{depth}": Net(
            function=partial(resnet.resnet, depth=depth, bottleneck=resnet.bottleneck_v1),
            scope=f"resnet_v1_{depth}",
            preprocessing="vgg",
            image_size=224,
            **_RESNET,
        )
        for depth in resnet.UNITS
    },
    **{
        f"resnet_v2_{depth}": Net(
            function=partial(resnet.resnet, depth=depth, bottleneck=resnet.bottleneck_v2),
            scope=f"resnet_v2_{depth}",
            preprocessing="inception",  # of the published weights; TF-Slim's factory says vgg, which is wrong
            image_size=299,
            label_offset=1,
            **_RESNET,
        )
        for depth in resnet.UNITS
    },
    "resnet50_keras": Net(
        function=partial(resnet_keras.resnet_keras, variant="resnet50_keras"),
        scope="resnet50_keras",
        preprocessing="vgg",
        image_size=224,
        **_KERAS,
    ),
    "resnet50_signs": Net(
        function=partial(resnet_keras.resnet_keras, variant="resnet50_signs"),
        scope="resnet50_signs",
        preprocessing="unit",
        image_size=64,
        smallest_size=37,
        any_size=False,
        **_KERAS,
    ),
    **{
        name: Net(
            function=partial(preact_resnet.preact_resnet, variant=name),
            arg_scope=preact_resnet.preact_resnet_arg_scope,
            scope=name,
            heads=("logits",),
            preprocessing="cifar",
            weight_decay=preact_resnet.WEIGHT_DECAY,
            image_size=32,
        )
        for name in preact_resnet.VARIANTS
    },
    "preact_elu": Net(
        function=preact_elu.preact_elu,
        arg_scope=preact_elu.preact_elu_arg_scope,
        scope="preact_elu",
        heads=("logits",),
        preprocessing="cifar",
        weight_decay=preact_elu.WEIGHT_DECAY,
        image_size=32,
    ),
    # TF-Slim's names for the widths; all published checkpoints have one scope.
    **{
        f"mobilenet_v1{suffix}": Net(
            function=partial(mobilenet_v1.mobilenet_v1, width=width),
            arg_scope=mobilenet_v1.mobilenet_v1_arg_scope,
            scope="MobilenetV1",
            heads=("Logits",),
            preprocessing="inception",
            weight_decay=mobilenet_v1.WEIGHT_DECAY,
            image_size=224,
            label_offset=1,
        )
        for suffix, width in (("", 1.0), ("_075", 0.75), ("_050", 0.5), ("_025", 0.25))
    },
    "lenet": Net(
        function=lenet.lenet,
        arg_scope=lenet.lenet_arg_scope,
        scope="LeNet",
        heads=("fc4",),
        preprocessing="lenet",
        weight_decay=0.0,
        image_size=28,
        smallest_size=4,
        any_size=False,
        channels=1,
        learning_rate=0.01,
    ),
    "inception_strided": Net(
        function=teaching.inception_strided,
        scope="inception_strided",
        preprocessing="unit",
        image_size=150,
        **_TEACHING,
    ),
    "residual_cnn": Net(
        function=teaching.residual_cnn, scope="residual_cnn", preprocessing="unit", image_size=256, **_TEACHING
    ),
}


def find(name: str) -> Net:
    """The record of a net. Raises UserError for an unknown name, with the nearest known one."""
    if name not in NETS:
        raise unknown("net", name, NETS)
    return NETS[name]
