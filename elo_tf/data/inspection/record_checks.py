"""Checks one record: keys, times, sound and labels here, its pictures in `picture_checks.py`.

An error is what makes a reader fail or learn from something else than what was meant; a warning is
what may be meant so, such as a silent sound track or a key that readers can do without.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf
from google.protobuf import message

from elo_tf.data import melspec, schema
from elo_tf.data.inspection import picture_checks
from elo_tf.data.inspection.record_values import KINDS, MANY, Facts, Findings, Record

SILENT_DB = -60.0
"""Sound of a lower RMS is silence."""

RATE_TOLERANCE = 0.01
"""Share by which timestamps and `image/frame_rate` may disagree (our choice)."""


def check_record(data: bytes, names: Sequence[str] | None = None) -> tuple[Facts, Findings]:
    """Checks a record.

    Args:
      data: the serialised SequenceExample.
      names: the label map, name of label i at place i; None if there is none.

    Returns:
      What the record holds, and what is wrong with it.
    """
    facts, found = Facts(), Findings()
    try:
        record = Record(tf.train.SequenceExample.FromString(data))
    except message.DecodeError as error:
        found.error("proto", f"is not a tf.train.SequenceExample ({error}); convert again")
        return facts, found
    _check_keys(record, found)
    facts.id = _text(record.scalar(schema.EXAMPLE_ID))
    picture_checks.check_frames(record, facts, found)
    picture_checks.check_flow(record, facts, found)
    _check_times(record, facts, found)
    _check_sound(record, facts, found)
    _check_melspec(record, found)
    _check_labels(record, names, facts, found)
    _check_missing(record, facts, found)
    return facts, found


def decibels(rms: float) -> float:
    """Root mean square of samples in [-1, 1] -> dB below full scale; -inf for silence."""
    return 20 * float(np.log10(rms)) if rms > 0 else -float("inf")


def _check_keys(record: Record, found: Findings) -> None:
    """Checks the kind and the number of the values of each context key."""
    for key, kind in KINDS.items():
        values = record.context_values(key)
        if values is None:
            continue
        if record.context_kind(key) != kind:
            found.error("kind", f"{key} is a {record.context_kind(key)}, readers want a {kind}; "
                        "write it as such")
        elif len(values) > 1 and key not in MANY:
            found.error("kind", f"{key} holds {len(values)} values; write one")
        elif kind == "bytes_list":
            for value in values:
                try:
                    value.decode()
                except UnicodeDecodeError:
                    found.warning("utf-8", f"{key} is {value!r}, which is not UTF-8")
                    break


def _check_missing(record: Record, facts: Facts, found: Findings) -> None:
    """One warning for all optional keys that are not there."""
    wanted = [schema.EXAMPLE_ID, schema.IMAGE_FRAME_RATE, schema.IMAGE_HEIGHT, schema.IMAGE_WIDTH]
    wanted += [schema.FLOW_SATURATION] * facts.has_flow
    wanted += [schema.WAVEFORM_SAMPLE_RATE] * facts.has_audio
    missing = [key for key in wanted if record.context_values(key) is None]
    if record.feature_list(schema.IMAGE_TIMESTAMP) is None and facts.frames:
        missing.append(schema.IMAGE_TIMESTAMP)
    if missing:
        found.warning("missing keys", f"lacks {', '.join(missing)}; tell the reader what they "
                      "would say (Records.frame_rate, Records.sample_rate), or convert again")


def _check_times(record: Record, facts: Facts, found: Findings) -> None:
    rate = record.scalar(schema.IMAGE_FRAME_RATE)
    if rate is not None and not 0 < rate < float("inf"):
        found.error("frame rate", f"{schema.IMAGE_FRAME_RATE} is {rate:g}; write the frames a "
                    "second")
    elif rate is not None:
        facts.fps = float(rate)
    flow_rate = record.scalar(schema.FLOW_FRAME_RATE)
    if facts.fps and flow_rate is not None and abs(flow_rate - facts.fps) > 1e-3 * facts.fps:
        found.error("flow rate", f"{schema.FLOW_FRAME_RATE} is {flow_rate:g}, "
                    f"{schema.IMAGE_FRAME_RATE} {facts.fps:g}; flow is stored for each frame")
    for key, pictures in ((schema.IMAGE_TIMESTAMP, facts.frames),
                          (schema.FLOW_TIMESTAMP, facts.flows)):
        _check_timestamps(record, key, pictures, facts.fps, found)
    start, end = record.scalar(schema.START_TIMESTAMP), record.scalar(schema.END_TIMESTAMP)
    if start is not None and end is not None and end <= start:
        found.error("clip times", f"{schema.END_TIMESTAMP} {end} is not after "
                    f"{schema.START_TIMESTAMP} {start}; write both in microseconds")
    elif start is not None and end is not None and facts.seconds:
        length = (end - start) / schema.MICROSECONDS
        if abs(length - facts.seconds) > max(1.5 / facts.fps, 0.05 * facts.seconds):
            found.warning("clip times", f"the clip lasts {length:g} s by its start and end, and "
                          f"{facts.seconds:g} s by its frames")


def _check_timestamps(record: Record, key: str, pictures: int, fps: float,
                      found: Findings) -> None:
    features = record.feature_list(key)
    if features is None or not pictures:
        return
    if any(kind != "int64_list" or len(values) != 1 for kind, values in features):
        found.error("timestamps", f"{key} does not hold one integer in each Feature; write the "
                    "microseconds of each picture in a Feature of its own")
        return
    times = np.array([values[0] for _, values in features], np.int64)
    if len(times) != pictures:
        found.error("timestamps", f"{key} has {len(times)} entries for {pictures} pictures; "
                    "write one for each")
        return
    steps = np.diff(times)
    if (steps <= 0).any():
        place = int(np.argmax(steps <= 0))
        found.error("timestamps", f"{key} does not increase: {times[place]} and then "
                    f"{times[place + 1]} at frame {place + 1}; write the pictures in their order")
        return
    if not fps or not len(steps):
        return
    mean = float(steps.mean()) / schema.MICROSECONDS
    # Whole microseconds: each end of the clip is rounded by up to half of one.
    if abs(mean - 1 / fps) > RATE_TOLERANCE / fps + 1e-6:
        found.error("frame rate", f"{key} says {1 / mean:.4g} frames a second, "
                    f"{schema.IMAGE_FRAME_RATE} {fps:.4g}; mend the one that is wrong")
        return
    even = times[0] + np.arange(len(times)) * steps.mean()
    late = np.abs(times - even).max() / schema.MICROSECONDS * fps
    if late > 0.5:
        found.warning("timestamps", f"{key} is uneven, up to {late:.2g} frames off; readers take "
                      "the frame rate to be constant")


def _check_sound(record: Record, facts: Facts, found: Findings) -> None:
    features = record.feature_list(schema.WAVEFORM)
    if features is None:
        return
    if len(features) != 1 or len(features[0][1]) == 0:
        what = f"lies in {len(features)} Features" if len(features) != 1 else "is empty"
        found.error("waveform", f"{schema.WAVEFORM} {what}; write the whole waveform into one, or "
                    "leave the key out where there is no sound")
        return
    kind, values = features[0]
    if kind != "float_list":
        found.error("waveform", f"{schema.WAVEFORM} is a {kind}; write float samples in [-1, 1] "
                    "(16-bit integers divided by 32768)")
        return
    samples = np.fromiter(values, np.float32, len(values))
    facts.has_audio = True
    _check_samples(samples, facts, found)
    count, channels = record.scalar(schema.WAVEFORM_SAMPLES), record.scalar(
        schema.WAVEFORM_CHANNELS)
    if count is not None and count != len(samples):
        found.error("waveform samples", f"{schema.WAVEFORM_SAMPLES} is {count}, but there are "
                    f"{len(samples)}; write the number that is stored")
    if channels is not None and channels != 1:
        found.error("waveform channels", f"{schema.WAVEFORM_CHANNELS} is {channels}; mix the "
                    "sound to one channel")
    rate = record.scalar(schema.WAVEFORM_SAMPLE_RATE)
    if rate is not None and not 0 < rate < float("inf"):
        found.error("sample rate", f"{schema.WAVEFORM_SAMPLE_RATE} is {rate:g}; write the samples "
                    "a second")
    elif rate is not None:
        facts.sample_rate = float(rate)
        _check_length(len(samples) / rate, facts, found)


def _check_samples(samples: np.ndarray, facts: Facts, found: Findings) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        found.error("waveform values", f"{np.count_nonzero(~finite)} of {len(samples)} samples "
                    "are not finite: integers read as floats look so; decode the sound as 32-bit "
                    "floats")
        return
    peak = float(np.abs(samples).max())
    facts.rms = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    if peak > 2.0:
        found.error("waveform values", f"samples go up to {peak:.4g}; scale them to [-1, 1] "
                    "(16-bit integers divided by 32768)")
    elif peak > 1.0:
        found.warning("waveform values", f"samples go up to {peak:.4g}, past [-1, 1]")
    if not peak:
        found.warning("silent", "all samples of the sound are zero; leave silent tracks out, so "
                      "that nothing is learnt from them")
    elif decibels(facts.rms) < SILENT_DB:
        found.warning("silent", f"the sound is silent, {decibels(facts.rms):.0f} dB")


def _check_length(seconds: float, facts: Facts, found: Findings) -> None:
    """Sound and frames last as long as each other."""
    if not facts.seconds:
        return
    apart = abs(seconds - facts.seconds)
    text = (f"the sound lasts {seconds:.3g} s, the frames {facts.seconds:.3g} s; cut or pad the "
            "sound, and see that its rate and the frame rate are right")
    if apart > max(1.0, 0.2 * facts.seconds):
        found.error("waveform length", text)
    elif apart > max(0.1, 1.5 / facts.fps):
        found.warning("waveform length", text)


def _check_melspec(record: Record, found: Findings) -> None:
    wanted = melspec.STEPS * melspec.BINS
    for number, (kind, values) in enumerate(record.feature_list(schema.MELSPEC) or ()):
        if kind != "float_list" or len(values) != wanted:
            found.error("melspec", f"Feature {number} of {schema.MELSPEC} holds {len(values)} "
                        f"values; write {wanted} floats for each second")
            return
        if not np.isfinite(np.fromiter(values, np.float32, wanted)).all():
            found.error("melspec", f"Feature {number} of {schema.MELSPEC} holds values that are "
                        "not finite; take the logarithm of positive numbers")
            return


def _check_labels(record: Record, names: Sequence[str] | None, facts: Facts,
                  found: Findings) -> None:
    indices = record.values(schema.LABEL_INDEX)
    texts = {key: [_text(value) for value in record.values(key)]
             for key in (schema.LABEL_TEXT, schema.LABEL_STRING)}
    given = {key: value for key, value in texts.items() if value}
    if not indices:
        if given:
            key, value = next(iter(given.items()))
            found.warning("label", f"{key} says {value[0]!r}, but there is no "
                          f"{schema.LABEL_INDEX}; readers take the clip as unlabelled")
        return
    facts.labels = tuple(indices)
    if len(given) == 2 and len(set(map(tuple, given.values()))) > 1:
        found.error("label", f"{schema.LABEL_TEXT} says {given[schema.LABEL_TEXT][0]!r}, "
                    f"{schema.LABEL_STRING} {given[schema.LABEL_STRING][0]!r}; write the same")
        return
    stated = next(iter(given.values()), [])
    if len(stated) == len(indices):
        facts.label_names = tuple(stated)
    if any(index < 0 for index in indices):
        found.error("label", f"{schema.LABEL_INDEX} is {min(indices)}; labels count from 0, and "
                    "an unlabelled clip has no such key")
        return
    if names is None:
        return
    if max(indices) >= len(names):
        found.error("label", f"{schema.LABEL_INDEX} is {max(indices)}, but {schema.LABELS_FILE} "
                    f"has {len(names)} names; use the label map that the records were made with")
        return
    for index, name in zip(facts.labels, facts.label_names, strict=False):
        if names[index] != name:
            found.error("label", f"label {index} is {name!r} here, and {names[index]!r} in "
                        f"{schema.LABELS_FILE}; use the label map that the records were made with")
            return


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "surrogateescape")
