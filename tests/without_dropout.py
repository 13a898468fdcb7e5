"""Builds a registered net without dropout and drop path, to compare it with another implementation."""

from nets import NETS
from tfcompat import dropout, slim, tf


def built(name, inputs, num_classes, is_training):
    """Logits and end points of the net for a tensor of pictures."""
    net, options = NETS[name], {}
    if not name.startswith(("densenet", "resnet")):
        options = {"dropout_keep_prob": 1.0, **({"keep_path": 1.0} if "nasnet" in name else {})}
    with slim.arg_scope(net.arg_scope(net.weight_decay)), slim.arg_scope([dropout], seed=tf.constant([0, 0])):
        return net.function(inputs, num_classes, is_training=is_training, scope=net.scope, **options)
