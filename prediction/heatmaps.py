"""Class activation maps (CAM): the places of a picture that contribute to the predicted class.

HiResCAM (Draelos and Carin, arXiv:2011.08891): a late feature map times the gradient of the class's score by it, summed
over the channels; only positive values are shown. For nets that end in a mean over all places it is Grad-CAM (Selvaraju
et al., arXiv:1610.02391), which averages the gradient over the places first; for nets with dense layers, such as
AlexNet and VGG, Grad-CAM may show places that the score does not depend on. A place of the feature map sees a wide part
of the picture, so the map is coarse. It shows where the evidence is, not which property of that place counts.
"""

import cv2
import numpy as np

from tfcompat import tf, upstream

SMALLEST_MAP = 7  # of ResNet, VGG and MobileNet at 224 pixels; fewer places are too coarse
SHOWN_SIDE = 224  # smaller pictures are enlarged
MOST_COLOR = 0.6  # share of the color where the map is 1


def last_map(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The last feature map [N, H, W, C] with at least 7×7 places that the logits are computed from; else the images."""
    needed, last = upstream([logits.op]), images
    for operation in images.graph.get_operations():  # in the order they were built in
        for tensor in operation.outputs if operation in needed else ():
            shape = tensor.shape.as_list() if tensor.shape.rank == 4 else [0]
            # Kernels have four axes, too, but their first one is known.
            if shape[0] is None and None not in shape[1:] and min(shape[1:3]) >= SMALLEST_MAP:
                last = tensor
    return last


def class_activation_map(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """HiResCAM of the most probable class, float32 [N, h, w], 0 to 1; all 0 where nothing contributes to the class.

    The logits [N, classes] are computed from images, preprocessed pictures [N, H, W, C] with N unknown.
    """
    # Relative to the mean of all, which softmax does not see: a sigmoid unit's first class has the constant logit 0.
    score = tf.reduce_max(logits, 1) - tf.reduce_mean(logits, 1)
    activations = last_map(images, logits)
    (gradient,) = tf.gradients(score, activations)
    cam = tf.nn.relu(tf.reduce_sum(gradient * activations, 3))
    return tf.math.divide_no_nan(cam, tf.reduce_max(cam, [1, 2], keepdims=True))


def overlay(image: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """Draws a class activation map, float [h, w], 0 to 1, from blue to red over the net's input, float [H, W, C].

    The lowest value of the input becomes black, its highest white. Returns uint8 [H, W, 3], RGB, or a whole multiple of
    that size.
    """
    low, high = image.min(), image.max()
    picture = (image - low) * (255 / max(high - low, 1e-6))
    picture = np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture
    times = -(-SHOWN_SIDE // max(picture.shape[:2]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    cam = np.clip(cv2.resize(cam, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    colors = cv2.applyColorMap((cam * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    share = MOST_COLOR * cam[..., np.newaxis]
    return np.rint(picture * (1 - share) + colors * share).astype(np.uint8)
