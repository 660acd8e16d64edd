"""model_card.md: what an exported model is, in sentences that are true of its own run alone.

What the files of the run do not say stands there as not known.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from elo_tf import provenance
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.errors import UserError
from elo_tf.evaluation import table
from elo_tf.evaluation.evaluate import RESULT
from elo_tf.evaluation.heads import Head, digest
from elo_tf.serving.run_facts import RunFacts, Source, read_run
from elo_tf.training import encoder_files

FILE = "model_card.md"
UNKNOWN = "not known"
# Of `evaluation.json`, those whose rows have a spread to compare by.
_COMPARED = ("kmeans", "linear", "finetune")
_NETWORK, _OURS = "PretrainingModel.make_video_encoder", "@video_encoder"
_LABELLED = "/classify"  # ends the name of the one loss that reads labels


def read_evaluation(path: str | os.PathLike, encoder_dir: pathlib.Path) -> dict[str, Any]:
    """Reads evaluation.json.

    Args:
      path: of the file, or of its folder.
      encoder_dir: folder of the encoder that it must be of.

    Raises:
      UserError: it is missing or damaged, or of another encoder.
    """
    path = pathlib.Path(path)
    path = path / RESULT if path.is_dir() else path
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        list(table.scores(result)), list(table.facts(result)), result["warnings"], result["scale"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot read {path} ({error}); --evaluation is what a finished run of "
                        "bin/evaluate wrote") from error
    found = result.get("encoders", {}).get("trained")
    own = digest(encoder_dir / encoder_files.TRAINED)
    if found is not None and found != own:
        raise UserError(f"{path} is of another encoder (SHA-256 {found[:12]}...) than "
                        f"{encoder_dir / encoder_files.TRAINED} ({own[:12]}...): evaluate this one")
    return result


def model_card(name: str, encoder_dir: pathlib.Path, *, clip: ClipSpec, embedding: int,
               parameters: int, head: Head | None = None,
               evaluation: Mapping[str, Any] | None = None) -> str:
    """The text of the card.

    Args:
      name: of the model and its version.
      encoder_dir: folder of the encoder, in that of its run.
      clip: the clip's size.
      embedding: its size.
      parameters: of the exported network.
      head: the classifier that is exported with it.
      evaluation: what evaluation.json of this encoder holds.
    """
    run = read_run(encoder_dir)
    sections = {
        f"# Model card: {name}": _what(run, embedding, parameters, head),
        "## Input and output": _contract(clip, embedding, head),
        "## Data": _data(run, head),
        "## Training": _training(run),
        "## The losses and their weights": _losses(run),
        "## Classifier": () if head is None else _classifier(head),
        "## Evaluation": _evaluation(evaluation, head),
        "## Intended use": _use(head),
        "## Limits": _limits(run, clip, head, evaluation),
        "## Origin": _origin(run, encoder_dir, head)}
    return "\n".join("\n".join([title, "", *lines, ""])
                     for title, section in sections.items() if (lines := list(section)))


def _what(run: RunFacts, embedding: int, parameters: int, head: Head | None) -> Iterator[str]:
    yield (f"A network of {parameters:,} parameters that turns a video clip (RGB frames, no sound) "
           f"into an embedding of {embedding} numbers"
           + ("." if head is None else
              f", and into probabilities of {len(head.facts.classes)} classes."))
    if run.sources == ():
        yield "The encoder was not trained on records: it was saved as it was made (bin/initial)."
    elif run.sources:
        yield ('The encoder was pre-trained with ELo-TF, an implementation of "Evolving Losses '
               'for Unsupervised Video Representation Learning" (Piergiovanni, Angelova and Ryoo, '
               "CVPR 2020). It is not the network of that paper, whose figures are not claimed "
               "for it.")
    else:
        yield f"How the encoder was made is {UNKNOWN}."
    if head is not None and head.network is not None:
        yield ("**Both are of the fine-tuned network**: the encoder was trained further with "
               "labels (see Classifier), and the embedding is not that of the encoder before.")


def _contract(clip: ClipSpec, embedding: int, head: Head | None) -> Iterator[str]:
    yield from _table(["signature", "`frames`", "returns"], [
        ["`serving_default`, `embed`", "uint8 [B, T, H, W, 3], RGB",
         f"`embedding` float32 [B, {embedding}]"],
        ["`embed_jpeg`", "string [B, T], JPEG files", "the same"],
        *([] if head is None else [
            ["`classify`", "as `embed`",
             f"`probabilities` float32 [B, {len(head.facts.classes)}], `labels` string, the same "
             "shape: the names of the classes, alike in each row"],
            ["`classify_jpeg`", "as `embed_jpeg`", "as `classify`"]])])
    yield ""
    yield (f"Any T of at least 1, any H and W; frames of a JPEG clip may differ in size. The "
           f"network looks at {clip.frames} frames of {clip.size} x {clip.size} pixels: of more "
           f"frames, {clip.frames} spread evenly; fewer are repeated from the start. Of each the "
           f"central square is taken, {clip.crop:g} of the shorter side, and resized. It is made "
           f"for clips of {clip.fps:g} frames a second, so that it sees about "
           f"{clip.frames / clip.fps:.3g} s; longer clips look sped up to it: cut them, and "
           "average the results.")
    yield ("A clip without frames, a frame without pixels, and a string that is no JPEG file are "
           "errors (InvalidArgument), with a sentence.")


def _data(run: RunFacts, head: Head | None) -> Iterator[str]:
    if run.sources is None:
        yield (f"- Clips that the encoder was trained on: {UNKNOWN} ({encoder_files.DATA} is "
               "missing).")
    elif not run.sources:
        yield "- The encoder was trained on no records."
    for source in run.sources or ():
        yield f"- {_source(source)}"
    if run.sources:
        held_out = run.setting("Records.heldout_percent")
        yield (f"- Share of the videos held out, on which losses are measured and nothing is "
               f"trained: {UNKNOWN if held_out is None else f'about {held_out}%'}.")
    if head is not None:
        yield (f"- Labels: {sum(head.facts.training_clips)} clips of split "
               f"`{head.facts.train_split}` trained the classifier.")
    yield (f"- Who made the videos, whom they show, under which licence, and whether people in "
           f"them agreed: {UNKNOWN}. The records do not say.")


def _source(source: Source) -> str:
    place = f"Split `{source.split}` of `{source.directory}`"
    if source.clips is None:
        return f"{place}: how many clips it had is {UNKNOWN}; it cannot be read at the export."
    text = f"{place}: {source.clips:,} clips at the time of the export"
    if source.summary is not None:
        facts = source.summary
        text += (f", {facts['seconds'] / 3600:.3g} h of video" if "seconds" in facts else "")
        text += "".join(f", {facts[key]:,} {what}" for key, what in (
            ("with_audio", "with a sound track"), ("with_flow", "with optical flow"),
            ("labelled", "labelled")) if key in facts)
    return f"{text}; fingerprint `{source.fingerprint}`."


def _training(run: RunFacts) -> Iterator[str]:
    if run.sources == ():
        yield (f"None. Seed of the weights: {run.setting('initial.seed') or UNKNOWN}; "
               f"network: {run.setting('initial.make_encoder') or UNKNOWN}.")
        return
    if run.settings is None:
        yield (f"Steps, seed and all settings: {UNKNOWN}. The folder of the run, with a "
               "`config.gin` of this encoder's configuration, is not where its encoder is.")
        return
    rows = {
        "steps": "pretrain.steps", "clips a step": "pretrain.batch_size", "seed": "pretrain.seed",
        "optimiser": "make_optimizer.name", "learning rate": "make_optimizer.learning_rate",
        "precision": "PretrainingModel.precision",
        "moving average of the weights, 0: none": "pretrain.average_decay",
        "weights taken from": "pretrain.initial", "video network": _NETWORK}
    if run.setting(_NETWORK) == _OURS:
        rows |= {"its depth": "video_encoder.depth", "its width": "video_encoder.width"}
    yield from _table(["setting", "value"], [
        [title, UNKNOWN if (value := run.setting(name)) is None else value or "nothing"]
        for title, name in rows.items()])
    steps, size = run.setting("pretrain.steps"), run.setting("pretrain.batch_size")
    if steps and size:
        yield ""
        yield f"So {int(steps) * int(size):,} clips were drawn in all."


def _losses(run: RunFacts) -> Iterator[str]:
    if run.sources == ():
        return
    if run.losses is None:
        yield f"{UNKNOWN.capitalize()}."
        return
    weights, before, after = (run.losses[x] for x in ("weights", "before", "after"))
    labelled = [name for name in weights if name.endswith(_LABELLED)]
    if labelled:
        yield f"**The labels of the videos were read**, by the loss {', '.join(labelled)}."
    else:
        yield "None of these losses reads labels."
    if run.setting("pretrain.initial") != "" or run.setting(_NETWORK) != _OURS:
        yield f"Whether labels made the weights that it started from is {UNKNOWN}."
    source = (run.settings or {}).get("pretrain.loss_weights", "")
    if run.setting("PretrainingModel.weighting") == "uncertainty":
        yield "The weights were learned in the training itself; these are the last."
    elif source.startswith("@"):
        yield f"The weights were not searched but given by `{source}`."
    else:
        yield (f"How the weights were found, and whether labels guided that, is {UNKNOWN}: the run "
               "was given numbers.")
    yield ("Beside each, the loss on clips that were held out, before and after the training; "
           "losses that are not named had no weight.")
    yield ""
    yield from _table(["loss", "weight", "before", "after"], [
        [f"`{name}`", f"{weight:.3f}", f"{before[name]:.3f}", f"{after[name]:.3f}"]
        for name, weight in sorted(weights.items(), key=lambda x: -x[1])])
    rose = [name for name in weights if not after[name] < before[name]]
    if rose:
        yield ""
        yield f"These did not fall: {', '.join(f'`{name}`' for name in rose)}."


def _classifier(head: Head) -> Iterator[str]:
    facts = head.facts
    if facts.kind == "linear":
        yield ("One linear layer on the embedding of the encoder, which stayed as it was: "
               f"{facts.recipe['layer']}, C = {facts.recipe['C']:g}.")
    else:
        yield ("The whole network and a linear layer, trained with labels from the encoder on: "
               + ", ".join(f"{key} {value}" for key, value in facts.recipe.items()) + ".")
    yield (f"Trained on {sum(facts.training_clips)} clips of split `{facts.train_split}`, seed "
           f"{facts.seed}. On the {facts.test_clips} clips of split `{facts.test_split}` it named "
           f"{facts.test_accuracy:.1%} rightly, {facts.windows * facts.crops} views of each "
           f"averaged; always naming their most frequent class gets {facts.chance:.1%}."
           + ("" if facts.test_accuracy > facts.chance else
              " **It does no better than that.**"))
    counts = ", ".join(f"{name} ({count})" for name, count in zip(
        facts.classes, facts.training_clips, strict=True))
    yield ""
    yield f"Classes, with their training clips: {counts}."
    if 0 in facts.training_clips:
        yield "A class without any is never to be believed."


def _evaluation(result: Mapping[str, Any] | None, head: Head | None) -> Iterator[str]:
    if result is None:
        yield (f"{UNKNOWN.capitalize()}: no evaluation was given at the export"
               + ("." if head is None else ", but for the test of the classifier, above."))
        return
    if "encoders" not in result:
        yield (f"Whether this evaluation is of this encoder is {UNKNOWN}: it does not name the "
               "encoder's hash.")
    if head is not None and head.network is not None:
        yield ("Of the encoder **before** it was fine-tuned, and of networks fine-tuned from it "
               "with each seed; of the one exported here, see Classifier.")
    scale = result["scale"]
    yield (f"Scale: a network of {scale['parameters']:,} parameters and {scale['embedding']} "
           f"features that sees {scale['frames']} frames of {scale['size']} x {scale['size']} "
           "pixels.")
    yield from table.facts(result)
    yield ""
    yield from table.scores(result)
    better, other = _against_untrained(result)
    if better or other:
        yield ""
        yield ("Against the same network untrained, beyond what the seeds spread: better by "
               f"{', '.join(better) or 'none'}; not better by {', '.join(other) or 'none'}.")
    if result["warnings"]:
        yield ""
    for warning in result["warnings"]:
        yield f"- Warning: {warning.rstrip('.')}."


def _against_untrained(result: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Protocols by which the trained network is better, with intervals apart, and the others."""
    rows = {(x["network"], x["protocol"]): x for x in result["rows"] if x["n"] > 1}
    better: list[str] = []
    other: list[str] = []
    for protocol in _COMPARED:
        trained, untrained = (rows.get((name, protocol)) for name in ("trained", "untrained"))
        if trained and untrained:
            apart = (trained["mean"] - trained["interval"]
                     > untrained["mean"] + untrained["interval"])
            (better if apart else other).append(table.title(protocol))
    return better, other


