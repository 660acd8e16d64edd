"""The gallery, as a real browser shows it."""

import html
import io
import json
import re
import shutil
import subprocess

import numpy as np
import PIL.Image
import pytest

from elo_tf.data.media import write as media_write
from elo_tf.reporting import film_strips, gallery
from elo_tf.serving import nearest
from elo_tf.serving.embedding_store import Embeddings

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
LONG = "a_folder_of_a_name_that_is_rather_long/" * 3

# What the page says of itself once all is loaded.
PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images];
  document.body.dataset.probe = JSON.stringify({
    inner: innerWidth, page: document.documentElement.scrollWidth,
    images: images.length, loaded: images.filter(x => x.complete && x.naturalWidth > 0).length,
    wide: [...document.querySelectorAll("body *")].filter(
        x => x.getBoundingClientRect().right > innerWidth + 0.5).map(x => x.outerHTML.slice(0, 80)),
    columns: new Set(images.slice(0, 6).map(x => Math.round(x.getBoundingClientRect().left))).size,
    paper: getComputedStyle(document.body).backgroundColor,
    outside: performance.getEntriesByType("resource").filter(
        x => !x.name.startsWith("data:")).map(x => x.name)})});</script>"""


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A gallery of two queries over five videos, of which one is gone and one is broken."""
    folder = tmp_path_factory.mktemp("gallery")
    draw = np.random.Generator(np.random.PCG64(1))
    names = ["plain.mp4", f"{LONG}<b>bold&.mp4", "wide.mp4", "gone.mp4", "broken.mp4"]
    for name, (height, width), frames in zip(
            names, ((40, 40), (64, 36), (36, 64)), (24, 24, 3), strict=False):
        video = np.zeros([frames, height, width, 3], np.uint8)
        video[:] = np.linspace(40, 220, frames)[:, None, None, None]
        video[..., 0] = 128
        media_write.write_video(folder / name, video, 8)
    (folder / "broken.mp4").write_text("text")
    rows = [{"id": name, "video": name, "path": str(folder / name), "bytes": 1, "start": 0.0,
             "end": 3.0, "clips": 2, "status": "ok"} for name in names]
    stored = Embeddings(rows, draw.normal(size=(5, 4)).astype(np.float32), {
        "model": "/models/elo/1", "fingerprint": "0123456789abcdef", "windows": 2,
        "input": str(folder)})
    collection = nearest.Collection(stored)
    found = [collection.nearest(query, 4) for query in collection.queries(
        ["plain.mp4", names[1]], lambda paths: [])]
    gallery.write_gallery(folder / "gallery.html", found, stored, workers=2)
    return folder / "gallery.html", found


@pytest.fixture(scope="module")
def probe(written, tmp_path_factory):
    """Renders the gallery in a browser and gives what it found, by the window's width."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"no browser on the PATH; looked for {', '.join(BROWSERS)}")
    folder = tmp_path_factory.mktemp("browser")
    page = folder / "probed.html"
    page.write_text(written[0].read_text() + PROBE)

    def rendered(width, *flags):
        done = subprocess.run(
            [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
             f"--user-data-dir={folder}/profile", f"--window-size={width},900", *flags,
             f"file://{page}"], capture_output=True, text=True, timeout=240, check=True)
        return json.loads(html.unescape(re.search('data-probe="([^"]*)"', done.stdout)[1]))

    return rendered


def test_every_image_loads_and_nothing_overflows(probe):
    # 6 moments of each of two videos, and 4 of that of 0.375 s, at 12 a second; two sections.
    images = 2 * (6 + 6 + 4)
    for width, columns in ((1280, 6), (390, 3)):
        seen = probe(width)
        assert seen["inner"] == width
        assert (seen["images"], seen["loaded"]) == (images, images)
        assert seen["page"] <= width and seen["wide"] == []
        assert seen["columns"] == columns
        assert seen["outside"] == []
        assert seen["paper"] == "rgb(255, 255, 255)"
    assert probe(390, "--blink-settings=preferredColorScheme=0")["paper"] == "rgb(21, 23, 26)"


def test_what_is_found_is_on_the_page_in_order(written):
    path, found = written
    text = path.read_text()
    sections = text.split("<section>")[1:]
    assert len(sections) == 2
    for section, one in zip(sections, found, strict=True):
        similarities = [float(x) for x in re.findall('<data value="([^"]*)">', section)]
        assert similarities == [one.median, *(x.similarity for x in one.neighbours)]
        names = [html.unescape(x.replace("<wbr>", "")) for x in re.findall(
            "<h[23]>(.*?)</h[23]>", section)]
        assert names == [one.query.id, *(x.row["id"] for x in one.neighbours)]
    assert "<b>bold" not in text and "&lt;b&gt;bold&amp;" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_a_video_that_is_gone_or_broken_leaves_a_sentence(written):
    text = written[0].read_text().replace("<wbr>", "")
    folder = written[0].parent
    absent = re.findall('<p class="absent">(.*?)</p>', text)
    assert sorted(absent) == 2 * [
        f"{folder}/broken.mp4: not a media file that can be opened (Invalid data found when "
        "processing input)"] + 2 * [f"{folder}/gone.mp4: there is no such file"]


def test_a_strip_shows_the_moments_in_order(tmp_path):
    video = np.zeros([48, 40, 64, 3], np.uint8)
    video[:] = np.linspace(20, 230, 48)[:, None, None, None]
    media_write.write_video(tmp_path / "fade.mp4", video, 12)
    [strip] = film_strips.film_strips([(str(tmp_path / "fade.mp4"), 1.0, 3.0)], workers=1)
    images = [np.asarray(PIL.Image.open(io.BytesIO(x))) for x in strip]
    assert [x.shape for x in images] == [(160, 160, 3)] * 6
    # Seconds 1 to 3 are frames 12 to 35; six of these 24, 4 apart, begin at 13.
    expected = np.linspace(20, 230, 48)[[13, 17, 21, 25, 29, 33]]
    np.testing.assert_allclose([x.mean() for x in images], expected, atol=4)
