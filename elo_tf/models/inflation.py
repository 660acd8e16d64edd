"""A (2+1)D ResNet-50 that begins as a 2-D ResNet-50: the networks trained on ImageNet.

The 2-D network is that of `keras.applications.ResNet50`: a stride in the first 1 x 1 convolution of
a stage, biases, max-pooling after the stem. Ours has its layers with each k x k convolution split
in two, of which the spatial one holds its kernel and the temporal one copies the frame in its
middle. On a static video it computes what the 2-D network computes on the frame (Carreira and
Zisserman, CVPR 2017, arXiv 1705.07750, which repeats kernels over time instead), also at the
borders of time, where the copy meets no padding.

Between the two halves are batch normalisation and ReLU, which must not change anything. The spatial
half therefore holds each kernel twice, once negated: relu(x) - relu(-x) = x, which the temporal
half puts together. Its batch normalisation standardises with the 2-D network's statistics; the
scale and offset come after the temporal half. So both networks agree with the statistics of a batch
as well, where they are trained. It takes twice the output's channels: the rule of `middle_width`
gives 2.25 times in the bottlenecks, but 83 for the stem's 64, whose middle is 128 here. What is
left over is drawn, and weighs nothing at first.

The 2-D network wants colours of 0 to 255 in the order BGR, less their ImageNet means, and pads that
with zeros. Order and unit go into the stem's kernel; the means cannot, since the padding must come
after them, and are a layer of their own.
"""

import os

import gin
import numpy as np
import tensorflow as tf

from elo_tf import errors
from elo_tf.models import normalization
from elo_tf.models.convolution import FactorisedConv3D
from elo_tf.models.video_resnet import EXPANSION, STAGE_WIDTHS, UNITS, middle_width
from elo_tf.views.clip_views import RGB_MEAN, RGB_SCALE

layers = tf.keras.layers

EPSILON = 1.001e-5  # of keras.applications' batch normalisation
BGR_MEANS = (103.939, 116.779, 123.68)  # of ImageNet's colours
STEM = STAGE_WIDTHS[0]
IMAGENET = "imagenet"


def _conv(x, filters, kernel, strides, name, padding="same"):
    return FactorisedConv3D(filters, kernel, strides, padding=padding, use_bias=False,
                            kernel_initializer="he_normal", name=name)(x)


def _norm(x, name):
    return normalization.batch_norm(f"{name}_norm", epsilon=EPSILON)(x)


def _norm_relu(x, name):
    return layers.ReLU(name=f"{name}_relu")(_norm(x, name))


def _unit(x, filters, stride, first, name, output_name):
    """A bottleneck that strides over space in its first convolution, over time in its second."""
    shortcut = x
    if first:
        shortcut = _conv(x, EXPANSION * filters, 1, stride, f"{name}_shortcut")
        shortcut = _norm(shortcut, f"{name}_shortcut")
    x = _norm_relu(_conv(x, filters, 1, (1, stride, stride), f"{name}_conv1"), f"{name}_conv1")
    conv2 = f"{name}_conv2"
    x = _conv(x, middle_width(filters, filters), (1, 3, 3), 1, f"{conv2}_spatial")
    x = _norm_relu(x, f"{conv2}_spatial")
    x = _norm_relu(_conv(x, filters, (3, 1, 1), (stride, 1, 1), f"{conv2}_temporal"), conv2)
    x = _norm(_conv(x, EXPANSION * filters, 1, 1, f"{name}_conv3"), f"{name}_conv3")
    return layers.ReLU(name=output_name)(layers.Add(name=f"{name}_add")([x, shortcut]))


@gin.register
def inflated_resnet50(channels: int = 3, *, weights: str | None = IMAGENET,
                      name: str = "rgb") -> tf.keras.Model:
    """Builds the network for clips of any length and size.

    Space is halved in the stem, by its pooling and at the start of stages 2, 3 and 4, where time
    is too.

    Args:
      channels: of the input: 3, RGB.
      weights: "imagenet", which Keras downloads; the path of a file with the weights of
        `keras.applications.ResNet50(include_top=False)`; or None, to draw all.
      name: of the model.

    Returns:
      A model from float32 [B, T, H, W, 3] to a dict of `block1` .. `block4`, the activations
      [B, t, h, w, c] after each stage, and `embedding`, float32 [B, 2048], the mean of `block4`
      over time and space.

    Raises:
      UserError: if the input is not RGB, or the weights are not to be had or of another network.
    """
    if channels != 3:
        raise errors.UserError(f"inflated_resnet50 is for RGB, of 3 channels, not for {channels}; "
                               "give video_encoder for other modalities")
    inputs = layers.Input((None, None, None, channels), name="frames")
    means = (RGB_MEAN - np.array(BGR_MEANS[::-1]) / 255) / RGB_SCALE
    x = layers.Rescaling(1.0, means.tolist(), name="means")(inputs)
    x = layers.ZeroPadding3D((0, 3, 3), name="stem_pad")(x)
    x = _conv(x, 2 * STEM, (1, 7, 7), (1, 2, 2), "stem_spatial", padding="valid")
    x = _norm_relu(x, "stem_spatial")
    x = _norm_relu(_conv(x, STEM, (3, 1, 1), 1, "stem_temporal"), "stem")
    x = layers.ZeroPadding3D((0, 1, 1), name="pool_pad")(x)
    x = layers.MaxPool3D((1, 3, 3), (1, 2, 2), name="pool")(x)
    outputs = {}
    for stage, (filters, units) in enumerate(zip(STAGE_WIDTHS, UNITS[50], strict=True), start=1):
        for unit in range(1, units + 1):
            unit_name = f"block{stage}_unit{unit}"
            stride = 2 if stage > 1 and unit == 1 else 1
            output_name = f"block{stage}" if unit == units else f"{unit_name}_out"
            x = _unit(x, filters, stride, unit == 1, unit_name, output_name)
        outputs[f"block{stage}"] = x
    outputs["embedding"] = layers.GlobalAveragePooling3D(name="embedding", dtype="float32")(x)
    model = tf.keras.Model(inputs, outputs, name=name)
    if weights is not None:
        inflate(model, load_resnet50(weights))
    return model


