"""What reads an embedding: decoders to frames and spectrograms, and the classifier.

The paper does not give the heads' sizes. As far as we recollect, its decoders were stacks of
transposed convolutions and its classifiers single fully connected layers; the sizes here are
our choice: a dense layer makes a small seed grid, and each transposed convolution doubles it
and halves its channels until the size asked for is reached. There is no batch normalisation,
so that an example's reconstruction does not depend on the other examples.
"""

import gin
import tensorflow as tf

layers = tf.keras.layers
initializers = tf.keras.initializers

SEED = 4  # the least side of the seed grid in space, mel bins and spectrogram frames
SEED_FRAMES = 2  # the least number of frames in the seed grid of a video
LEAST_CHANNELS = 8
# A decoder starts out as the trivial predictor, whose answer is the mean, 0: where targets are
# small, one that starts with an answer of order 1 loses its hidden units as it unlearns that.
LAST_SCALE = 0.01  # of the variance that keeps that of the input


def _seed_and_doublings(size: int, least: int) -> tuple[int, int]:
    """The seed s >= least (or `size` itself) and n with s * 2^n >= size, s as small as can be."""
    doublings = max(0, (size // least).bit_length() - 1)
    return -(-size // 2**doublings), doublings


def _transposed_stack(sizes, least, channels, width, convolution, cropping, name):
    """A dense seed grid and transposed convolutions to [B, *sizes, channels]."""
    if min(sizes) < 1:
        raise ValueError(f"{name}: cannot decode to a grid of {tuple(sizes)}")
    seed, doublings = zip(
        *(_seed_and_doublings(*pair) for pair in zip(sizes, least, strict=True)), strict=True
    )
    steps = max(1, *doublings)
    model = tf.keras.Sequential(name=name)
    cells = 1
    for side in seed:
        cells *= side
    model.add(layers.Dense(cells * width, "relu", kernel_initializer="he_normal", name="seed"))
    model.add(layers.Reshape((*seed, width), name="grid"))
    for step in range(1, steps + 1):
        # An axis that needs fewer doublings gets them in the last steps: smaller grids before.
        strides = [2 if step > steps - n else 1 for n in doublings]
        kernel = [4 if stride == 2 else 3 for stride in strides]
        last = step == steps
        model.add(
            convolution(
                channels if last else max(LEAST_CHANNELS, width >> step),
                kernel,
                strides,
                padding="same",
                activation=None if last else "relu",
                kernel_initializer=initializers.VarianceScaling(LAST_SCALE, "fan_avg", "uniform")
                if last else "he_normal",
                name=f"up{step}",
            )
        )
    surplus = [s * 2**n - size for s, n, size in zip(seed, doublings, sizes, strict=True)]
    if any(surplus):
        model.add(cropping([(x // 2, x - x // 2) for x in surplus], name="crop"))
    return model


@gin.register
def video_decoder(
    frames: int, size: int, channels: int, *, width: int = 32, name: str = "decoder"
) -> tf.keras.Sequential:
    """Builds a decoder from an embedding to a clip.

    Args:
        frames: T, at least 1.
        size: H and W.
        channels: of the clip.
        width: channels of the seed grid.
        name: of the model.

    Returns:
        A model from float32 [B, D] to float32 [B, frames, size, size, channels], without a last
        activation. Its variables exist after `.build((None, D))`.
    """
    return _with_float_output(
        _transposed_stack(
            (frames, size, size),
            (SEED_FRAMES, SEED, SEED),
            channels,
            width,
            layers.Conv3DTranspose,
            layers.Cropping3D,
            name,
        )
    )


@gin.register
def audio_decoder(
    frames: int, mel_bins: int, *, width: int = 32, name: str = "decoder"
) -> tf.keras.Sequential:
    """Builds a decoder from an embedding to a log-mel spectrogram.

    Args:
        frames: F, at least 1.
        mel_bins: M, at least 1.
        width: channels of the seed grid.
        name: of the model.

    Returns:
        A model from float32 [B, D] to float32 [B, frames, mel_bins], without a last activation.
        Its variables exist after `.build((None, D))`.
    """
    model = _transposed_stack(
        (frames, mel_bins),
        (SEED, SEED),
        1,
        width,
        layers.Conv2DTranspose,
        layers.Cropping2D,
        name,
    )
    model.add(layers.Reshape((frames, mel_bins), name="drop_channel"))
    return _with_float_output(model)


def _with_float_output(model):
    # Under a mixed precision policy losses still want float32.
    model.add(layers.Activation("linear", dtype="float32", name="output"))
    return model


@gin.register
def classifier(classes: int, name: str = "classifier") -> tf.keras.layers.Dense:
    """A single fully connected layer from features to float32 logits [B, classes]."""
    return layers.Dense(classes, dtype="float32", name=name)
