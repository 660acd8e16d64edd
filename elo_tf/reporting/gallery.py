"""What was found, as one self-contained HTML page with film strips: for a person's judgement."""

import base64
import os
from collections.abc import Sequence

from elo_tf import cli, files
from elo_tf.reporting import film_strips, page
from elo_tf.reporting.page import Markup, escape
from elo_tf.serving.embedding_store import Embeddings
from elo_tf.serving.nearest import Found, Neighbour, Query


def write_gallery(path: str | os.PathLike, found: Sequence[Found], stored: Embeddings, *,
                  workers: int = 1) -> None:
    """Writes the page, whole or not at all; a video that cannot be shown leaves a sentence.

    Args:
      path: of the HTML file.
      found: what was found for each query, at least one.
      stored: the collection.
      workers: processes that decode.
    """
    strips = _strips(found, workers)
    rows, size = stored.features.shape
    videos = len({row["video"] for row in stored.rows})
    head = Markup("<header><h1>Nearest videos</h1>" + page.paragraph(
        "Below each query are the videos that the network finds most like it. A similarity is the "
        "cosine of two features, centred on the mean of the collection: 1 is the same, about 0 "
        "is what two videos have by chance. Strips show the middle square of each picture, as the "
        "network sees it.") + "</header>")
    tiles = page.tiles([
        ("Queries", len(found), f"{len(found[0].neighbours)} neighbours each"),
        ("Collection", f"{videos:,}", "videos" if rows == videos else f"videos, {rows:,} clips"),
        ("Nearest", page.number(_mean([x.neighbours[0].similarity for x in found]), ".2f"),
         "similarity, mean over the queries"),
        ("Median", page.number(_mean([x.median for x in found]), ".2f"),
         "similarity of all videos to a query, likewise"),
    ])
    settings = stored.settings
    foot = Markup("<footer><dl>" + "".join(
        f"<dt>{escape(name)}</dt><dd><code>{escape(value)}</code></dd>" for name, value in (
            ("Model", settings["model"]), ("Fingerprint", settings["fingerprint"][:12]),
            ("Feature", f"{size} numbers, {settings['windows']} clips a video"),
            ("Videos", settings["input"]))) + "</dl></footer>")
    document = page.document("Nearest videos", head, tiles,
                             *(_section(x, strips) for x in found), foot)
    # Names of files may hold what is no text.
    files.write_atomic(path, document.encode("utf-8", "replace"))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _place(shown: Query | Neighbour) -> tuple[str, float, float]:
    if isinstance(shown, Query):
        return shown.path, shown.start, shown.end
    return shown.row["path"], shown.row["start"], shown.row["end"]


def _strips(found: Sequence[Found], workers: int) -> dict[tuple[str, float, float], Markup]:
    """The strip of each video, which is drawn once."""
    shown: list[Query | Neighbour] = []
    for one in found:
        shown += [one.query, *one.neighbours]
    places = list(dict.fromkeys(map(_place, shown)))
    drawn = cli.progress(film_strips.film_strips(places, workers), total=len(places),
                         desc="film strips", unit="video")
    return {place: _strip(place[0], strip) for place, strip in zip(places, drawn, strict=True)}


def _strip(path: str, strip: list[bytes] | str) -> Markup:
    if isinstance(strip, str):
        return Markup(f'<p class="absent">{_name(path)}: {escape(strip)}</p>')
    images = "".join(
        f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="moment {i}">'
        for i, jpeg in enumerate(strip, 1))
    return Markup(f'<div class="frames">{images}</div>')


def _section(found: Found, strips: dict[tuple[str, float, float], Markup]) -> Markup:
    query = found.query
    items = "".join(
        f'<li><div class="about"><p class="near"><span>{rank}</span>'
        f"{page.number(x.similarity, '.3f')}{_bar(x.similarity)}</p>"
        f"<h3>{_name(x.row['id'])}</h3></div>{strips[_place(x)]}</li>"
        for rank, x in enumerate(found.neighbours, 1))
    about = page.paragraph(Markup("<b>Query</b>, "), f"{query.start:.1f} to {query.end:.1f} s")
    median = page.note("median of the collection: ", page.number(found.median, ".3f"))
    return page.section(
        _name(query.id), Markup(
            f'<div class="query"><div class="about">{about}{median}</div>'
            f'{strips[_place(query)]}</div>'
            f'<ol class="near-list">{items}</ol>'))


def _bar(similarity: float) -> str:
    return f'<i style="--share:{100 * max(similarity, 0.0):.1f}%"></i>'


def _name(name: str) -> Markup:
    """A path that may be broken where people would."""
    return Markup(escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>"))
