r"""Finds the nearest videos, in the terminal and as a page with film strips.

    python -m elo_tf.bin.find --embeddings=embeddings --query=some.mp4 --html=gallery.html
    python -m elo_tf.bin.find --embeddings=embeddings --query=walk/0007.mp4 --query=@random:8

A query is an id of the collection, a video file, which is embedded by the same model, or
@random:8 for eight videos of the collection. Similarity is the cosine of features that are centred
on the collection's mean; a video is no neighbour of itself.
"""

import os

from absl import flags

from elo_tf import cli
from elo_tf.errors import UserError
from elo_tf.serving import embedding_store, nearest

_EMBEDDINGS = flags.DEFINE_string(
    "embeddings", None, "The --output of bin/embed.", required=True)
_QUERY = flags.DEFINE_multi_string(
    "query", None, "An id, a video file, or @random:8; may be repeated.", required=True)
_TOP = flags.DEFINE_integer("top", 10, "Neighbours of each query.", lower_bound=1)
_HTML = flags.DEFINE_string("html", None, "Writes a page with film strips, in one file.")
_MODEL_DIR = flags.DEFINE_string(
    "model_dir", None, "Where the model that made the embeddings is, if it was moved. Needed only "
    "for files that are not in the collection.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the random queries.", lower_bound=0)
_WORKERS = flags.DEFINE_integer(
    "workers", os.cpu_count() or 1, "Processes that decode for the film strips.", lower_bound=1)


def main(_: list[str]) -> None:
    """Prints the neighbours of each query, and writes the page."""
    folder = _EMBEDDINGS.value
    if not os.path.isdir(folder):
        raise UserError(f"--embeddings={folder} is no folder; name one that bin/embed wrote")
    stored = embedding_store.read_embeddings(folder)
    if _MODEL_DIR.value:
        nearest.open_same_model(stored.settings, _MODEL_DIR.value)
    collection = nearest.Collection(stored)
    queries = collection.queries(
        _QUERY.value, seed=_SEED.value,
        embed=lambda paths: nearest.embed_files(paths, stored.settings, _MODEL_DIR.value))
    found = [collection.nearest(query, _TOP.value) for query in queries]
    for one in found:
        print(f"query {one.query.id} (the collection's median: {one.median:.3f})")
        for rank, near in enumerate(one.neighbours, 1):
            print(f"{rank:4d}  {near.similarity:6.3f}  {near.row['id']}  {near.row['path']}")
    if _HTML.value:
        from elo_tf.reporting import gallery  # Here: it takes a second to import.

        gallery.write_gallery(_HTML.value, found, stored, workers=_WORKERS.value)
        print(f"gallery: {_HTML.value}")


if __name__ == "__main__":
    cli.run(main)
