"""What an evaluation found, as a Markdown page and as lines for a terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

TITLES = {
    "kmeans": "k-means", "kmeans_majority": "k-means, majority names",
    "kmeans_nmi": "k-means, NMI", "kmeans_ari": "k-means, ARI", "linear": "1-layer",
    "knn": "nearest neighbours", "finetune": "fine-tune"}


def title(protocol: str) -> str:
    """What people call a protocol of evaluation.json."""
    if protocol in TITLES:
        return TITLES[protocol]
    kind, at, number = protocol.partition("@")
    return {"retrieval": f"retrieval R@{number}", "few_shot": f"few-shot, {number} a class"}.get(
        kind if at else "", protocol)


def lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The rows for a terminal: protocol, network, mean and half-width of the 95% interval."""
    width = max(len(row["protocol"]) for row in result["rows"]) if result["rows"] else 0
    for row in result["rows"]:
        spread = f" +- {row['interval']:.1%}" if row["n"] > 1 else ""
        yield f"{row['protocol']:{width}} {row['network']:10} {row['mean']:6.1%}{spread}"
    for curve in result["curves"]:
        points = ", ".join(f"{n} clips {x:.1%}"
                           for n, x in zip(curve["clips"], curve["mean"], strict=True))
        yield f"{curve['protocol']} of the {curve['network']} network by labels: {points}"


def markdown(result: Mapping[str, Any]) -> str:
    """evaluation.md: the numbers of evaluation.json for readers."""
    text = ["# Evaluation", "", *facts(result), "", *scores(result, paper=bool(result["method"]))]
    if result["method"]:
        text += ["", _difference(result)]
    for curve in result["curves"]:
        text += ["", f"## Labels: {title(curve['protocol'])}, {curve['network']} network", "",
                 *_head(["labelled clips", "accuracy"])]
        text += [_line([str(n), _number(mean, spread, curve["n"])]) for n, mean, spread in zip(
            curve["clips"], curve["mean"], curve["interval"], strict=True)]
    if result["warnings"]:
        text += ["", "## Warnings", "", *(f"- {warning}" for warning in result["warnings"])]
    text += ["", f"Commit `{result['commit']}`, configuration `{result['config'][:12]}`, data "
             f"`{result['data'][:12]}`.", ""]
    return "\n".join(text)


def scores(result: Mapping[str, Any], *, paper: bool = False) -> Iterator[str]:
    """The rows as a Markdown table, a column for each network.

    Args:
      result: what evaluation.json holds.
      paper: with the paper's figures in a last column.
    """
    networks = list(dict.fromkeys(row["network"] for row in result["rows"]))
    rows = {(row["network"], row["protocol"]): row for row in result["rows"]}
    heads = [f"{network} network" for network in networks]
    if paper:
        heads.append(f"the paper, {result['method']}, HMDB51")
    yield from _head(["protocol", *heads])
    for protocol in dict.fromkeys(row["protocol"] for row in result["rows"]):
        cells = [_cell(rows.get((network, protocol))) for network in networks]
        if paper:
            figure = result["paper"].get(protocol)
            cells.append("-" if figure is None else f"{100 * figure:.1f}")
        yield _line([title(protocol), *cells])


def facts(result: Mapping[str, Any]) -> Iterator[str]:
    """Sentences: what the numbers are of, and how they were measured."""
    several = len(result["splits"]) > 1
    pairs = "; ".join(f"{x['train']} ({x['train_clips']} clips) and {x['test']} "
                      f"({x['test_clips']})" for x in result["splits"])
    yield (f"Accuracy in percent (NMI and ARI: times 100) on {len(result['classes'])} classes; "
           f"chance is {100 * result['chance']:.1f}. ± is the half-width of the 95% t-interval "
           f"over seeds ({len(result['seeds'])}); rows without it draw nothing"
           + ("; of several splits the mean comes first." if several else "."))
    yield (f"Trained and tested on: {pairs}. Of each video {result['windows']} (windows) x "
           f"{result['crops']} (crops) views are averaged."
           + (" Every window is its middle frame, repeated." if result["static"] else ""))


def _difference(result: Mapping[str, Any]) -> str:
    scale, clips = result["scale"], result["splits"][0]
    return (
        f"What differs in scale: here a network of {scale['parameters'] / 1e6:.3g} million "
        f"parameters that sees {scale['frames']} frames of {scale['size']} x {scale['size']} "
        f"pixels is tested with {clips['train_clips']} training clips of "
        f"{len(result['classes'])} classes; the paper's is a (2+1)D ResNet-50, trained on 2 "
        "million videos (32 frames of 224 x 224 pixels, as a later paper lists it) and tested on "
        "the 51 classes of HMDB51; how long this one was trained, its own run says.")


def _cell(row: Mapping[str, Any] | None) -> str:
    return "-" if row is None else _number(row["mean"], row["interval"], row["n"])


def _number(mean: float, spread: float, n: int) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * spread:.1f}" if n > 1 else "")


def _head(cells: list[str]) -> list[str]:
    return [_line(cells), _line(["---", *["---:"] * (len(cells) - 1)])]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
