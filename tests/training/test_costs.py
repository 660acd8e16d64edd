"""What a step costs, against counts made by hand from lists of layers."""

import math

import numpy as np
import pytest
import tensorflow as tf

from elo_tf.data.clip_spec import ClipSpec
from elo_tf.models.video_resnet import STAGE_WIDTHS, UNITS, middle_width, video_encoder
from elo_tf.training import costs
from elo_tf.training.optimization import create_slots, make_optimizer
from elo_tf.views.clip_views import ClipViews

layers = tf.keras.layers
F32 = 4


def traced(function, *shapes):
    return tf.function(function, autograph=False).get_concrete_function(
        *(tf.TensorSpec(shape) for shape in shapes))


def step_of(net):
    """The gradient of a mean square in all variables of a network."""
    def step(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(net(x)))
        return tape.gradient(loss, net.trainable_variables)
    return step


CONVOLUTIONS = [
    # layer, input without the batch, FLOPs an example: 2 x output cells x kernel cells x widths
    (layers.Conv3D(5, (3, 2, 4), padding="valid"), (6, 7, 8, 3), 2 * (4 * 6 * 5) * 24 * 3 * 5),
    (layers.Conv3D(5, 3, strides=(1, 2, 2), padding="same"), (6, 7, 8, 3),
     2 * (6 * 4 * 4) * 27 * 3 * 5),
    (layers.Conv2D(5, (3, 2), padding="valid"), (7, 8, 3), 2 * (5 * 7) * 6 * 3 * 5),
    (layers.Conv2D(4, 3, strides=2, padding="same"), (7, 8, 6), 2 * (4 * 4) * 9 * 6 * 4),
    (layers.DepthwiseConv2D((3, 2), depth_multiplier=2), (7, 8, 3), 2 * (5 * 7) * 6 * 3 * 2),
    (layers.Dense(11), (7,), 2 * 7 * 11),
    # A transposed convolution multiplies at each cell of its input.
    (layers.Conv3DTranspose(5, 4, strides=2, padding="same"), (2, 3, 3, 3),
     2 * (2 * 3 * 3) * 64 * 3 * 5),
    (layers.Conv2DTranspose(5, 4, strides=2, padding="same"), (3, 3, 3),
     2 * (3 * 3) * 16 * 3 * 5),
]


@pytest.mark.parametrize("layer, shape, flops", CONVOLUTIONS,
                         ids=[f"{x.__class__.__name__}{i}" for i, (x, *_) in
                              enumerate(CONVOLUTIONS)])
def test_a_layer_and_its_gradients_cost_what_the_formula_says(layer, shape, flops):
    batch = 3
    # Behind another, so that the gradient in the layer's input is asked for too: it costs as much
    # as the layer, and that in the weights again.
    scale = layers.Lambda(lambda x: x)
    scale.factor = tf.Variable(1.0)
    scale.function = lambda x: x * scale.factor
    net = tf.keras.Sequential([layers.Input(shape), scale, layer])
    found = costs.count_costs(traced(step_of(net), (batch, *shape)))
    assert found.flops_forward == batch * flops
    assert found.flops_backward == 2 * batch * flops
    first = tf.keras.Sequential([layers.Input(shape), layer])
    found = costs.count_costs(traced(step_of(first), (batch, *shape)))
    assert found.flops_backward == batch * flops


def test_matrix_products_and_einsum():
    def products(a, b, c):
        left = tf.matmul(a, b, transpose_a=True)  # [2, 5, 7]: inner 3
        right = tf.einsum("bij,...jk->b...ik", left, c)  # labels b i j k and one of "..."
        return right, tf.einsum("bij->bi", left), tf.matmul(c[0], c[0], transpose_b=True)

    found = costs.count_costs(traced(products, (2, 3, 5), (2, 3, 7), (4, 7, 6)))
    assert found.flops_by_type == {"BatchMatMulV2": 2 * 2 * 5 * 7 * 3,
                                   "Einsum": 2 * 2 * 5 * 7 * 6 * 4, "MatMul": 2 * 7 * 7 * 6}
    assert found.flops_backward == 0


