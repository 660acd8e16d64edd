"""The report, read back as a browser and a reader would."""

import html.parser
import json
import re

import numpy as np
import pytest

from elo_tf.errors import UserError
from elo_tf.reporting import report
from elo_tf.reporting.samples import Sample

TASKS = ("reconstruct", "predict", "transfer", "shuffle", "reverse", "contrast", "align")
NAMES = [f"{m}/{t}" for m in ("rgb", "flow", "gray", "audio") for t in TASKS] + [
    f"distill/{m}/{site}" for m in ("flow", "gray", "audio")
    for site in ("block1", "block2", "block3", "embedding")]
POPULATION, GENERATIONS, CLUSTERS = 6, 4, 12


def by_name(values):
    return dict(zip(NAMES, np.asarray(values).tolist(), strict=True))


def make_results(folder, write_search):
    """Results as the binaries write them: a search of which one candidate failed, and the rest."""
    draw = np.random.Generator(np.random.PCG64(5))
    search = folder / "search"
    journal = write_search(
        search, NAMES, generations=GENERATIONS, population=POPULATION,
        failed={(0, 4): "the features have collapsed <img src=x>"})
    best = journal.best
    (search / "operative_config.gin").write_text("ZipfFitness.k = 12\nZipfFitness.s = 1.25\n")
    weights = {x: w for x, w in best.weights.items() if w >= 0.02}
    before = {x: float(0.9 + 0.2 * draw.random()) for x in weights}
    after = {x: before[x] * float(0.4 + 0.5 * draw.random()) for x in weights}
    pretrain = folder / "pretrain"
    (pretrain / "encoder").mkdir(parents=True)
    (pretrain / "heldout.json").write_text(json.dumps(
        {"weights": weights, "before": before, "after": after}))
    (pretrain / "encoder" / "clip.json").write_text(
        json.dumps({"frames": 8, "commit": "fedcba987654", "config": "beef" * 8}))
    evaluation = folder / "evaluation"
    evaluation.mkdir()
    (evaluation / "evaluation.json").write_text(json.dumps({
        "split": "test", "train_clips": 480, "test_clips": 240,
        "classes": [f"class {i}" for i in range(12)], "chance": 1 / 12, "seeds": [0, 1, 2],
        "rows": [{"network": "trained", "protocol": "kmeans", "mean": 0.2512, "std": 0.011},
                 {"network": "trained", "protocol": "linear", "mean": 0.4125, "std": 0.0123},
                 {"network": "untrained", "protocol": "kmeans", "mean": 0.1437, "std": 0.009},
                 {"network": "untrained", "protocol": "linear", "mean": 0.1756, "std": 0.008},
                 {"network": "trained", "protocol": "knn", "mean": 0.3719, "std": 0.0},
                 {"network": "trained", "protocol": "kmeans_nmi", "mean": 0.5678, "std": 0.0142}
                 ]}))
    version = folder / "export" / "3" / "assets.extra"
    version.mkdir(parents=True)
    (version / "provenance.json").write_text(json.dumps({"exported_by_commit": "e0e0e0"}))
    return journal, {"search_dir": search, "pretrain_dir": pretrain, "evaluation_dir": evaluation,
                  "export_dir": folder / "export"}


