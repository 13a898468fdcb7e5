"""The nets, and what the rest of the program asks of each.

    logits, end_points = NETS["vgg_16"].build(images, num_classes, is_training=False, weight_decay=5e-4)

A new net is a function in a family's file and a record here.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

from errors import UserError
from nets.alexnet import WEIGHT_DECAY as ALEXNET_DECAY
from nets.alexnet import alexnet, alexnet_arg_scope
from nets.preact_resnet import DEPTHS, preact_resnet, preact_resnet_arg_scope
from nets.preact_resnet import WEIGHT_DECAY as PREACT_DECAY
from nets.vgg import CONVOLUTIONS, vgg, vgg_arg_scope
from nets.vgg import WEIGHT_DECAY as VGG_DECAY
from tfcompat import slim, tf


@dataclasses.dataclass(frozen=True)
class Net:
    """A registry record."""

    function: Callable  # (inputs, num_classes, is_training, scope) -> (logits [N, num_classes], end_points)
    arg_scope: Callable  # (weight_decay) -> arg scope to call `function` under
    scope: str  # variable scope of the published checkpoints
    head: str  # scope under `scope` that fine-tuning on other classes leaves out
    preprocessing: str  # family the published weights were trained with
    weight_decay: float
    image_size: int
    channels: int = 3
    label_offset: int = 0  # the published checkpoint's index of the first class: 1 where 0 means background

    def build(
        self, inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", weight_decay: float
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Logits [N, num_classes] and end points of the net under its arg scope.

        Raises UserError where the pictures are too small for it.
        """
        try:
            with slim.arg_scope(self.arg_scope(weight_decay)):
                return self.function(inputs, num_classes, is_training=is_training, scope=self.scope)
        except ValueError as error:
            if "Negative dimension size" not in str(error):
                raise
            raise UserError(
                f"{self.scope} cannot take pictures of {inputs.shape[1]}×{inputs.shape[2]}; "
                f"its own --image-size is {self.image_size}"
            ) from None

    @property
    def new_scopes(self) -> tuple[str, ...]:
        """Scopes of the variables that a new task replaces."""
        return (f"{self.scope}/{self.head}",)


_VGG = partial(Net, arg_scope=vgg_arg_scope, head="fc8", preprocessing="vgg", weight_decay=VGG_DECAY, image_size=224)
_ALEXNET = partial(Net, arg_scope=alexnet_arg_scope, head="fc8", weight_decay=ALEXNET_DECAY)

NETS = {
    "alexnet_v2": _ALEXNET(
        partial(alexnet, variant="alexnet_v2"), scope="alexnet_v2", preprocessing="vgg", image_size=224
    ),
    "alexnet_mnist": _ALEXNET(
        partial(alexnet, variant="alexnet_mnist"),
        scope="alexnet_mnist",
        preprocessing="unit",
        image_size=28,
        channels=1,
    ),
    # TF-Slim calls the 11-layer net by the paper's letter.
    **{
        f"vgg_{depth}": _VGG(partial(vgg, depth=depth), scope="vgg_a" if depth == 11 else f"vgg_{depth}")
        for depth in CONVOLUTIONS
    },
    **{
        f"preact_resnet_{depth}": Net(
            partial(preact_resnet, depth=depth),
            preact_resnet_arg_scope,
            scope=f"preact_resnet_{depth}",
            head="logits",
            preprocessing="cifar",
            weight_decay=PREACT_DECAY,
            image_size=32,
        )
        for depth in DEPTHS
    },
}