def _use(head: Head | None) -> Iterator[str]:
    yield ("- To compare short videos like those it was trained on: search by example, clusters, a "
           "small classifier on the embedding.")
    if head is not None:
        yield "- To tell its own classes apart in videos like its labelled ones."
    yield ("- Not to identify people, and not for decisions about them; not where an error does "
           "harm. Nothing here was tested for that.")


def _limits(run: RunFacts, clip: ClipSpec, head: Head | None,
            evaluation: Mapping[str, Any] | None) -> Iterator[str]:
    yield (f"- It sees {clip.frames} small frames: what is smaller than a pixel of {clip.size} x "
           f"{clip.size}, outside of the central square, or between frames is not seen.")
    yield "- It does not hear."
    yield ("- Other cameras, places, people and kinds of motion than those of its data, and "
           "differences between groups of people: not measured.")
    if evaluation is None:
        yield f"- How well the embedding tells videos apart: {UNKNOWN}."
    if run.sources == ():
        yield "- It is not pre-trained on videos here; the embedding is that of its first weights."
    if head is not None:
        yield ("- The probabilities always sum to 1, whatever the video shows: there is no class "
               "for anything else. How well they are calibrated was not measured.")
        if head.facts.windows * head.facts.crops > 1:
            yield (f"- The classifier was tested with {head.facts.windows * head.facts.crops} "
                   "views of a video averaged; a request is one clip, and may do worse.")


def _origin(run: RunFacts, encoder_dir: pathlib.Path, head: Head | None) -> Iterator[str]:
    yield f"- Encoder: SHA-256 `{digest(encoder_dir / encoder_files.TRAINED)}`"
    yield f"- Trained by commit `{run.commit or UNKNOWN}`, configuration `{run.config or UNKNOWN}`"
    if head is not None:
        yield f"- Classifier: trained by commit `{head.commit}`"
    yield f"- Exported by commit `{provenance.commit()}`, TensorFlow {tf.__version__}"


def _table(heads: list[str], rows: list[list[str]]) -> Iterator[str]:
    for cells in (heads, ["---"] * len(heads), *rows):
        yield f"| {' | '.join(cells)} |"
