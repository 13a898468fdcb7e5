"""Which places of a picture spoke for the class that a net chose: HiResCAM (Draelos and Carin, arXiv:2011.08891).

A late feature map times the gradient of the class's score by it, summed over the channels; what is positive is shown.
Of nets that end in a mean over all places it is Grad-CAM (Selvaraju et al., arXiv:1610.02391), which averages the
gradient over the places first; of nets with dense layers, such as AlexNet and VGG, Grad-CAM may point to places that
the score does not depend on. A place of the map sees a wide part of the picture, so the heat is coarse, and it says
where evidence lies, not which property of that place counts.
"""

import cv2
import numpy as np

from tfcompat import tf

SMALLEST_MAP = 7  # what ResNet, VGG and MobileNet end with at 224 pixels; fewer places tell little
SHOWN_SIDE = 224  # smaller pictures are enlarged, so that there is something to see
HOTTEST = 0.6  # share of the colour where the heat is 1


def last_map(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """The last feature map [N, H, W, C] that the logits come from with at least 7×7 places; else the pictures."""
    seen, waiting = {logits.op}, [logits.op]
    while waiting:
        for tensor in waiting.pop().inputs:
            if tensor.op not in seen:
                seen.add(tensor.op)
                waiting.append(tensor.op)
    operations = images.graph.get_operations()  # in the order they were built in
    maps = [tensor for operation in operations if operation in seen for tensor in operation.outputs if _is_map(tensor)]
    return maps[-1] if maps else images


def _is_map(tensor: tf.Tensor) -> bool:
    shape = tensor.shape.as_list() if tensor.shape.rank == 4 else [0]
    # Kernels have four axes, too, but a known first one.
    return shape[0] is None and None not in shape[1:] and min(shape[1:3]) >= SMALLEST_MAP


def heat(images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """HiResCAM of the most probable class.

    Args:
        images: preprocessed pictures [N, H, W, C], N unknown, that the graph of the logits begins with.
        logits: [N, classes].

    Returns:
        float32 [N, h, w], 0 to 1; all 0 where nothing speaks for the class.
    """
    # Beside the mean of all, which softmax does not see: a sigmoid unit's first class has the constant logit 0.
    score = tf.reduce_max(logits, 1) - tf.reduce_mean(logits, 1)
    activations = last_map(images, logits)
    (gradient,) = tf.gradients(score, activations)
    found = tf.nn.relu(tf.reduce_sum(gradient * activations, 3))
    return tf.math.divide_no_nan(found, tf.reduce_max(found, [1, 2], keepdims=True))


def overlay(image: np.ndarray, hot: np.ndarray) -> np.ndarray:
    """The heat, from blue to red, over the picture as the net sees it.

    Args:
        image: float [H, W, C] of any range; its lowest value becomes black, its highest white.
        hot: float [h, w], 0 to 1.

    Returns:
        uint8 [H, W, 3], RGB, or a whole multiple of that size.
    """
    low, high = image.min(), image.max()
    picture = (image - low) * (255 / max(high - low, 1e-6))
    picture = np.repeat(picture, 3, 2) if picture.shape[2] == 1 else picture
    times = -(-SHOWN_SIDE // max(picture.shape[:2]))
    picture = picture.repeat(times, 0).repeat(times, 1)
    hot = np.clip(cv2.resize(hot, picture.shape[1::-1], interpolation=cv2.INTER_CUBIC), 0, 1)
    colours = cv2.applyColorMap((hot * 255).astype(np.uint8), cv2.COLORMAP_JET)[..., ::-1]
    share = HOTTEST * hot[..., np.newaxis]
    return np.rint(picture * (1 - share) + colours * share).astype(np.uint8)
