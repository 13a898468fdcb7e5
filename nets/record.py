"""The record of a net: all that the program needs to know about it."""

import dataclasses
from collections.abc import Callable
from functools import cache

from errors import UserError
from sizes import PictureSize, sides
from tfcompat import slim, tf


def plain_arg_scope(weight_decay: float) -> dict:
    """An L2 regularizer for the kernels of slim's layers."""
    layers = [slim.conv2d, slim.separable_conv2d, slim.fully_connected]
    with slim.arg_scope(layers, weights_regularizer=slim.l2_regularizer(weight_decay)) as scope:
        return scope


@dataclasses.dataclass(frozen=True, kw_only=True)
class Net:
    """A registry record, or the record of a user's own net, whose missing fields nets.own fills in."""

    function: Callable  # (inputs, num_classes, is_training, scope) -> (logits, end_points)
    arg_scope: Callable = plain_arg_scope  # (weight_decay) -> arg scope for `function`
    scope: str | None = None  # variable scope in the published checkpoints, "" for none; default: the function's name
    heads: tuple[str, ...] = ()  # scopes under `scope`, or beginnings of them, that a new task replaces; the logits'
    #   first. By default the last layer with variables before the logits
    preprocessing: str = "inception_crop"  # family that the published weights were trained with
    weight_decay: float = 1e-4  # default
    image_size: PictureSize = 224  # default, pixels: the side of a square, or height and width
    smallest_size: int = 1  # smallest side that the net's pools accept, pixels
    any_size: bool = True  # the variables' shapes do not depend on the picture size
    channels: int = 3
    learning_rate: float | None = None  # default for momentum and fresh variables; None for 0.1, which is too high
    #   without batch norm: a user's own net then gets 0.01
    label_offset: int = 0  # output of the first class in the published checkpoint; 1 if output 0 is background
    auxiliary: tuple[str, ...] = ()  # end points under `scope` with the logits of auxiliary heads
    auxiliary_weight: float = 0.0  # weight of their losses

    def __post_init__(self):
        if self.scope is None:
            object.__setattr__(self, "scope", getattr(self.function, "__name__", "net"))

    def build(
        self, inputs: tf.Tensor, num_classes: int, is_training: "bool | tf.Tensor", weight_decay: float
    ) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
        """Calls the function under its arg scope. Raises UserError if the pictures are smaller than smallest_size."""
        if min(inputs.shape.as_list()[1:3]) < self.smallest_size:
            raise UserError(
                f"the net cannot take pictures of {inputs.shape[1]}×{inputs.shape[2]}: --image-size must be at "
                f"least {self.smallest_size}{', which its auxiliary head needs,' * bool(self.auxiliary)} and is "
                f"{self.image_size} by default"
            )
        with slim.arg_scope(self.arg_scope(weight_decay)):
            return self.function(inputs, num_classes, is_training=is_training, scope=self.scope)

    @cache  # noqa: B019 – building a deep net takes seconds, and the records last as long as the program
    def variable_shapes(self, num_classes: int, image_size: PictureSize | None = None) -> dict[str, list[int]]:
        """Names and shapes of the variables in a checkpoint. Do not change the result.

        image_size is the side of the pictures in pixels, or height and width; None for the net's default.
        """
        with tf.Graph().as_default():
            inputs = tf.placeholder(tf.float32, [1, *sides(image_size or self.image_size), self.channels])
            self.build(inputs, num_classes, is_training=False, weight_decay=0.0)
            return {variable.op.name: variable.shape.as_list() for variable in slim.get_model_variables()}

    @property
    def prefix(self) -> str:
        """How the names of the net's variables and end points begin: its scope with a slash, if it has one."""
        return f"{self.scope}/" if self.scope else ""

    @property
    def new_scopes(self) -> tuple[str, ...]:
        """Beginnings of the names of the variables that a new task replaces; the logits' first."""
        return tuple(f"{self.prefix}{head}" for head in self.heads)