def load_resnet50(weights: str) -> tf.keras.Model:
    """The 2-D network, without its last layer.

    Args:
      weights: "imagenet" or the path of a file.

    Raises:
      UserError: if they cannot be loaded.
    """
    if weights != IMAGENET and not os.path.isfile(weights):
        raise errors.UserError(f"inflated_resnet50.weights: no file {weights}; it holds the "
                               "weights of keras.applications.ResNet50(include_top=False)")
    with tf.device("CPU"):
        if weights != IMAGENET:
            network = tf.keras.applications.ResNet50(include_top=False, weights=None)
            try:
                network.load_weights(weights)
            except (ValueError, OSError, KeyError) as error:
                raise errors.UserError(
                    f"inflated_resnet50.weights: {weights} does not hold the weights of "
                    "keras.applications.ResNet50(include_top=False) "
                    f"({str(error).splitlines()[0]})") from error
            return network
        try:
            return tf.keras.applications.ResNet50(include_top=False, weights=IMAGENET)
        except Exception as error:  # Keras raises nothing narrower where it cannot download.
            raise errors.UserError(
                "inflated_resnet50.weights is 'imagenet', but Keras could not download them; give "
                f"the path of a file that holds them ({str(error).splitlines()[0]})") from error


def inflate(model: tf.keras.Model, image_network: tf.keras.Model) -> None:
    """Gives the (2+1)D network the weights of the 2-D one.

    Args:
      model: of `inflated_resnet50`.
      image_network: a `keras.applications.ResNet50`.
    """
    convolution = _Convolution(image_network, "conv1")
    convolution.kernel = convolution.kernel[:, :, ::-1] * (255 * RGB_SCALE)
    convolution.split_into(model, "stem")
    for stage, units in enumerate(UNITS[50], start=1):
        for unit in range(1, units + 1):
            ours, theirs = f"block{stage}_unit{unit}", f"conv{stage + 1}_block{unit}"
            _Convolution(image_network, f"{theirs}_1").copy_into(model, f"{ours}_conv1")
            _Convolution(image_network, f"{theirs}_2").split_into(model, f"{ours}_conv2")
            _Convolution(image_network, f"{theirs}_3").copy_into(model, f"{ours}_conv3")
            if unit == 1:
                _Convolution(image_network, f"{theirs}_0").copy_into(model, f"{ours}_shortcut")


class _Convolution:
    """A 2-D convolution and its batch normalisation; the bias is in the mean."""

    def __init__(self, network: tf.keras.Model, name: str):
        self.kernel, bias = network.get_layer(f"{name}_conv").get_weights()
        self.gamma, self.beta, mean, self.variance = network.get_layer(f"{name}_bn").get_weights()
        self.mean = mean - bias

    def copy_into(self, model: tf.keras.Model, name: str) -> None:
        """Sets a convolution of one cell."""
        model.get_layer(name).set_weights([self.kernel[np.newaxis]])
        model.get_layer(f"{name}_norm").set_weights(
            [self.gamma, self.beta, self.mean, self.variance])

    def split_into(self, model: tf.keras.Model, name: str) -> None:
        """Sets the two halves of a factorised convolution."""
        spatial, temporal = (model.get_layer(f"{name}_{half}") for half in ("spatial", "temporal"))
        signed = self.kernel.shape[-1] * 2
        kernel, = spatial.get_weights()
        kernel[..., :signed] = np.concatenate([self.kernel, -self.kernel], -1)
        spatial.set_weights([kernel])
        norm = model.get_layer(f"{name}_spatial_norm")
        gamma, beta, mean, variance = norm.get_weights()
        mean[:signed] = np.concatenate([self.mean, -self.mean])
        variance[:signed] = np.tile(self.variance, 2)
        norm.set_weights([gamma, beta, mean, variance])

        copies = np.zeros_like(temporal.get_weights()[0])
        identity = np.eye(self.kernel.shape[-1])
        copies[1, 0, 0, :signed] = np.concatenate([identity, -identity])
        temporal.set_weights([copies])
        # What comes here has a mean of zero and a variance of one.
        ones = np.ones_like(self.variance)
        model.get_layer(f"{name}_norm").set_weights(
            [self.gamma, self.beta, 0 * ones, ones - EPSILON])
