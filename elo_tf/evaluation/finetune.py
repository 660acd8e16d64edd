"""The "fine-tune" protocol: the whole RGB network and a linear classifier, trained on labels.

The paper says nothing of its recipe. Ours is oriented by that of AVID (Morgado et al., CVPR 2021,
its published HMDB51 configuration: Adam at 1e-4 without weight decay, batches of 64, 10 epochs of
25 clips a video, the classifier trained first, 10 clips a video averaged at test).
"""

import collections
import dataclasses
import hashlib
import json
import math
import pathlib
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import gin
import numpy as np
import tensorflow as tf

from elo_tf import cli, files, provenance
from elo_tf.data import schema
from elo_tf.data.clip_spec import ClipSpec
from elo_tf.data.pipeline import reading, testing_clips, training_clips
from elo_tf.data.record_set import MixedRecords, Records
from elo_tf.errors import UserError
from elo_tf.evaluation import heads
from elo_tf.evaluation.classifier import Classifier, Optimizer
from elo_tf.evaluation.record_index import RecordIndex, read_index
from elo_tf.training import encoder_files, workers
from elo_tf.training.checkpoints import Checkpoints
from elo_tf.training.devices import distribute, make_strategy
from elo_tf.training.loop import stopped
from elo_tf.training.optimization import make_optimizer
from elo_tf.training.stopping import StopRequests
from elo_tf.views.augmentation import Augmentation

RESULT = "finetune.json"
CHECKPOINTS = "checkpoints"
_STREAM = 40  # bits of a position in the stream, above which the seed is


