"""Each property of a record is broken in turn, and exactly that is found."""

import io

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from elo_tf.data import flow, records, schema
from elo_tf.data.encoding import EncodedClip
from elo_tf.data.inspection import record_checks
from elo_tf.data.melspec import log_mel_seconds

NAMES = ("run", "walk")
FPS, FRAMES, HEIGHT, WIDTH = 10.0, 10, 32, 48


def encode(pixels, kind="JPEG", **settings):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


def make_record(**changes) -> bytes:
    """A record without fault: 1 s of frames that slide to the right, with a tone."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(FRAMES)]
    step = np.broadcast_to(np.float32([2.0, -1.0]), (HEIGHT, WIDTH, 2))
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000).astype(np.float32)
    values = {
        "images": [encode(frame) for frame in frames],
        "flows": [encode(flow.quantise(step), "PNG")] * FRAMES,
        "audio": tone, "fps": FPS, "start": 1.5, "height": HEIGHT, "width": WIDTH} | changes
    return records.encode_example(EncodedClip(**values), example_id="a/b.mp4", label=1,
                                  label_name="walk", caption="they walk",
                                  melspec=log_mel_seconds(tone))


@pytest.fixture(scope="module")
def record():
    return make_record()


def test_a_good_record_has_no_problem_and_its_facts_are_right(record):
    facts, found = record_checks.check_record(record, NAMES)
    assert found == []
    assert (facts.id, facts.frames, facts.fps, facts.height, facts.width) == (
        "a/b.mp4", FRAMES, FPS, HEIGHT, WIDTH)
    assert facts.seconds == 1.0
    assert (facts.labels, facts.label_names) == ((1,), ("walk",))
    assert (facts.has_flow, facts.flow_clip) == (True, 20.0)
    # Codes of 2 and -1 px: round(255 * (v + 20) / 40).
    codes = np.zeros((256, 256))
    codes[140, 121] = FRAMES * HEIGHT * WIDTH
    np.testing.assert_array_equal(facts.flow_codes.reshape(256, 256), codes)
    assert (facts.has_audio, facts.sample_rate) == (True, 16000.0)
    assert facts.rms == pytest.approx(0.5 / np.sqrt(2), rel=1e-3)
    example = tf.train.SequenceExample.FromString(record)
    assert facts.image_bytes == sum(
        len(x.bytes_list.value[0])
        for x in example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature)


def test_a_clip_of_frames_alone_has_no_problem():
    assert record_checks.check_record(make_record(flows=None, audio=None), NAMES)[1] == []
    one = make_record(images=[encode(np.zeros((HEIGHT, WIDTH, 3), np.uint8))], flows=None,
                      audio=None)
    assert record_checks.check_record(one, NAMES)[1] == []


def context(key, value):
    def change(example):
        feature = example.context.feature[key]
        feature.Clear()
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, float):
            feature.float_list.value.append(value)
        else:
            feature.int64_list.value.extend(np.atleast_1d(value).tolist())
    return change


def without(*keys):
    def change(example):
        for key in keys:
            example.context.feature.pop(key, None)
            example.feature_lists.feature_list.pop(key, None)
    return change


def together(key):
    """All pictures in one Feature."""
    def change(example):
        features = example.feature_lists.feature_list[key].feature
        values = [feature.bytes_list.value[0] for feature in features]
        del features[1:]
        features[0].bytes_list.value[:] = values
    return change


def in_context(example):
    features = example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature
    example.context.feature[schema.IMAGE_ENCODED].bytes_list.value.extend(
        feature.bytes_list.value[0] for feature in features)
    del example.feature_lists.feature_list[schema.IMAGE_ENCODED]


def picture(key, index, change_bytes):
    """Changes one picture, or all of them."""
    def change(example):
        features = example.feature_lists.feature_list[key].feature
        for feature in features if index is None else [features[index]]:
            feature.bytes_list.value[0] = change_bytes(feature.bytes_list.value[0])
    return change


def pixels(change_pixels, kind="PNG", **settings):
    return lambda data: encode(change_pixels(np.array(PIL.Image.open(io.BytesIO(data)))), kind,
                               **settings)


def drop_last(*keys):
    def change(example):
        for key in keys:
            del example.feature_lists.feature_list[key].feature[-1]
    return change


def drop_last_two_flows(example):
    drop_last(schema.FLOW_ENCODED, schema.FLOW_TIMESTAMP)(example)
    drop_last(schema.FLOW_ENCODED, schema.FLOW_TIMESTAMP)(example)


def time(index, value, key=schema.IMAGE_TIMESTAMP):
    def change(example):
        example.feature_lists.feature_list[key].feature[index].int64_list.value[0] = value
    return change


def sound(change_samples, tell=True):
    def change(example):
        values = example.feature_lists.feature_list[schema.WAVEFORM].feature[0].float_list.value
        changed = change_samples(np.array(values, np.float32))
        values[:] = changed.tolist()
        if tell:
            context(schema.WAVEFORM_SAMPLES, len(changed))(example)
    return change


def sound_as_bytes(example):
    feature = example.feature_lists.feature_list[schema.WAVEFORM].feature[0]
    feature.bytes_list.value.append(b"1234")


def split_sound(example):
    features = example.feature_lists.feature_list[schema.WAVEFORM].feature
    features.add().float_list.value.extend([0.0] * 10)


def short_melspec(example):
    feature = example.feature_lists.feature_list[schema.MELSPEC].feature[0]
    del feature.float_list.value[-1]


def empty_first_frame(example):
    example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature[0].Clear()


def raw_frames(example):
    for feature in example.feature_lists.feature_list[schema.IMAGE_ENCODED].feature:
        feature.float_list.value.append(0.0)


def swapped(x):
    x[..., 2], x[..., 0] = x[..., 0].copy(), 0
    return x


def blue(x):
    x[..., 2] = 9
    return x


def clipped(x):
    x[:4, :, 0] = 255  # 4 of 32 rows
    return x


BROKEN = [
    (in_context, "error", "frames", "lies in the context, all 10 values in one Feature"),
    (together(schema.IMAGE_ENCODED), "error", "frames",
     "all 10 pictures of image/encoded lie in one Feature"),
    (without(schema.IMAGE_ENCODED), "error", "frames", "no frames"),
    (empty_first_frame, "error", "frames", "holds nothing in 1 of 10"),
    (raw_frames, "error", "frames", "holds float_list in 10 of 10"),
    (picture(schema.IMAGE_ENCODED, 4, lambda x: x[:len(x) // 2]), "error", "frame decode",
     "1 of 10 frames do not decode, first number 4"),
    (picture(schema.IMAGE_ENCODED, 7, lambda x: b"RIFF" + x), "error", "frame decode",
     "first number 7: neither a JPEG nor a PNG, it begins with 52 49 46 46"),
    (picture(schema.IMAGE_ENCODED, 3, pixels(lambda x: x[:, :-2], "JPEG")), "error", "frame size",
     "2 sizes: 48 x 32, 46 x 32"),
    (context(schema.IMAGE_HEIGHT, 31), "error", "frame size", "48 x 32, but image/height"),
    (context(schema.IMAGE_WIDTH, 49), "error", "frame size", "say 49 x 32"),
    (context(schema.IMAGE_CHANNELS, 1), "error", "frame channels", "have 3 channels"),
    (context(schema.IMAGE_FORMAT, b"PNG"), "error", "frame format", "are JPEG"),
    (picture(schema.IMAGE_ENCODED, 1, pixels(lambda x: x)), "error", "frame format",
     "1 of 10 frames are PNGs"),
    (context(schema.IMAGE_FRAME_RATE, 0.0), "error", "frame rate", "is 0"),
    (context(schema.IMAGE_FRAME_RATE, 12), "error", "kind", "int64_list, readers want a float"),
    (time(3, 1_700_000), "error", "timestamps", "1700000 and then 1700000 at frame 3"),
    (time(3, 1_860_000), "warning", "timestamps", "uneven, up to 0.6 frames off"),
    (drop_last(schema.IMAGE_TIMESTAMP), "error", "timestamps", "9 entries for 10 pictures"),
    (drop_last(schema.FLOW_TIMESTAMP), "error", "timestamps", "FORWARD_FLOW/image/timestamp has 9"),
    (context(schema.END_TIMESTAMP, 1_500_000), "error", "clip times", "1500000 is not after"),
    (context(schema.END_TIMESTAMP, 9_500_000), "warning", "clip times", "lasts 8 s by its start"),
    (together(schema.FLOW_ENCODED), "error", "flow", "all 10 pictures of FORWARD_FLOW"),
    (drop_last(schema.FLOW_ENCODED, schema.FLOW_TIMESTAMP), "warning", "flow count",
     "9 flow images for 10 frames"),
    (drop_last_two_flows, "error", "flow count", "8 flow images for 10 frames"),
    (picture(schema.FLOW_ENCODED, 2, lambda x: x[:60]), "error", "flow image decode",
     "1 of 10 flow images do not decode, first number 2"),
    (context(schema.FLOW_WIDTH, 40), "error", "flow image size", "say 40 x 32"),
    (context(schema.FLOW_FRAME_RATE, 25.0), "error", "flow rate", "is 25"),
    (context(schema.FLOW_SATURATION, -1.0), "error", "flow saturation", "is -1"),
    (picture(schema.FLOW_ENCODED, None, pixels(swapped)), "error", "flow channels", "BGR order"),
    (picture(schema.FLOW_ENCODED, None, pixels(blue)), "warning", "flow blue", "third channel"),
    (picture(schema.FLOW_ENCODED, None, pixels(clipped)), "warning", "flow clipped", "12% of"),
    (picture(schema.FLOW_ENCODED, None, pixels(lambda x: x * 0 + np.uint8([127, 128, 0]))),
     "warning", "flow still", "zero everywhere"),
    (picture(schema.FLOW_ENCODED, None, pixels(lambda x: x[..., 0])), "error",
     "flow image channels", "have 1 channels"),
    (split_sound, "error", "waveform", "lies in 2 Features"),
    (sound(lambda x: x[:0], tell=False), "error", "waveform", "is empty"),
    (sound_as_bytes, "error", "waveform", "is a bytes_list"),
    (sound(lambda x: np.where(np.arange(len(x)) < 3, np.nan, x)), "error", "waveform values",
     "3 of 16000 samples are not finite"),
    (sound(lambda x: np.round(x * 32768)), "error", "waveform values", "go up to 1.638e+04"),
    (sound(lambda x: x * 2.5), "warning", "waveform values", "go up to 1.25"),
    (sound(lambda x: x * 0), "warning", "silent", "all samples of the sound are zero"),
    (sound(lambda x: x * 1e-3), "warning", "silent", "silent, -69 dB"),
    (sound(lambda x: x[:12000]), "warning", "waveform length", "lasts 0.75 s, the frames 1 s"),
    (sound(lambda x: np.tile(x, 3)), "error", "waveform length", "lasts 3 s, the frames 1 s"),
    (sound(lambda x: x[:-1], tell=False), "error", "waveform samples", "is 16000, but there are"),
    (context(schema.WAVEFORM_SAMPLE_RATE, 0.0), "error", "sample rate", "is 0"),
    (context(schema.WAVEFORM_CHANNELS, 2), "error", "waveform channels", "is 2"),
    (short_melspec, "error", "melspec", "holds 12799 values; write 12800"),
    (context(schema.LABEL_INDEX, 2), "error", "label", "labels.txt has 2 names"),
    (context(schema.LABEL_INDEX, -1), "error", "label", "is -1"),
    (context(schema.LABEL_INDEX, 0), "error", "label", "label 0 is 'walk' here, and 'run'"),
    (context(schema.LABEL_TEXT, b"jump"), "error", "label", "'jump', clip/label/string 'walk'"),
    (without(schema.LABEL_INDEX), "warning", "label", "take the clip as unlabelled"),
    (context(schema.FILENAME, b"caf\xe9.mp4"), "warning", "utf-8", r"b'caf\xe9.mp4'"),
    (context(schema.IMAGE_HEIGHT, [HEIGHT, HEIGHT]), "error", "kind", "holds 2 values"),
    (without(schema.EXAMPLE_ID, schema.IMAGE_TIMESTAMP), "warning", "missing keys",
     "lacks example/id, image/timestamp;"),
    (without(schema.IMAGE_FRAME_RATE), "warning", "missing keys", "lacks image/frame_rate;"),
]


@pytest.mark.parametrize(("change", "level", "check", "words"), BROKEN,
                         ids=[f"{i}-{x[2]}" for i, x in enumerate(BROKEN)])
def test_exactly_what_is_broken_is_found(record, change, level, check, words):
    example = tf.train.SequenceExample.FromString(record)
    change(example)
    _, found = record_checks.check_record(example.SerializeToString(), NAMES)
    assert [(x.level, x.check) for x in found] == [(level, check)], found
    assert words in found[0].message


def test_flow_of_another_size_than_the_frames(record):
    small = encode(np.zeros((16, 24, 3), np.uint8) + np.uint8([140, 121, 0]), "PNG")
    example = tf.train.SequenceExample.FromString(record)
    picture(schema.FLOW_ENCODED, None, lambda _: small)(example)
    context(schema.FLOW_WIDTH, 24)(example)
    context(schema.FLOW_HEIGHT, 16)(example)
    found = record_checks.check_record(example.SerializeToString(), NAMES)[1]
    assert [(x.level, x.check) for x in found] == [("error", "flow size")]


def test_flow_as_jpeg_is_judged_by_its_chroma(record):
    for sampling, expected in (("4:2:0", ["flow chroma"]), ("4:4:4", [])):
        example = tf.train.SequenceExample.FromString(record)
        picture(schema.FLOW_ENCODED, None, pixels(lambda x: x, "JPEG", quality=95,
                                                  subsampling=sampling))(example)
        context(schema.FLOW_FORMAT, b"JPEG")(example)
        found = record_checks.check_record(example.SerializeToString(), NAMES)[1]
        assert [x.check for x in found] == expected
        assert all(x.level == "warning" for x in found)


def test_timestamps_tell_another_frame_rate(record):
    example = tf.train.SequenceExample.FromString(record)
    for key in (schema.IMAGE_FRAME_RATE, schema.FLOW_FRAME_RATE):
        context(key, 20.0)(example)
    without(schema.WAVEFORM, schema.WAVEFORM_SAMPLE_RATE, schema.END_TIMESTAMP)(example)
    found = record_checks.check_record(example.SerializeToString(), NAMES)[1]
    assert {x.check for x in found} == {"frame rate"}
    assert "image/timestamp says 10 frames a second, image/frame_rate 20" in found[0].message


def test_what_is_no_sequence_example(record):
    found = record_checks.check_record(b"\xff\xff not a proto")[1]
    assert [(x.level, x.check) for x in found] == [("error", "proto")]
    # A tf.train.Example parses as a SequenceExample without lists.
    example = tf.train.Example()
    example.features.feature[schema.IMAGE_ENCODED].bytes_list.value.extend([b"x"] * 36)
    found = record_checks.check_record(example.SerializeToString())[1]
    assert [x.check for x in found if x.level == "error"] == ["frames"]
    assert "all 36 values in one Feature" in found[0].message


def test_a_record_as_dmvr_writes_it_has_only_a_warning(record):
    example = tf.train.SequenceExample.FromString(record)
    keep = {schema.LABEL_INDEX, schema.LABEL_TEXT}
    without(*(set(example.context.feature) - keep))(example)
    without(schema.FLOW_ENCODED, schema.FLOW_TIMESTAMP, schema.IMAGE_TIMESTAMP,
            schema.MELSPEC)(example)
    facts, found = record_checks.check_record(example.SerializeToString())
    assert [(x.level, x.check) for x in found] == [("warning", "missing keys")]
    assert schema.WAVEFORM_SAMPLE_RATE in found[0].message
    assert (facts.fps, facts.seconds, facts.sample_rate, facts.labels) == (0, 0, 0, (1,))