def closed_form_macs(frames, size, depth, middle, channels=3):
    """Multiply-adds of an R(2+1)D network, from the paper's table and not from any graph.

    Args:
      middle: (inputs, outputs, the unit's inputs and outputs) -> width between the two halves.
    """
    def halved(n):
        return math.ceil(n / 2)

    def conv(cells, kernel, inputs, outputs):
        return math.prod(cells) * kernel * inputs * outputs

    cells = (frames, halved(size), halved(size))
    total = conv(cells, 49, channels, 45) + conv(cells, 3, 45, 64)
    width = 64
    for stage, (filters, units) in enumerate(zip(STAGE_WIDTHS, UNITS[depth], strict=True)):
        for unit in range(units):
            t, h, w = cells
            strided = stage > 0 and unit == 0
            space = (t, halved(h), halved(w)) if strided else cells
            after = tuple(map(halved, cells)) if strided else cells
            outputs = filters * (4 if depth == 50 else 1)
            if strided or width != outputs:
                total += conv(after, 1, width, outputs)
            if depth == 50:
                m = middle(filters, filters, width, filters)
                total += conv(cells, 1, width, filters) + conv(space, 9, filters, m)
                total += conv(after, 3, m, filters) + conv(after, 1, filters, outputs)
            else:
                m = middle(width, filters, width, filters)
                total += conv(space, 9, width, m) + conv(after, 3, m, filters)
                m = middle(filters, filters, width, filters)
                total += conv(after, 9, filters, m) + conv(after, 3, m, filters)
            width, cells = outputs, after
    return total


def test_the_closed_form_is_the_published_count_of_torchvision():
    # R2Plus1D_18_Weights: 40.519 GMACs at 16 x 112 x 112, with one width between the halves a unit
    # and a classifier of 400.
    macs = closed_form_macs(16, 112, 18, lambda _i, _o, unit_in, unit_out: middle_width(
        unit_in, unit_out)) + 512 * 400
    assert macs / 1e9 == pytest.approx(40.519, abs=5e-4)


@pytest.mark.parametrize("depth, frames, size", [(18, 16, 112), (50, 32, 224)])
def test_the_graph_of_our_network_costs_the_closed_form(depth, frames, size):
    net = video_encoder(3, depth=depth)
    found = costs.count_costs(traced(
        lambda x: net(x, training=True)["embedding"], (2, frames, size, size, 3)))
    ours = closed_form_macs(frames, size, depth, lambda i, o, *_: middle_width(i, o))
    assert found.flops == found.flops_forward == 2 * 2 * ours
    numbers, size_in_bytes = costs.count_variables(net.trainable_variables)
    assert numbers == net.count_params() - sum(
        math.prod(v.shape) for v in net.non_trainable_variables)
    assert size_in_bytes == F32 * numbers


def test_activations_of_three_layers():
    net = tf.keras.Sequential([
        layers.Input((10,)), layers.Dense(20, "relu"), layers.Reshape((4, 5)), layers.Flatten(),
        layers.Dense(30, "relu"), layers.Dense(5)])
    found = costs.count_costs(traced(step_of(net), (7, 10)))
    # The two ReLUs' outputs, each read by the next layer's gradient and its own, once; and the
    # square's input. The batch itself and the weights are no activations.
    assert found.activation_bytes == F32 * 7 * (20 + 30 + 5)
    # The most is alive when the gradient in the second layer's weights is there: the first ReLU's
    # output, the gradients of both sides of the second, and those of all variables so far.
    gradients = 20 * 30 + 30 + 30 * 5 + 5
    assert found.peak_bytes == F32 * (7 * (20 + 30 + 20) + gradients)


def test_bytes_moved_of_hand_counted_operations():
    variable = tf.Variable(tf.zeros([6]))

    def work(x):
        y = tf.reshape(x * 2.0, [6])  # reads 6 and a constant, writes 6
        variable.assign(y + variable)  # reads 12, writes 6; the assignment reads 6 and writes 6
        return tf.cast(y, tf.bfloat16)  # reads 6, writes 6 of two bytes
    found = costs.count_costs(traced(work, (2, 3)))
    assert found.bytes_forward == F32 * (6 + 1 + 6 + 12 + 6 + 6) + 2 * 6
    assert found.bytes_update == F32 * 12
    assert found.bytes_backward == 0 and found.intensity == 0


def test_nested_functions_loops_and_branches_are_counted():
    weight = tf.Variable(tf.ones([8, 8]))
    product = tf.function(lambda x: tf.nn.relu(x @ weight), autograph=False)
    flops = 2 * 3 * 8 * 8

    def called(x):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(product(product(x)))
        return tape.gradient(loss, weight)
    found = costs.count_costs(traced(called, (3, 8)))
    assert found.flops_forward == 2 * flops
    assert found.flops_backward == 3 * flops  # the batch needs no gradient
    # The outputs of both calls, not the weight that they give back for the gradient.
    assert found.activation_bytes == F32 * 2 * 3 * 8

    def repeated(x):
        with tf.GradientTape() as tape:
            _, y = tf.while_loop(lambda i, _: i < 5, lambda i, y: (i + 1, product(y)), (0, x))
            loss = tf.reduce_sum(y)
        return tape.gradient(loss, weight)
    found = costs.count_costs(traced(repeated, (3, 8)))
    assert found.flops_forward == 5 * flops
    assert found.flops_backward == 2 * 5 * flops  # a loop's gradient takes every round's
    # Every round's input and output: the loop does not know that they are the same.
    assert found.activation_bytes >= F32 * 5 * 3 * 8

    def either(x):
        return tf.cond(tf.reduce_sum(x) > 0, lambda: product(product(x)), lambda: product(x))
    assert costs.count_costs(traced(either, (3, 8))).flops == 2 * flops