@gin.register
class Finetune:
    """Trains an encoder and a linear layer on labelled clips, and tests them; for many encoders.

    What it has compiled serves every later call with the same architecture, clip and number of
    classes. First the linear layer is trained alone, on a network that stays as it is; then all is,
    with learning rates that fall from the linear layer to the stem. Nothing is chosen by a look at
    the test clips: the last weights are tested, with batch-norm statistics of training clips.
    """

    def __init__(self, steps: int = 1000, batch_size: int = 16, head_warmup_steps: int = 100,
                 method: Literal["adam", "adamw", "sgd", "lars"] = "adam",
                 learning_rate: float = 1e-3, head_learning_rate: float = 1e-3,
                 layer_decay: float = 0.8, warmup: float = 0.05, clip_norm: float = 1.0,
                 momentum: float = 0.9, weight_decay: float = 0.0, dropout: float = 0.2,
                 label_smoothing: float = 0.0,
                 make_augmentation: Callable[[], Augmentation] = Augmentation,
                 statistics_steps: int = 8, log_every: int = 20, checkpoint_every: int = 200):
        """Checks the recipe; all of it is our choice.

        Args:
          steps: of training, with those of the linear layer alone.
          batch_size: clips of a step, over all devices, and views of a test batch.
          head_warmup_steps: of `steps`, those in which only the linear layer is trained; the
            others have an optimiser and a schedule of their own.
          method: of `training.optimization.make_optimizer`, as all of the next to weight_decay.
          learning_rate: of the linear layer once the whole network is trained.
          head_learning_rate: of the linear layer before.
          layer_decay: factor on the learning rate from each stage of the network to the one below,
            of linear layer, blocks 4 to 1, and stem; 1: all the same.
          warmup: share of the steps.
          clip_norm: of the whole gradient; 0: not clipped.
          momentum: of "sgd" and "lars".
          weight_decay: in units of the learning rate.
          dropout: share of the embedding zeroed before the linear layer.
          label_smoothing: share of the target that all classes have in common.
          make_augmentation: of training clips; the pre-training's by default.
          statistics_steps: batches for the final batch-norm statistics.
          log_every: steps between looks at the loss.
          checkpoint_every: steps between checkpoints.

        Raises:
          UserError: for a setting out of its range.
        """
        for name, value, good, wanted in (
                ("steps", steps, steps >= 1, "1 or more"),
                ("batch_size", batch_size, batch_size >= 1, "1 or more"),
                ("head_warmup_steps", head_warmup_steps, 0 <= head_warmup_steps <= steps,
                 f"between 0 and Finetune.steps, {steps}"),
                ("learning_rate", learning_rate, learning_rate > 0, "more than 0"),
                ("head_learning_rate", head_learning_rate, head_learning_rate > 0, "more than 0"),
                ("layer_decay", layer_decay, 0 < layer_decay <= 1, "more than 0, and at most 1"),
                ("dropout", dropout, 0 <= dropout < 1, "0 or more, and less than 1"),
                ("label_smoothing", label_smoothing, 0 <= label_smoothing < 1,
                 "0 or more, and less than 1"),
                ("statistics_steps", statistics_steps, statistics_steps >= 1, "1 or more"),
                ("log_every", log_every, log_every >= 1, "1 or more"),
                ("checkpoint_every", checkpoint_every, checkpoint_every >= 1, "1 or more")):
            if not good:
                raise UserError(f"Finetune.{name} is {value}; it must be {wanted}")
        self._steps, self._head_steps, self._batch_size = steps, head_warmup_steps, batch_size
        self._optimization = {
            "name": method, "warmup": warmup, "clip_norm": clip_norm, "momentum": momentum,
            "weight_decay": weight_decay}
        self._rates = {"head": head_learning_rate, "all": learning_rate}
        self._network = {"layer_decay": layer_decay, "dropout": dropout,
                         "label_smoothing": label_smoothing}
        self._augmentation = make_augmentation()
        self._statistics_steps = statistics_steps
        self._log_every, self._checkpoint_every = log_every, checkpoint_every
        self._make_optimizers()  # Says at once what is wrong with them.
        self._strategy = make_strategy()
        if workers.share(self._strategy)[1] > 1:
            raise UserError("fine-tuning runs on one host; start it without --worker_hosts and "
                            "TF_CONFIG")
        self._indices: dict[tuple[str, str], RecordIndex] = {}
        self._compiled: tuple | None = None
        self.classifier: Classifier | None = None

    def __call__(self, encoder_dir: pathlib.Path, file: str, clip: ClipSpec,
                 records: Records | MixedRecords, train_split: str, test_split: str, *, seed: int,
                 windows: int, crops: int, folder: pathlib.Path,
                 labelled: Collection[str] | None = None,
                 keep: pathlib.Path | None = None) -> float:
        """Trains on one split and tests on another.

        Args:
          encoder_dir: the folder `encoder` of a pre-training.
          file: in it, the network to start from.
          clip: the clip's size.
          records: with labels in both splits.
          train_split: to train on.
          test_split: to test on.
          seed: of the linear layer, the order of the clips and every draw.
          windows: clips of each test video, spread evenly.
          crops: of each window; the softmax probabilities of a video's windows x crops views are
            averaged.
          folder: keeps the checkpoint of an unfinished call, and the result of a finished one,
            which is not computed again.
          labelled: ids of the training clips that are used; None for all.
          keep: gets the trained network and its linear layer, see `heads`; None: not kept.

        Returns:
          The share of test videos whose likeliest class is theirs, in [0, 1].

        Raises:
          UserError: if clips lack labels, `labelled` names none of them, the loss stops being
            finite, or `folder` holds another call's results.
          Stopped: on SIGTERM or SIGINT, after saving.
        """
        folder = pathlib.Path(folder)
        encoder = encoder_files.load_encoder(pathlib.Path(encoder_dir), file)
        train, test = (self._read_index(records, split) for split in (train_split, test_split))
        self._check_labels(records, train_split, train, labelled)
        self._check_labels(records, test_split, test)
        own = {"encoder": heads.digest(pathlib.Path(encoder_dir) / file), "seed": seed,
               "train": [train_split, train.fingerprint, _digest(labelled)],
               "test": [test_split, test.fingerprint, windows, crops],
               "recipe": [self._steps, self._head_steps, self._batch_size, self._optimization,
                          self._rates, self._network, self._statistics_steps]}
        own = json.loads(json.dumps(own))
        accuracy = _begin(folder, own)
        if accuracy is not None:
            return accuracy
        # With those of the label map that no clip has: one network serves all subsets of clips.
        network = self._build(
            encoder, clip, max(*train.labels, *test.labels, len(records.labels()) - 1) + 1)
        network.reset(encoder, seed)
        self._train(network, records, train_split, clip, seed, folder, labelled, json.dumps(own))
        views = windows * crops
        clips = testing_clips(records, test_split, clip, batch_size=self._batch_size,
                              windows=windows, crops=crops, modalities=("rgb",))
        with reading(records, test_split):
            probabilities, truth = network.predict(
                clips, views, total=math.ceil(len(test.ids) * views / self._batch_size),
                desc=f"testing {folder.name}")
        accuracy = float(np.mean(probabilities.argmax(axis=1) == truth))
        if keep is not None:
            used = collections.Counter(
                label for name, label in zip(train.ids, train.labels, strict=True)
                if labelled is None or name in labelled)
            kernel, bias = network.head.get_weights()
            classes = range(len(bias))
            heads.save_head(keep, kernel, bias, heads.HeadFacts(
                kind="finetune", encoder=own["encoder"],
                classes=heads.class_names(records.labels(), classes),
                training_clips=[used[i] for i in classes], train_split=train_split,
                test_split=test_split, test_clips=len(truth), test_accuracy=accuracy,
                chance=float(np.bincount(truth).max() / len(truth)), windows=windows, crops=crops,
                seed=seed, recipe=self._recipe(),
                of=[own]), network=network.encoder)
        files.write_atomic(folder / RESULT, json.dumps(
            {"accuracy": accuracy, "test_clips": len(truth), "of": own}, indent=1) + "\n")
        return accuracy

    def _recipe(self) -> dict[str, Any]:
        """The settings, by their names in gin."""
        optimization = dict(self._optimization)
        return {"steps": self._steps, "head_warmup_steps": self._head_steps,
                "batch_size": self._batch_size, "method": optimization.pop("name"),
                "learning_rate": self._rates["all"], "head_learning_rate": self._rates["head"],
                **optimization, **self._network}

    def _make_optimizers(self) -> tuple[Optimizer, Optimizer]:
        """Those of the linear layer by itself, and of the whole network."""
        phases = {"head": self._head_steps, "all": self._steps - self._head_steps}
        return tuple(
            make_optimizer(max(steps, 1), self._batch_size, learning_rate=self._rates[phase],
                           **self._optimization) for phase, steps in phases.items())

    def _build(self, encoder: tf.keras.Model, clip: ClipSpec, classes: int) -> Classifier:
        """Makes the classifier, if the last one does not fit."""
        wanted = (json.dumps(encoder.get_config(), sort_keys=True, default=str), clip, classes)
        if self.classifier is None or self._compiled != wanted:
            self.classifier = Classifier(
                encoder, clip, classes, strategy=self._strategy,
                make_optimizers=self._make_optimizers, augmentation=self._augmentation,
                **self._network)
            self._compiled = wanted
        return self.classifier

    def _train(self, network: Classifier, records: Records | MixedRecords, split: str,
               clip: ClipSpec, seed: int, folder: pathlib.Path,
               labelled: Collection[str] | None, config: str) -> None:
        """Trains to the end from the last checkpoint, and estimates the final statistics."""
        checkpoints = Checkpoints(network.parts, folder / CHECKPOINTS, keep_last=1, keep_best=0,
                                  config=provenance.config_hash(config))

        def clips(start_step: int, seed: int) -> tf.data.Dataset:
            batches = training_clips(
                records, split, _trained(clip), batch_size=self._batch_size, seed=seed,
                start_step=start_step, modalities=("rgb",), other=False, keep=labelled)
            # Draws on the device are a function of the position; the compiled step has no seed.
            return batches.map(lambda batch: batch | {"index": batch["index"] + (seed << _STREAM)})

        with reading(records, split):
            start = checkpoints.restore()
            if start < self._steps:
                self._loop(network, iter(distribute(self._strategy, clips(start, seed))), start,
                           checkpoints, f"fine-tuning {folder.name}")
            if self._steps > self._head_steps:
                network.estimate_statistics(clips(0, seed + 1).take(self._statistics_steps))

    def _loop(self, network: Classifier, batches: Iterator, start: int,
              checkpoints: Checkpoints, desc: str) -> None:
        reports: list[tuple[int, Mapping[str, tf.Tensor]]] = []
        with StopRequests() as stop, cli.progress(
                total=self._steps, initial=start, desc=desc, unit="step") as bar:
            for step in range(start + 1, self._steps + 1):
                train = network.head_step if step <= self._head_steps else network.full_step
                reports.append((step, train(batches)))
                bar.update()
                last, stops = step == self._steps, stop.received is not None
                saves = last or stops or step % self._checkpoint_every == 0
                if saves or step % self._log_every == 0:
                    bar.set_postfix_str(f"loss {_last_loss(reports):.3f}", refresh=False)
                    reports = []
                if saves:
                    checkpoints.save(step)
                if stops and not last:
                    raise stopped(stop, step)

    def _read_index(self, records: Records | MixedRecords, split: str) -> RecordIndex:
        """What a split holds, read once."""
        key = (records.directory, split)
        if key not in self._indices:
            self._indices[key] = read_index(records, split)
        return self._indices[key]

    def _check_labels(self, records: Records | MixedRecords, split: str, index: RecordIndex,
                      labelled: Collection[str] | None = None) -> None:
        """Raises UserError where labels lack, or a stream of the labelled clips gives none."""
        if not index.ids:
            raise UserError(f"no record of split {split!r} in {records.directory} can be read; "
                            "convert more videos")
        unlabelled = sum(label < 0 for label in index.labels)
        if unlabelled:
            raise UserError(f"{unlabelled} of {len(index.ids)} records of split {split!r} in "
                            f"{records.directory} have no label; convert it with --labels=folders "
                            "or from a CSV with labels")
        sources = [source for source, _ in records.weighted()]
        if len(sources) > 1 and not records.labels():
            raise UserError(f"the sources of {records.directory} have no label map in common; "
                            f"give each the same {schema.LABELS_FILE}")
        if labelled is None:
            return
        for source in sources:
            if not set(labelled).intersection(self._read_index(source, split).ids):
                raise UserError(f"split {split!r} in {source.directory} has none of the "
                                f"{len(labelled)} clips whose labels are to be used; take more")


