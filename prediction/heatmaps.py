"""Class activation maps (CAM): the places of a picture that contribute to the predicted class.

The map is a product of two, as in Guided Grad-CAM (Selvaraju et al., arXiv:1610.02391, section 3.2): a coarse one,
which is specific to the class, and a finer one, which says where in it the evidence lies.

Coarse: HiResCAM (Draelos and Carin, arXiv:2011.08891), the last feature map times the gradient of the class's score by
it, summed over the channels; only positive values are shown. For nets that end in a mean over all places it is
Grad-CAM, which averages the gradient over the places first; for nets with dense layers, such as AlexNet and VGG,
Grad-CAM may show places that the score does not depend on.

Fine: LayerCAM (Jiang et al., IEEE TIP 30, 2021), the same for a feature map of twice the side, but with positive
products alone: in earlier layers, positive and negative ones cancel at the places that matter most. It is averaged over
2×2 places.

Measured by the pointing game on 30 ImageNet pictures, whose objects are boxed in tests/prediction/boxes.json: the
maximum lies on the object in 30 with MobileNet 1.0 and in 28 with 0.25. With the coarse map alone, which is equal to
Grad-CAM there, it is 24 and 23; the centre of the picture lies on 25 objects. The map shows where the evidence is, not
which property of that place counts.
"""

import cv2
import numpy as np

from channels import visible
from tfcompat import tf, upstream

SMALLEST_MAP = 7  # of ResNet, VGG and MobileNet at 224 pixels; fewer places are too coarse
SHOWN_SIDE = 224  # smaller pictures are enlarged
MOST_COLOR = 0.6  # share of the color where the map is 1


def last_map(images: tf.Tensor, logits: tf.Tensor, smallest: int = SMALLEST_MAP) -> tf.Tensor:
    """The last feature map [N, H, W, C] with at least `smallest` places a side; the images where there is none.

    All of the logits is computed from it: a branch of a block, beside which there is a shortcut, shows a part only.
    """
    needed = upstream([logits.op])
    for operation in reversed(images.graph.get_operations()):  # the one that was built last comes first
        for tensor in operation.outputs if operation in needed else ():
            shape = tensor.shape.as_list() if tensor.shape.rank == 4 else [0]
            # Kernels have four axes, too, but their first one is known.
            is_map = shape[0] is None and None not in shape[1:] and min(shape[1:3]) >= smallest
            if is_map and images.op not in upstream([logits.op], stop_at=[tensor]):
                return tensor
    return images


def class_activation_map(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The map of the most probable class, float32 [N, h, w], 0 to 1; all 0 where nothing contributes to the class.

    The logits [N, classes] are computed from images, preprocessed pictures [N, H, W, C] with N unknown.
    """
    # Relative to the mean of all, which softmax does not see: a sigmoid unit's first class has the constant logit 0.
    score = tf.reduce_max(logits, 1) - tf.reduce_mean(logits, 1)
    coarse = last_map(images, logits)
    cam = tf.nn.relu(tf.reduce_sum(_contributions(score, coarse), 3))
    fine = last_map(images, logits, 2 * min(coarse.shape.as_list()[1:3]) - 1)  # a stride makes 10 places of 19
    if fine is not images:
        positive = tf.reduce_sum(tf.nn.relu(_contributions(score, fine)), 3, keepdims=True)
        # A 1×1 convolution of stride 2, as in the shortcuts of ResNets, reads every second place in both directions.
        positive = tf.nn.avg_pool2d(positive, 2, 1, "SAME")[..., 0]
        cam = positive * tf.compat.v2.image.resize(cam[..., tf.newaxis], positive.shape[1:])[..., 0]
    return tf.math.divide_no_nan(cam, tf.reduce_max(cam, [1, 2], keepdims=True))


def _contributions(score: tf.Tensor, activations: tf.Tensor) -> tf.Tensor:
    """The part of each element of a feature map [N, H, W, C] in the scores [N], to first order."""
    (gradient,) = tf.gradients(score, activations)
    return gradient * activations


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Draws a class activation map, float [h, w], 0 to 1, from blue to red over the net's input, float [H, W, C].

    The lowest value of the input becomes black, its highest white. Returns uint8 [H, W, 3], RGB, or a whole multiple of
    that size.
    """
    image = visible(image)
    low, high = image.min(), image.max()
    picture = (image - low) * (255 / max(high - low, 1e-6))
    picture = np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture
    times = -(-SHOWN_SIDE // max(picture.shape[:2]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    cam = np.clip(cv2.resize(cam, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    colors = cv2.applyColorMap((cam * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    share = MOST_COLOR * cam[..., np.newaxis]
    return np.rint(picture * (1 - share) + colors * share).astype(np.uint8)
