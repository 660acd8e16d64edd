"""Losses beside each other: what proxies that are trained with them come to, at several lengths.

    python -m benchmarks.compare_losses --gin_file=evolved.gin --data=evolved/a/records \\
        --losses='rgb/predict' --losses='rgb/contrast audio/contrast' --losses='rgb/predict=0.3' \\
        --gin_bindings='Proxy.steps = 640' --gin_bindings='Proxy.looks = (160, 320)' \\
        --output=compared.jsonl

For hypotheses: one seed, everything as in a search, and labels of `Proxy.labelled_split` alone, so
that no test clip is seen. Linear accuracy is cross-validated, k-means accuracy with as many
clusters as classes. Zipf fitness is of the last step. Losses that --output has are not run again.
"""

import json
import pathlib
import tempfile

import gin
from absl import flags

from benchmarks.fitness_controls import accuracy
from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.errors import UserError
from elo_tf.evaluation.kmeans import kmeans_scores
from elo_tf.search import kept_features
from elo_tf.search.search import build_proxy

configuration.define_data_flag()
LOSSES = flags.DEFINE_multi_string(
    "losses", [], "Names with their weights, 1 where none is given: 'rgb/predict audio/align=0.3'.")
OUTPUT = flags.DEFINE_string("output", None, "JSON lines, added to.", required=True)
flags.FLAGS.set_default("run_dir", "")  # nothing but --output is written
UNTRAINED = "untrained"


def parse(text: str) -> dict[str, float]:
    """Weights by name."""
    found = {}
    for part in text.split():
        name, _, weight = part.partition("=")
        try:
            found[name] = float(weight) if weight else 1.0
        except ValueError:
            raise UserError(f"--losses={text!r}: {weight!r} is not a number") from None
    return found


def main(argv: list[str]) -> None:
    """Trains what is not in the output yet."""
    del argv
    asked = {UNTRAINED: None} | {text: parse(text) for text in LOSSES.value}
    output = pathlib.Path(OUTPUT.value)
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    done = {(x["losses"], tuple(x["bindings"])) for x in map(json.loads, lines)}
    names = [name for name in asked
             if (name, tuple(configuration.GIN_BINDINGS.value)) not in done]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        configuration.parse(configuration.GIN_FILE.value, [
            f"Records.directory = {flags.FLAGS.data!r}", f"Proxy.keep_features = {folder!r}",
            *configuration.GIN_BINDINGS.value])
        steps = gin.query_parameter("Proxy.steps")
        proxy = build_proxy(quiet=True)
        for name in cli.progress(names, desc="losses", unit="network"):
            weights = None
            if (given := asked[name]) is not None:
                unknown = sorted(set(given) - set(proxy.space.names))
                if unknown:
                    raise UserError(f"--losses={name!r}: there is no loss {unknown[0]!r}; there "
                                    f"are {', '.join(proxy.space.names)}")
                weights = dict.fromkeys(proxy.space.names, 0.0) | given
            report = proxy.evaluate(weights)
            looks = {}
            for path in pathlib.Path(folder).glob("*.npz"):
                kept = kept_features.read(path)
                if kept.labelled is None:
                    raise UserError("the records have no labelled split for Proxy.labelled_split")
                looks[kept.step] = {"linear": round(accuracy(kept.labelled), 4),
                                    "kmeans": round(kmeans_scores(
                                        kept.labelled.embedding, kept.labelled.labels)["kmeans"],
                                        4)}
                path.unlink()
            line = json.dumps({
                "losses": name, "looks": dict(sorted(looks.items())), "steps": steps,
                "zipf": report["zipf"], "status": report["status"],
                "raw": report.get("losses"), "bindings": configuration.GIN_BINDINGS.value})
            with open(output, "a", encoding="utf-8") as stream:
                stream.write(line + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    cli.run(main)
