"""Gradient accumulation: one update from several parts of a batch, for batches that do not fit into the memory.

The parts run one after another, each in a session.run of its own. Their gradients are added up in variables beside the
net's, which no checkpoint holds: the first part of a batch sets them.
"""

from collections.abc import Iterable, Sequence

from tfcompat import tf


class Parts:
    """The parts of each batch. The gradients of the last part are in the update itself.

    Attributes:
        count: how many.
        number: int32 scalar, of the part that runs, from 0.
        add: operations that keep the gradients of the first part, and add those of a further one; none for one part.
    """

    def __init__(self, count: int):
        self.count, self.number = count, None
        self.add: tuple[tf.Operation, ...] = ()
        if count > 1:
            self.number = tf.placeholder_with_default(0, [], "part")

    def feed(self, number: int) -> dict[tf.Tensor, int]:
        """What a session.run of a part is fed with."""
        return {self.number: number} if self.count > 1 else {}

    def key(self, key: tf.Tensor) -> tf.Tensor:
        """A key of random draws, an integer tensor [2], that differs in each part."""
        return tf.random.fold_in(key, self.number) if self.count > 1 else key

    def mean(self, gradients: Sequence[tf.Tensor], updates: Iterable[tf.Operation]) -> list[tf.Tensor]:
        """The mean of gradients over the parts, to use in the last one; `updates` run with each of the others.

        gradients are those of the part that runs, with static shapes.
        """
        if self.count == 1:
            return list(gradients)
        sums = [
            tf.Variable(
                lambda gradient=gradient: tf.zeros(gradient.shape, gradient.dtype),
                trainable=False,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],
                name="accumulated",
            )
            for gradient in map(tf.convert_to_tensor, gradients)
        ]
        updates = list(updates)
        first = [total.assign(gradient) for total, gradient in zip(sums, gradients, strict=True)]
        further = [total.assign_add(gradient) for total, gradient in zip(sums, gradients, strict=True)]
        self.add = tf.group(*first, *updates), tf.group(*further, *updates)
        return [(total + gradient) / self.count for total, gradient in zip(sums, gradients, strict=True)]