def make_samples():
    """Three clips of a moving disc: all tracks, silent, and without flow; the last id hostile."""
    y, x = np.mgrid[:64, :64]
    frames, flow = [], []
    for t in range(16):
        disc = np.hypot(x - 10 - 3 * t, y - 32 + 6 * np.sin(t)) < 9
        ground = np.stack([90 + x, 110 + y, 140 - x // 2], axis=-1)
        frames.append(np.where(disc[..., None], (230, 120, 50), ground))
        flow.append(disc[..., None] * np.array([3.0, -6 * np.cos(t)]))
    frames, flow = np.array(frames, np.uint8), np.array(flow)
    time, tone = np.mgrid[:160, :64]
    log_mel = -np.abs(tone - 30 - 20 * np.sin(time / 20)) / 4 - (time % 40) / 20
    return [Sample("test/bounce_0001.mp4 0.0-2.0", frames, flow, log_mel, "bounce"),
            Sample("test/slide_0007.mp4 0.0-2.0", frames[::-1], -flow, None, "slide, to the left"),
            Sample("<script>alert(1)</script>", frames[:3], None, log_mel)]


class Reader(html.parser.HTMLParser):
    """Notes every tag, address, number and text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.addresses, self.numbers, self.ids, self.text = [], [], [], [], ""
        self.open = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in ("meta", "img"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
                self.addresses.append(value)
            if tag == "data" and key == "value":
                self.numbers.append(float(value))
            if key == "id":
                self.ids.append(value)
            assert not key.startswith("on"), key

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "img"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def written(tmp_path_factory, write_search):
    folder = tmp_path_factory.mktemp("runs")
    journal, folders = make_results(folder, write_search)
    path = report.write_report(folder / "report", **folders, samples=make_samples())
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return journal, folders, text, Reader(text)


def test_nothing_is_asked_of_the_network(written):
    _, _, text, reader = written
    assert reader.open == []
    assert reader.addresses
    assert all(x.startswith(("data:image/png;base64,", "#")) for x in reader.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(reader.tags)
    assert "@import" not in text
    assert set(re.findall(r"url\((.)", text)) <= {"#"}


def test_every_internal_address_has_one_target(written):
    reader = written[3]
    assert len(reader.ids) == len(set(reader.ids))
    assert {x[1:] for x in reader.addresses if x.startswith("#")} <= set(reader.ids)
    assert set(re.findall(r"url\(#([^)]+)\)", written[2])) <= set(reader.ids)


def test_hostile_texts_are_texts(written):
    _, _, text, reader = written
    assert "<script>alert" not in text
    assert "<script>alert(1)</script>" in reader.text
    assert "collapsed <img src=x>" in reader.text


def test_all_names_are_there(written):
    assert [x for x in NAMES if x not in written[3].text] == []


def test_numbers_are_those_of_the_files(written):
    journal, folders, _, reader = written
    numbers, best = set(reader.numbers), journal.best
    evaluation = json.loads((folders["evaluation_dir"] / "evaluation.json").read_text())
    heldout = json.loads((folders["pretrain_dir"] / "heldout.json").read_text())
    expected = {best.fitness, evaluation["chance"], *best.weights.values(),
                *best.losses.values(), *heldout["before"].values(), *heldout["after"].values()}
    *shown, left_out = evaluation["rows"]
    for row in shown:
        expected |= {row["mean"], row["std"]}
    assert left_out["mean"] not in numbers and "nmi" not in reader.text
    expected |= {x.fitness for x in [*journal.candidates, *journal.repeats] if x.ok}
    assert expected <= numbers
    # A failed candidate's fitness is only what the strategy was told.
    assert 1000.0 not in numbers


def test_the_summary_says_what_happened(written):
    journal, _, _, reader = written
    best = journal.best
    summary = reader.text[:reader.text.index("What the features are worth")]
    assert f"{best.fitness:.3f}" in summary
    assert f"candidate {best.index} of generation {best.generation}" in summary
    assert "24in 4 generations; 1 failed" in summary
    assert "41.2%" in summary
    assert "chance 8.3%" in summary
    assert "untrained network 17.6%" in summary
    assert "every one, on clips the training has not seen" in summary


def test_zipf_law_is_the_one_the_search_was_given(written):
    assert "Zipf law with s = 1.25" in written[3].text


def test_time_share_is_that_of_the_journal(written):
    text = written[3].text
    # 23 candidates of 10 s, 7 of training and 2 of features; the first takes 30 s.
    assert "take 90.0% of the time of the candidates after the first" in text
    numbers = written[3].numbers
    assert 24 * 10.0 + 20 in numbers
    assert (24 * 7.0) / (24 * 10.0 + 20) in numbers


def test_provenance_at_the_foot(written):
    foot = written[3].text[-1500:]
    for text in ("0123456789ab", "c0ffee" * 10, "fedcba987654", "beef" * 8, "e0e0e0", "export/3"):
        assert text in foot


def test_missing_flow_and_sound_are_said(written):
    text = written[3].text
    assert text.count("This clip has no optical flow.") == 1
    assert text.count("This clip has no sound.") == 1
    # Three strips of frames, two of flow, each with its key, and two spectrograms.
    assert sum(x.startswith("data:") for x in written[3].addresses) == 3 + 2 * 2 + 2


def test_same_results_give_the_same_bytes(written, tmp_path):
    path = report.write_report(tmp_path, **written[1], samples=make_samples())
    with open(path, encoding="utf-8") as file:
        again = file.read()
    # The commit of this checkout may have moved on in between.
    foot = again.index("<footer>")
    assert again[:foot] == written[2][:foot]


def test_absent_parts_are_left_out_with_a_sentence(tmp_path):
    path = report.write_report(
        tmp_path, search_dir=tmp_path / "none", evaluation_dir=tmp_path / "none")
    with open(path, encoding="utf-8") as file:
        reader = Reader(file.read())
    for sentence in ("No results were found.", "No evaluation was found", "No search was found",
                     "No final training that has ended was found", "No sample clips were given",
                     "no exported model was found"):
        assert sentence in reader.text
    assert "svg" not in reader.tags


def test_a_loss_that_rose_is_named(tmp_path):
    (tmp_path / "heldout.json").write_text(json.dumps({
        "weights": {"rgb/predict": 0.9, "flow/predict": 0.5, "rgb/shuffle": 0.05},
        "before": {"rgb/predict": 1.0, "flow/predict": 1.0, "rgb/shuffle": 1.0},
        "after": {"rgb/predict": 0.5, "flow/predict": 1.0, "rgb/shuffle": 2.0}}))
    with open(report.write_report(tmp_path, pretrain_dir=tmp_path), encoding="utf-8") as file:
        text = Reader(file.read()).text
    assert "1 of 2 losses with a weight above 0.1 fell" in text
    assert "these did not: flow/predict." in text


def test_an_unfinished_training_is_left_out(tmp_path):
    (tmp_path / "heldout.json").write_text(json.dumps(
        {"weights": {"rgb/predict": 0.9}, "before": {"rgb/predict": 1.0}}))
    with open(report.write_report(tmp_path, pretrain_dir=tmp_path), encoding="utf-8") as file:
        assert "No final training that has ended" in Reader(file.read()).text


def write_log(folder):
    """A log of three steps, one of unseen clips, and a line that is being written."""
    draw = np.random.Generator(np.random.PCG64(6))
    log = [{"step": step, "total": 20.0 - step / 100, "learning_rate": 0.001,
            "losses": by_name(draw.random(len(NAMES))), "weighted": {},
            "share": by_name(draw.dirichlet(np.ones(len(NAMES)))), "gradient_norm": 1.5,
            "gradient_norms": by_name(draw.random(len(NAMES))),
            "measured": {"clips_per_second": speed, "data_wait": wait, "memory_gb": memory}}
           for step, speed, wait, memory in (
               (500, 2.5, 0.5, 3.25), (1000, 12.25, 0.0125, 3.5), (1500, 12.75, 0.0, 3.5))]
    log.append({"step": 1500, "heldout": {}, "heldout_total": 17.125})
    (folder / "losses.jsonl").write_text(
        "".join(json.dumps(x) + "\n" for x in log) + '{"step": 2000, "tot')
    return log


def test_the_course_of_a_training_that_has_not_ended(tmp_path):
    log = write_log(tmp_path)
    (tmp_path / "heldout.json").write_text(json.dumps(
        {"weights": {"rgb/predict": 0.9}, "before": {"rgb/predict": 1.0}}))
    with open(report.write_report(tmp_path, pretrain_dir=tmp_path), encoding="utf-8") as file:
        reader = Reader(file.read())
    assert "Steps trained1,500of the final training, which has not ended" in reader.text
    assert "It has not ended: the log reaches step 1,500." in reader.text
    assert ("12.2 clips a second and waited for data for 1.2% of the time (medians of the log), "
            "with at most 3.5 GB of memory") in reader.text
    assert "best: 17.125, step 1,500" in reader.text
    last = log[2]
    assert {12.25, 0.0125, 3.5, *log[0]["losses"].values(), *last["losses"].values(),
            *last["share"].values(), *last["gradient_norms"].values()} <= set(reader.numbers)
    # The total twice, for wide pages and for phones, and two panels for each family of tasks.
    assert reader.tags.count("svg") == 2 + 2 * 11
    assert len(reader.ids) == len(set(reader.ids))


def test_the_course_of_a_training_that_has_ended(tmp_path, write_search):
    _, folders = make_results(tmp_path, write_search)
    write_log(folders["pretrain_dir"])
    path = report.write_report(tmp_path, pretrain_dir=folders["pretrain_dir"])
    with open(path, encoding="utf-8") as file:
        text = Reader(file.read()).text
    assert "not ended" not in text
    section = text[text.index("The final training"):]
    assert "Every loss with a weight above 0.1 fell" in section
    assert "How hard each task pulls" in section


def test_a_damaged_result_is_a_user_error(tmp_path):
    (tmp_path / "evaluation.json").write_text('{"rows": [')
    with pytest.raises(UserError, match="evaluation.json is damaged"):
        report.write_report(tmp_path, evaluation_dir=tmp_path)
    (tmp_path / "evaluation.json").write_text('{"rows": []}')
    with pytest.raises(UserError, match="evaluation.json has no chance"):
        report.write_report(tmp_path, evaluation_dir=tmp_path)
    assert not (tmp_path / "report.html").exists()
