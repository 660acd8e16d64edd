"""Every one of the forty losses against NumPy, from activations, views and the head's variables."""

import numpy as np
import pytest

from elo_tf.losses import LossSpace

TRANSFER = {"rgb": "flow", "flow": "rgb", "gray": "rgb", "audio": "rgb"}
CONTRAST = {"rgb": "flow", "flow": "audio", "gray": "audio", "audio": "rgb"}
ALIGN = {"rgb": "audio", "flow": "rgb", "gray": "flow", "audio": "flow"}
LN2 = 0.69314718


def has(measured, *keys):
    return np.logical_and.reduce([measured.present[key] for key in keys])


def decoding(measured, task, modality, target, stride):
    """Loss, trivial and mask of a decoder; the decoded tensor is the head's own."""
    video = measured.views[target].astype(np.float64)
    if target[0] != "audio":
        examples, frames, height, width, channels = video.shape
        video = video.reshape(
            examples, frames, height // stride, stride, width // stride, stride, channels)
        video = video.mean((3, 5))
    decoded = task.decoder(measured.activations[modality, "intact", "embedding"]).numpy()
    assert decoded.shape == video.shape
    loss = ((video - decoded) ** 2).reshape(len(video), -1).mean(1)
    trivial = (video**2).reshape(len(video), -1).mean(1)  # of the answer 0, the mean video
    return loss, trivial, has(measured, (modality, "intact"), target)


def dense(layer, x):
    weights = [w.numpy().astype(np.float64) for w in layer.weights]
    return x.astype(np.float64) @ weights[0] + (weights[1] if len(weights) > 1 else 0.0)


def cross_entropy(logit, label):
    probability = 1 / (1 + np.exp(-logit))
    return -np.log(probability if label else 1 - probability)


def ordering(measured, task, modality, view):
    intact, rearranged = (
        dense(task.classifier, measured.activations[modality, v, "embedding"])[:, 0]
        for v in ("intact", view))
    loss = (cross_entropy(intact, 0) + cross_entropy(rearranged, 1)) / 2
    return loss, np.full(len(loss), LN2), has(measured, (modality, "intact"))


def contrast(measured, task, modality, partner):
    def project(layer, m):
        x = dense(layer, measured.activations[m, "intact", "embedding"])
        return x / np.sqrt((x**2).sum(1, keepdims=True) + 1e-6)

    anchor = project(task.anchor_projection, modality)
    other = project(task.partner_projection, partner)
    mask = has(measured, (modality, "intact"), (partner, "intact"))
    loss = np.zeros(len(mask))
    for i in np.flatnonzero(mask):
        distances = np.sqrt(((anchor[i] - other) ** 2).sum(1) + 1e-6)
        far = [max(1.0 - distances[j], 0) ** 2 for j in np.flatnonzero(mask) if j != i]
        loss[i] = distances[i] ** 2 + (np.mean(far) if far else 0.0)
    return loss, np.ones(len(mask)), mask


def align(measured, task, modality, partner):
    def logit(i, feature):
        pair = np.concatenate([measured.activations[modality, "intact", "embedding"][i], feature])
        return dense(task.classifier, np.maximum(dense(task.hidden, pair), 0))[0]

    intact = measured.activations[partner, "intact", "embedding"]
    elsewhere = measured.activations[partner, "other_time", "embedding"]
    both = has(measured, (modality, "intact"), (partner, "intact"))
    time = both & measured.present[partner, "other_time"]
    loss, mask = np.zeros(len(both)), np.zeros(len(both), bool)
    for i in np.flatnonzero(both):
        following = [j % len(both) for j in range(i + 1, i + len(both)) if both[j % len(both)]]
        negatives = [intact[following[0]]] if following else []
        negatives += [elsewhere[i]] if time[i] else []
        if negatives:
            mask[i] = True
            loss[i] = (cross_entropy(logit(i, intact[i]), 1)
                       + np.mean([cross_entropy(logit(i, n), 0) for n in negatives])) / 2
    return loss, np.full(len(loss), LN2), mask


def distill(measured, task, source, site):
    main = measured.activations["rgb", "intact", site].astype(np.float64)
    teacher = measured.activations[source, "intact", site]
    if teacher.shape[1] != main.shape[1]:
        main = dense(task.projection, main)
    else:
        assert task.projection is None
    mask = has(measured, (source, "intact"))
    loss = np.linalg.norm(teacher - main, axis=1)
    deviation = np.linalg.norm(teacher - teacher[mask].mean(0), axis=1)
    return loss, np.maximum(deviation, 0.1 * np.linalg.norm(teacher, axis=1)), mask


def expected(measured, task):
    first, kind, *rest = task.name.split("/")
    if first == "distill":
        return distill(measured, task, kind, rest[0])
    if kind == "reconstruct":
        return decoding(measured, task, first, (first, "intact"), 2)
    if kind == "predict":
        return decoding(measured, task, first, (first, "next"), 2)
    if kind == "transfer":
        stride = 4 if first == "audio" else 2
        return decoding(measured, task, first, (TRANSFER[first], "intact"), stride)
    if kind in ("shuffle", "reverse"):
        return ordering(measured, task, first, f"{kind}d" if kind == "reverse" else "shuffled")
    if kind == "contrast":
        return contrast(measured, task, first, CONTRAST[first])
    return align(measured, task, first, ALIGN[first])


@pytest.mark.parametrize("name", LossSpace().names)
def test_value(name, model, measured):
    loss, trivial, mask = expected(measured, model.tasks[model.names.index(name)])
    output = measured.outputs[name]
    np.testing.assert_array_equal(output.mask, mask)
    assert 0 < mask.sum() <= len(mask)
    np.testing.assert_allclose(output.loss[mask], loss[mask], rtol=2e-4, atol=1e-5)
    np.testing.assert_allclose(output.trivial[mask], trivial[mask], rtol=2e-4, atol=1e-5)
    share = loss[mask].mean() / max(trivial[mask].mean(), 1e-3)
    np.testing.assert_allclose(measured.shares[name], share, rtol=5e-4, atol=1e-5)
    assert measured.counts[name] == mask.sum()


@pytest.mark.parametrize("modality", ("rgb", "flow", "gray", "audio"))
def test_activations_are_the_encoder_on_present_views_together(modality, model, measured):
    views = model._views[modality]
    rows = {v: np.flatnonzero(measured.present[modality, v]) for v in views}
    joined = np.concatenate([measured.views[modality, v][rows[v]] for v in views])
    if modality == "audio":
        joined = joined[..., np.newaxis]
    outputs = model.encoders[modality](joined, training=True)
    for site in ("block1", "block2", "block3", "embedding"):
        values = outputs[site].numpy()
        values = values.mean(tuple(range(1, values.ndim - 1)))
        parts = np.split(values, np.cumsum([len(rows[v]) for v in views])[:-1])
        for view, part in zip(views, parts, strict=True):
            activation = measured.activations[modality, view, site]
            np.testing.assert_allclose(activation[rows[view]], part, rtol=1e-3, atol=1e-4)
            absent = np.setdiff1d(np.arange(len(activation)), rows[view])
            assert not activation[absent].any()
