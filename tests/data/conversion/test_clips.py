"""What conversion stores of long videos, captions, images and sound, and how it counts them."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from elo_tf import provenance
from elo_tf.data import conversion, encoding, media, melspec
from elo_tf.errors import UserError

OPTIONS = {"fps": 10, "min_side": 32, "flow": "none"}


def convert(source, output, *, labels="none", **options):
    own = {key: options.pop(key) for key in ("limits", "workers", "melspec", "shards", "split")
           if key in options}
    return conversion.convert(conversion.Conversion(
        **{"source": str(source), "output": str(output), "split": "train", "labels": labels,
           "shards": 1, "workers": 0,
           "options": encoding.VideoOptions(**(OPTIONS | options))} | own))


def parsed(folder, split="train"):
    """The records by id, each a dict of all its features."""
    found = {}
    for path in sorted(folder.glob(f"{split}-*.tfrecord")):
        for record in tf.data.TFRecordDataset(str(path)):
            example = tf.train.SequenceExample.FromString(record.numpy())
            features = {key: values(feature) for key, feature in example.context.feature.items()}
            features |= {key: [values(feature) for feature in feature_list.feature]
                         for key, feature_list in example.feature_lists.feature_list.items()}
            [name] = features["example/id"]
            assert name not in found
            found[name.decode()] = features
    return found


def values(feature):
    return list(getattr(feature, feature.WhichOneof("kind")).value)


def brightness(features):
    return [tf.io.decode_jpeg(data).numpy().mean() for [data] in features["image/encoded"]]


def rejects(folder):
    with open(folder / "rejects.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def film(tmp_path_factory, make_video, gray_frames):
    """Frame k of 35, ten a second, has brightness 5 k + 20; with a tone."""
    folder = tmp_path_factory.mktemp("film")
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(3.5 * 44100)) / 44100)
    make_video(folder / "film.mp4", gray_frames(5 * np.arange(35) + 20), audio=tone)
    return folder


@pytest.mark.parametrize("stride, begins", [(None, [0, 1, 2, 3]), (0.5, [0, 0.5, 1, 1.5, 2, 2.5]),
                                            (2.0, [0, 2])])
def test_a_video_is_cut_into_clips(film, tmp_path, stride, begins):
    summary = convert(film, tmp_path, clip_seconds=1.0, stride_seconds=stride)
    found = parsed(tmp_path)
    lengths = [min(1.0, 3.5 - begin) for begin in begins]
    assert list(found) == [f"film.mp4/{begin:g}-{begin + length:g}"
                           for begin, length in zip(begins, lengths, strict=True)]
    for begin, length, features in zip(begins, lengths, found.values(), strict=True):
        frames = round(10 * begin) + np.arange(round(10 * length))
        np.testing.assert_allclose(brightness(features), 5 * frames + 20, atol=3)
        assert features["clip/media_id"] == features["clip/data_path"] == [b"film.mp4"]
        assert features["clip/start/timestamp"] == [round(begin * 1e6)]
        assert features["clip/end/timestamp"] == [round((begin + length) * 1e6)]
        assert features["image/timestamp"] == [[100_000 * k] for k in frames]
        [sound] = features["WAVEFORM/feature/floats"]
        assert len(sound) == features["WAVEFORM/feature/num_samples"][0] == 16000 * length
        inner = np.square(sound[1600:-1600])
        np.testing.assert_allclose(np.sqrt(2 * inner.mean()), 0.3, rtol=0.05)
    assert (summary["converted"], summary["clips"]) == (1, len(begins))
    assert summary["seconds"] == pytest.approx(sum(lengths))


def test_parts_and_clips_and_captions_by_a_csv(film, tmp_path):
    (tmp_path / "list.csv").write_text(
        "video_path,start,end,label,caption\n"
        f'{film}/film.mp4,0.5,2.5,gray,"lighter, and lighter"\n{film}/film.mp4,2.5,3.3,,\n')
    convert(tmp_path / "list.csv", tmp_path / "out", clip_seconds=1.0)
    found = parsed(tmp_path / "out")
    name = f"{film}/film.mp4"
    assert sorted(found) == [f"{name}:0.5-2.5/0.5-1.5", f"{name}:0.5-2.5/1.5-2.5",
                             f"{name}:2.5-3.3/2.5-3.3"]
    for key, features in found.items():
        assert features["clip/media_id"] == [name.encode()]
        if ":0.5" in key:
            assert features["caption/string"] == [b"lighter, and lighter"]
            assert features["clip/label/text"] == features["clip/label/string"] == [b"gray"]
            assert features["clip/label/index"] == [0]
        else:
            assert "caption/string" not in features and "clip/label/text" not in features
        assert "clip/damaged" not in features


def test_the_settings_of_clips_belong_to_the_resume_check(film, tmp_path):
    convert(film, tmp_path, clip_seconds=1.0)
    for other, words in (({"clip_seconds": 2.0}, "clip_seconds: 1.0 there, 2.0 asked for"),
                         ({"stride_seconds": 0.5}, "stride_seconds: None there, 0.5 asked"),
                         ({"melspec": True}, "melspec: False there, True asked for"),
                         ({"jpeg_quality": 80}, "jpeg_quality: 92 there, 80 asked for")):
        with pytest.raises(UserError, match=words):
            convert(film, tmp_path, **({"clip_seconds": 1.0} | other))


def test_log_mel_spectrograms_of_whole_seconds(film, tmp_path):
    convert(film, tmp_path, melspec=True)
    features = parsed(tmp_path)["film.mp4"]
    [sound] = features["WAVEFORM/feature/floats"]
    stored = np.array(features["melspec/feature/floats"], np.float32)
    assert stored.shape == (4, 12800)  # A step for each second, as far as there is sound.
    wanted = melspec.log_mel_seconds(np.array(sound, np.float32))
    np.testing.assert_array_equal(stored.reshape(wanted.shape), wanted)


def test_images_are_clips_of_one_frame(tmp_path):
    for name, colour in (("red/1.png", (200, 0, 0)), ("red/2.jpg", (180, 0, 0)),
                         ("blue/1.png", (0, 0, 220))):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 40), colour).save(tmp_path / "in" / name, quality=95)
    (tmp_path / "in" / "blue" / "bad.png").write_text("text")
    summary = convert(tmp_path / "in", tmp_path / "out", labels="folders", images=True,
                      clip_seconds=10.0)
    found = parsed(tmp_path / "out")
    assert sorted(found) == ["blue/1.png", "red/1.png", "red/2.jpg"]
    for name, label, colour in (("blue/1.png", 0, (0, 0, 220)), ("red/2.jpg", 1, (180, 0, 0))):
        [[data]] = found[name]["image/encoded"]
        picture = tf.io.decode_jpeg(data).numpy()
        assert picture.shape == (32, 64, 3)
        np.testing.assert_allclose(picture.mean((0, 1)), colour, atol=4)
        assert found[name]["clip/label/index"] == [label]
    assert (summary["converted"], summary["rejected"], summary["with_flow"]) == (3, 1, 0)


def test_what_was_read_before_a_video_failed_is_kept(tmp_path, make_video, gray_frames):
    folder = tmp_path / "in"
    folder.mkdir()
    # Ten frames in each of the first two seconds, then fifty.
    times = np.concatenate([np.arange(20) / 10, 2 + np.arange(50) / 50])
    make_video(folder / "busy.mp4", gray_frames(np.full(70, 90)), times=times)
    make_video(folder / "calm.mp4", gray_frames(np.full(20, 90)))
    (folder / "empty.mp4").touch()
    options = encoding.VideoOptions(**OPTIONS, clip_seconds=1.0, limits=media.Limits(max_frames=30))
    for workers in (0, 2):
        output = tmp_path / f"out_{workers}"
        summary = conversion.convert(conversion.Conversion(
            str(folder), str(output), "train", shards=1, options=options, workers=workers))
        assert sorted(parsed(output)) == [
            "busy.mp4/0-1", "busy.mp4/1-2", "calm.mp4/0-1", "calm.mp4/1-2"]
        expected = {"videos": 3, "converted": 2, "rejected": 1, "clips": 4, "damaged": 1,
                    "reasons": {"empty_file": 1}, "incomplete": {"too_many_frames": 1}}
        assert expected.items() <= summary.items()
        first, second = rejects(output)
        assert (first["path"], first["reason"]) == ("busy.mp4", "too_many_frames")
        assert first["detail"].startswith("used in part: 2 clips of 2 s altogether; then: ")
        assert (second["path"], second["reason"]) == ("empty.mp4", "empty_file")


def test_a_video_that_takes_too_much_memory_costs_itself(tmp_path, make_video, gray_frames):
    folder = tmp_path / "in"
    folder.mkdir()
    make_video(folder / "big.mp4", gray_frames(np.arange(90) + 50, 720, 1280), codec="mpeg4")
    make_video(folder / "small.mp4", gray_frames([50, 60]))
    options = encoding.VideoOptions(fps=10, min_side=720, flow="none")
    summary = conversion.convert(conversion.Conversion(
        str(folder), str(tmp_path / "out"), "train", shards=1, options=options, workers=1,
        limits=conversion.Limits(60, gigabytes=0.2)))
    assert (summary["converted"], summary["reasons"]) == (1, {"out_of_memory": 1})
    [row] = rejects(tmp_path / "out")
    assert row["path"] == "big.mp4" and "0.2 GB" in row["detail"]


def test_a_video_that_takes_too_long_costs_itself(film, tmp_path):
    with pytest.raises(UserError, match=r"timeout \(1\)"):
        convert(film, tmp_path, workers=1, limits=conversion.Limits(0.001, 4))
    [row] = rejects(tmp_path)
    assert (row["path"], row["reason"]) == ("film.mp4", "timeout")
    assert row["detail"] == "no clip came for 0.001 s"


def test_the_summary_tells_of_all_splits(film, tmp_path, make_video, gray_frames):
    folder = tmp_path / "more"
    folder.mkdir()
    make_video(folder / "silent.mp4", gray_frames(np.full(50, 90), 48, 48), fps=25,
               audio=np.zeros(88200))
    make_video(folder / "mute.mp4", gray_frames(np.full(20, 90), 48, 96))
    (folder / "bad.mp4").write_text("text")
    output = tmp_path / "out"
    convert(film, output, split="films", clip_seconds=1.0)
    convert(folder, output, split="more", flow="dis", limits=conversion.Limits(60, 4), workers=2,
            shards=2)
    summary = json.loads((output / "summary.json").read_text())
    more = summary["splits"]["more"]
    assert set(summary["splits"]) == {"films", "more"}
    expected = {"videos": 3, "converted": 2, "clips": 2, "rejected": 1, "complete": True,
                "rejected_by_reason": {"undecodable": 1}, "used_in_part_by_reason": {},
                "hours": round(4 / 3600, 4), "source_fps": {"25": 1, "10": 1},
                "stored_sizes": {"32x32": 1, "64x32": 1},
                "shares": {"with_audio": 0.0, "silent": 0.5, "with_flow": 1.0, "labelled": 0.0,
                           "damaged": 0.0, "cut": 0.0}}
    assert {key: more[key] for key in expected} == expected
    assert more["bytes"] == sum(
        path.stat().st_size for path in output.glob("more-*.tfrecord")) - 2 * 16
    assert more["options"]["flow"] == "dis" and more["options"]["shards"] == 2
    assert more["commits"] == [provenance.commit()]
    stages = more["stage_seconds"]
    assert list(stages) == ["decode", "flow", "encode", "write"]
    total = summary["total"]
    assert (total["videos"], total["clips"], total["rejected"]) == (4, 6, 1)
    assert total["source_fps"] == {"10": 2, "25": 1}
    assert total["shares"]["with_audio"] == round(4 / 6, 4)
    assert total["wall_seconds"] > 0 and total["times_real_time"] > 0
    before = (output / "summary.json").stat().st_mtime_ns
    assert convert(film, output, split="films", clip_seconds=1.0)["unchanged"]
    assert (output / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"summary\.json"):
        convert(film, output, split="summary")