def test_recomputation_costs_a_forward_pass_and_keeps_less():
    net = [tf.keras.Sequential([layers.Input((16,)), layers.Dense(64, "relu"), layers.Dense(16)])
           for _ in range(4)]

    def step(wrap):
        def run(x):
            with tf.GradientTape() as tape:
                for unit in net:
                    x = wrap(unit)(x)
                loss = tf.reduce_mean(tf.square(x))
            return tape.gradient(loss, [v for unit in net for v in unit.trainable_variables])
        return costs.count_costs(traced(run, (32, 16)))
    plain, again = step(lambda unit: unit), step(tf.recompute_grad)
    assert again.flops_forward == plain.flops_forward
    product = 2 * 32 * 16 * 64
    assert plain.flops_backward == (4 * 4 - 1) * product
    # A unit's last product is not needed for its gradient; TensorFlow's recomputation takes the
    # gradient in the batch too.
    assert again.flops_backward == plain.flops_backward + (4 + 1) * product
    assert plain.activation_bytes == F32 * 32 * (4 * 64 + 4 * 16)
    assert again.activation_bytes == F32 * 32 * 4 * 16
    assert again.peak_bytes < plain.peak_bytes


def test_unknown_shapes_rounds_and_arithmetic_are_named():
    net = video_encoder(1, depth=10, width=0.0625)
    unknown = tf.function(lambda x: net(x)["embedding"]).get_concrete_function(
        tf.TensorSpec([None, 4, 16, 16, 1]))
    with pytest.raises(ValueError, match="stem_spatial.*static shapes"):
        costs.count_costs(unknown)
    endless = traced(lambda x: tf.while_loop(
        lambda y: tf.reduce_sum(y) < 9.0, lambda y: (y @ y,), (x,)), (2, 2))
    with pytest.raises(ValueError, match="while: how often"):
        costs.count_costs(endless)
    sparse = traced(lambda x: tf.sparse.sparse_dense_matmul(tf.sparse.eye(4), x), (4, 2))
    with pytest.raises(ValueError, match="SparseTensorDenseMatMul is not counted"):
        costs.count_costs(sparse)


def test_the_whole_step_is_counted(make_tiny_model, make_tiny_batch, tiny_clip):
    model = make_tiny_model()
    model.compile(optimizer=make_optimizer(10))
    create_slots(model.optimizer, model.trainable_variables)
    signature = costs.batch_signature(tiny_clip, 8, model.modalities, model.needs_other)
    batch = make_tiny_batch()
    assert {k: (v.shape, v.dtype) for k, v in signature.items()} == {
        k: (np.shape(v), tf.as_dtype(v.dtype)) for k, v in batch.items()}

    usual = ClipViews.always_present
    found = costs.count_costs(costs.trace_step(model, signature))
    assert ClipViews.always_present is usual  # another only while it was traced
    # Each encoder takes its views of 8 clips, and each decoder their embeddings.
    encoders = sum(
        costs.count_costs(traced(
            lambda x, e=encoder: e(x, training=True)["embedding"],
            (8 * views, *((16, 16, 1) if m == "audio" else (4, 16, 16, channels))))).flops
        for m, views, channels, encoder in [
            (m, 3 if m == "gray" else 4, {"rgb": 3, "flow": 2}.get(m, 1), e)
            for m, e in model.encoders.items()])
    decoders = sum(
        costs.count_costs(traced(task.decoder, (8, *task.decoder.input_shape[1:]))).flops
        for task in model.tasks if hasattr(task, "decoder"))
    assert 0 < decoders < encoders
    # The rest are classifiers, projections and the mel filterbank.
    assert 1 < found.flops_forward / (encoders + decoders) < 1.1
    assert 1.5 < found.flops_backward / found.flops_forward < 2
    assert 0 < found.activation_bytes < found.peak_bytes
    slots = sum(math.prod(v.shape) for v in model.optimizer.variables()[1:])
    assert found.bytes_update > F32 * (2 * slots)


def test_the_signature_is_that_of_the_reader(tiny_clip):
    clip = ClipSpec(frames=4, next_frames=2, size=16, host_size=20)
    signature = costs.batch_signature(clip, 2, ("rgb",), other=False)
    assert signature["rgb"].shape == (2, 6, 20, 20, 3)
    assert set(signature) == {"rgb", "index", "key", "label"}