def _trained(clip: ClipSpec) -> ClipSpec:
    """The clip without the frames after it, which nothing asks for (one is the least)."""
    return dataclasses.replace(clip, next_frames=1)


def _last_loss(reports: Sequence[tuple[int, Mapping[str, tf.Tensor]]]) -> float:
    """Fetches the reports of some steps; the loss of the last.

    Raises:
      UserError: for the first that is not finite.
    """
    for step, report in reports:
        for name, value in report.items():
            if not np.isfinite(value):
                raise UserError(
                    f"fine-tuning has diverged: the {name.replace('_', ' ')} is {float(value)} at "
                    f"step {step}; lower Finetune.learning_rate or Finetune.head_learning_rate")
    return float(reports[-1][1]["loss"])


def _begin(folder: pathlib.Path, own: Mapping[str, Any]) -> float | None:
    """Notes in a folder what it is for; the accuracy, if that is done.

    Raises:
      UserError: if it is for something else.
    """
    path = folder / RESULT
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["of"] != own:
            different = [name for name in own if found["of"].get(name) != own[name]]
            raise UserError(f"{path} is of another fine-tuning ({', '.join(different)} differ); "
                            "use another --run_dir, or delete that folder")
        accuracy = found.get("accuracy")
        if accuracy is not None:
            # Large, and of no use any more.
            shutil.rmtree(path.parent / CHECKPOINTS, ignore_errors=True)
        return accuracy
    files.write_atomic(path, json.dumps({"of": own}, indent=1) + "\n")
    return None


def _digest(names: Collection[str] | None) -> str | None:
    """A hash of a set of names; None of None."""
    return names if names is None else hashlib.sha256(
        json.dumps(sorted(names)).encode()).hexdigest()
