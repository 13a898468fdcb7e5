"""Compares the time of a training step of Slimgraph's net and of tf_slim's own net, in turn, in one process.

    python benchmarks/training_step.py [NET] [--batch-size N] [--rounds N]

Both train on the same synthetic pictures with momentum and weight decay, dropout on. A round is one step of each; the
medians of their times are compared. NET is a net that tf_slim.nets also has: alexnet_v2 (default), vgg_16,
inception_v1, resnet_v1_50, resnet_v2_50.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from nets import NETS
from tfcompat import dropout, slim, tf

# After tfcompat, which sets the oneDNN variable that TensorFlow reads at import, for both nets.
from tf_slim.nets import alexnet, inception_v1, resnet_v1, resnet_v2, vgg  # isort: skip

THEIRS = {
    "alexnet_v2": (alexnet.alexnet_v2, alexnet.alexnet_v2_arg_scope),
    "vgg_16": (vgg.vgg_16, vgg.vgg_arg_scope),
    "inception_v1": (inception_v1.inception_v1, inception_v1.inception_v1_arg_scope),
    "resnet_v1_50": (resnet_v1.resnet_v1_50, resnet_v1.resnet_arg_scope),
    "resnet_v2_50": (resnet_v2.resnet_v2_50, resnet_v2.resnet_arg_scope),
}
CLASSES = 1000


def training_step(name: str, ours: bool, batch_size: int) -> tuple[tf.Session, tf.Operation]:
    """A session and its operation for one training step."""
    net = NETS[name]
    with tf.Graph().as_default() as graph:
        tf.set_random_seed(0)
        pictures = tf.Variable(tf.random.normal([batch_size, net.image_size, net.image_size, 3]), trainable=False)
        labels = tf.constant(np.arange(batch_size) % CLASSES)
        if ours:
            with slim.arg_scope([dropout], seed=tf.stack([0, tf.train.get_or_create_global_step()])):
                logits, _ = net.build(pictures, CLASSES, True, net.weight_decay)
        else:
            function, arg_scope = THEIRS[name]
            with slim.arg_scope(arg_scope(weight_decay=net.weight_decay)):
                logits, _ = function(pictures, CLASSES, is_training=True)
            logits = tf.reshape(logits, [batch_size, CLASSES])
        loss = tf.losses.sparse_softmax_cross_entropy(labels, logits) + tf.losses.get_regularization_loss()
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            step = tf.train.MomentumOptimizer(1e-4, 0.9).minimize(loss)
        session = tf.Session(graph=graph)
        session.run(tf.global_variables_initializer())
    return session, step


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net", nargs="?", default="alexnet_v2", choices=THEIRS, metavar="NET")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    sides = {kind: training_step(args.net, kind == "slimgraph", args.batch_size) for kind in ("tf_slim", "slimgraph")}
    times = {kind: [] for kind in sides}
    for i in range(args.rounds + 2):
        for kind, (session, step) in sides.items():
            began = time.perf_counter()
            session.run(step)
            if i >= 2:  # the first steps allocate memory
                times[kind].append(time.perf_counter() - began)
    medians = {kind: float(np.median(seconds)) for kind, seconds in times.items()}
    for kind, seconds in times.items():
        speed = args.batch_size / medians[kind]
        print(
            f"{kind:<10}{speed:8.1f} images/s   step {medians[kind]:.3f} s ({min(seconds):.3f} to {max(seconds):.3f})"
        )
    print(f"{args.net}, batch {args.batch_size}: slimgraph is {medians['tf_slim'] / medians['slimgraph']:.2f}× tf_slim")


if __name__ == "__main__":
    main()
