"""The (2+1)D residual network of Tran et al. (CVPR 2018).

"A Closer Look at Spatiotemporal Convolutions for Action Recognition", arXiv 1711.11248. Each 3-D
convolution of t x d x d is split into a spatial one of 1 x d x d and a temporal one of t x 1 x 1,
with batch normalisation and ReLU between them. The width between them is

    M = floor(t d^2 N_in N_out / (d^2 N_in + t N_out))

which keeps the parameters of the 3-D convolution it replaces. We apply the formula to every
convolution, as the paper does; torchvision computes it once per residual unit, from the unit's
own widths, and so has fewer parameters: 31,505,325 for 18 layers and 400 classes, where this
network has 33,370,839 (the paper's "33.3 M"; 33,344,679 of them outside batch normalisation).
"""

import math

import gin
import tensorflow as tf

from elo_tf import errors
from elo_tf.models import normalization
from elo_tf.models.convolution import FactorisedConv3D

layers = tf.keras.layers

# Residual units of each of the four stages; below 50 layers the units are basic, from there on
# bottlenecks. Ten layers (our choice) are for the small proxies of a search.
UNITS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
STAGE_WIDTHS = (64, 128, 256, 512)
STEM_MIDDLE_WIDTH = 45  # the paper's, instead of the formula's 83
EXPANSION = 4  # of a bottleneck


def middle_width(inputs: int, outputs: int, t: int = 3, d: int = 3) -> int:
    """The channels between the two halves of a (2+1)D convolution (CVPR 2018, section 3.5).

    Args:
        inputs: channels before.
        outputs: channels after.
        t: temporal size of the kernel.
        d: spatial size of the kernel.

    Returns:
        The largest width with no more weights than the 3-D convolution; at least 1.
    """
    return max(1, (t * d * d * inputs * outputs) // (d * d * inputs + t * outputs))


def scaled_width(channels: int, width: float) -> int:
    """`channels` times `width`, to the nearest multiple of 4 and at least 4 (our choice)."""
    return max(4, 4 * math.floor(channels * width / 4 + 0.5))


def _conv(x, filters, kernel, strides, name):
    return FactorisedConv3D(
        filters,
        kernel,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _norm_relu(x, name):
    x = normalization.batch_norm(f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _conv_2plus1d(x, filters, stride, name):
    middle = middle_width(x.shape[-1], filters)
    x = _conv(x, middle, (1, 3, 3), (1, stride, stride), f"{name}_spatial")
    x = _norm_relu(x, f"{name}_spatial")
    return _conv(x, filters, (3, 1, 1), (stride, 1, 1), f"{name}_temporal")


def _unit(x, filters, stride, bottleneck, name, output_name):
    """One residual unit, basic or bottleneck; the bottleneck strides in its 3x3x3 convolution."""
    outputs = filters * EXPANSION if bottleneck else filters
    shortcut = x
    if stride > 1 or x.shape[-1] != outputs:
        shortcut = _conv(x, outputs, 1, stride, f"{name}_shortcut")
        shortcut = normalization.batch_norm(f"{name}_shortcut_norm")(shortcut)
    if bottleneck:
        x = _norm_relu(_conv(x, filters, 1, 1, f"{name}_conv1"), f"{name}_conv1")
        x = _norm_relu(_conv_2plus1d(x, filters, stride, f"{name}_conv2"), f"{name}_conv2")
        x = _conv(x, outputs, 1, 1, f"{name}_conv3")
        x = normalization.batch_norm(f"{name}_conv3_norm")(x)
    else:
        x = _norm_relu(_conv_2plus1d(x, filters, stride, f"{name}_conv1"), f"{name}_conv1")
        x = _conv_2plus1d(x, filters, 1, f"{name}_conv2")
        x = normalization.batch_norm(f"{name}_conv2_norm")(x)
    x = layers.Add(name=f"{name}_add")([x, shortcut])
    return layers.ReLU(name=output_name)(x)


@gin.register
def video_encoder(
    channels: int, *, depth: int = 18, width: float = 1.0, name: str = "rgb"
) -> tf.keras.Model:
    """Builds a (2+1)D ResNet for clips of any length and size.

    It is saved with Keras's own layers in place of ours (`training.encoder_files`), so that a saved
    encoder loads without this package.
    Space and time are halved at the start of stages 2, 3 and 4, space also in the stem.

    Args:
        channels: of the input: 3 for RGB, 2 for flow, 1 for gray.
        depth: 10, 18, 34 (basic units) or 50 (bottlenecks).
        width: factor on all widths; see `scaled_width`.
        name: of the model.

    Returns:
        A model from float32 [B, T, H, W, channels] to a dict of `block1` .. `block4`, the
        activations [B, t, h, w, c] after each stage, and `embedding`, float32 [B, D], the mean
        of `block4` over time and space. D is 512 times the width, four times that for depth 50.

    Raises:
        UserError: if there is no network of that depth.
    """
    if depth not in UNITS:
        known = ", ".join(map(str, UNITS))
        raise errors.UserError(f"video_encoder.depth = {depth}: choose one of {known}")
    inputs = layers.Input((None, None, None, channels), name="frames")
    stem_middle = max(4, round(STEM_MIDDLE_WIDTH * width))
    x = _conv(inputs, stem_middle, (1, 7, 7), (1, 2, 2), "stem_spatial")
    x = _norm_relu(x, "stem_spatial")
    x = _conv(x, scaled_width(STAGE_WIDTHS[0], width), (3, 1, 1), 1, "stem_temporal")
    x = _norm_relu(x, "stem_temporal")
    outputs = {}
    for stage, (channels_out, units) in enumerate(
        zip(STAGE_WIDTHS, UNITS[depth], strict=True), start=1
    ):
        filters = scaled_width(channels_out, width)
        for unit in range(1, units + 1):
            unit_name = f"block{stage}_unit{unit}"
            stride = 2 if stage > 1 and unit == 1 else 1
            output_name = f"block{stage}" if unit == units else f"{unit_name}_relu"
            x = _unit(x, filters, stride, depth >= 50, unit_name, output_name)
        outputs[f"block{stage}"] = x
    pool = layers.GlobalAveragePooling3D(name="embedding", dtype="float32")
    outputs["embedding"] = pool(x)
    return tf.keras.Model(inputs, outputs, name=name)
