"""The encoder of sound: keras-cv's 2-D ResNet on the log-mel spectrogram."""

from collections.abc import Sequence

import gin
import tensorflow as tf

from elo_tf import errors
from elo_tf.models import normalization

# keras-cv gives the stem this width and the first stage of basic blocks no projection.
FIRST_WIDTH = 64


@gin.register
def audio_encoder(
    mel_bins: int,
    *,
    filters: Sequence[int] = (64, 128, 256, 512),
    blocks: Sequence[int] = (2, 2, 2, 2),
    name: str = "audio",
) -> tf.keras.Model:
    """Builds a ResNet of basic blocks for log-mel spectrograms of any length.

    The paper draws the audio network but does not describe it; this one is our choice. The
    outputs have the names of `video_encoder`'s, so that the same sites can be distilled.

    Args:
        mel_bins: height M of the spectrogram.
        filters: widths of the four stages; the first must be 64, as keras-cv's stem is.
        blocks: residual blocks of each stage; (2, 2, 2, 2) is ResNet-18.
        name: of the model.

    Returns:
        A model from float32 [B, F, M, 1] to a dict of `block1` .. `block4`, the activations
        [B, f, m, c] after each stage, and `embedding`, float32 [B, D], the mean of `block4`.

    Raises:
        UserError: if keras-cv cannot build the stages asked for.
    """
    if len(filters) != 4 or len(blocks) != 4 or min(blocks) < 1:
        raise errors.UserError(
            f"audio_encoder.filters = {tuple(filters)}, blocks = {tuple(blocks)}: "
            "give four widths and four counts of at least 1"
        )
    if filters[0] != FIRST_WIDTH:
        raise errors.UserError(
            f"audio_encoder.filters = {tuple(filters)}: the first width must be {FIRST_WIDTH}, "
            "which keras-cv's ResNet fixes"
        )
    import keras_cv  # here, because it takes more than a second

    backbone = keras_cv.models.ResNetBackbone(
        stackwise_filters=list(filters),
        stackwise_blocks=list(blocks),
        stackwise_strides=[1, 2, 2, 2],
        include_rescaling=False,
        input_shape=(None, mel_bins, 1),
        block_type="basic_block",
    )
    levels = backbone.pyramid_level_inputs
    outputs = {
        f"block{stage}": backbone.get_layer(levels[f"P{stage + 1}"]).output
        for stage in range(1, 5)
    }
    pool = tf.keras.layers.GlobalAveragePooling2D(name="embedding", dtype="float32")
    outputs["embedding"] = pool(outputs["block4"])
    plain = tf.keras.Model(backbone.input, outputs, name=name)
    return tf.keras.models.clone_model(plain, clone_function=_with_our_norm)


def _with_our_norm(layer: tf.keras.layers.Layer) -> tf.keras.layers.Layer:
    """A copy of the layer; batch normalisation becomes ours (synchronised, short memory)."""
    if isinstance(layer, tf.keras.layers.BatchNormalization):
        return normalization.batch_norm(layer.name)
    return layer.__class__.from_config(layer.get_config())
