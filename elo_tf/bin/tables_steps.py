"""What bin/tables does: a job for each method and seed, of the project's programs."""

import dataclasses
import pathlib
import shlex
import time
from collections.abc import Iterator, Sequence
from concurrent import futures

from elo_tf import parallel_ray
from elo_tf.bin import configuration, steps
from elo_tf.bin.steps import Step
from elo_tf.errors import UserError
from elo_tf.reporting.tables import DATA, EVALUATION, METHODS, Plan, run_name
from elo_tf.training import encoder_files

PAPERS = "papers/elo_cvpr2020"
UNTRAINED = ("scratch", "imagenet")  # by bin/initial; the others are trained
IMAGENET = "imagenet"
_FROZEN = ("evaluate.finetune = None",)
# What the searches of the paper's other variants differ by.
_SEARCHES = {
    "elo": "",
    "elo_weak": " --gin_bindings=\"Fitness.guide = 'weak'\"",
    "elo_no_distillation": (
        " --gin_bindings=\"SearchSpace.searched = ('rgb/reconstruct', 'rgb/predict', "
        "'rgb/transfer', 'rgb/shuffle', 'rgb/contrast', 'flow/reconstruct', 'flow/predict', "
        "'flow/transfer')\"")}


@dataclasses.dataclass(frozen=True)
class Job:
    """The steps of one training and its evaluation, one after the other.

    Attributes:
      row: the method.
      title: what it is.
      steps: to be done.
      log: file that gets their output.
      not_run: why it is not done, where it was not asked for.
    """

    row: str
    title: str
    steps: tuple[Step, ...]
    log: pathlib.Path
    not_run: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return all(step.product.exists() for step in self.steps)


class Steps:
    """The jobs of all methods, in a folder."""

    def __init__(self, run_dir: pathlib.Path, data: pathlib.Path, plan: Plan,
                 gin_flags: Sequence[str], *, imagenet_weights: str = "",
                 bindings: Sequence[str] = ()):
        """Names the folders.

        Args:
          run_dir: of everything.
          data: folder of records.
          plan: what is compared.
          gin_flags: --gin_file and --gin_bindings of every program, after the method's own file.
          imagenet_weights: of the method `imagenet`; without, it is not run.
          bindings: of every program, such as the splits.
        """
        self.run_dir = run_dir
        self._data = data
        self._plan = plan
        self._gin_flags = (*gin_flags, *(f"--gin_bindings={x}" for x in bindings))
        self._imagenet_weights = imagenet_weights

    def motion_videos(self) -> Iterator[Step]:
        """Makes and converts videos; see `steps.motion_videos`."""
        return steps.motion_videos(self.run_dir / "videos", self._data, self.run_dir / DATA,
                                   clips=self._plan.clips, classes=self._plan.classes)

    def folds(self, videos: pathlib.Path, folds: int) -> Iterator[Step]:
        """Makes folds of a folder's labels.csv and converts each.

        Args:
          videos: with `labels.csv`, see tools/make_folds.
          folds: how many.
        """
        lists = self.run_dir / "lists"
        product = self.run_dir / DATA
        yield Step(f"make {folds} folds that hold groups out", (
            "tools.make_folds", f"--input={videos / 'labels.csv'}", f"--output={lists}",
            f"--folds={folds}"), product)
        names = ("unlabelled", *(x for pair in fold_splits(folds) for x in pair))
        for split in names:
            yield steps.convert(lists / f"{split}.csv", self._data, split, product, root=videos,
                                fps=self._plan.fps, min_side=self._plan.min_side,
                                region=self._plan.region)

    def jobs(self) -> Iterator[Job]:
        """All jobs: all methods with the first seed before any with the second."""
        for seed in self._plan.seeds:
            for row in self._plan.rows:
                yield self._job(row, seed)
            if "elo" in self._plan.rows:
                for heldout in self._plan.heldout:
                    yield self._job("elo", seed, heldout)

    def _job(self, row: str, seed: int, heldout: int | None = None) -> Job:
        name = run_name(row, seed, heldout=heldout)
        title = f"{METHODS[row]}, seed {seed}" + (
            "" if heldout is None else f", {100 - heldout}% of the unlabelled clips")
        log = self.run_dir / "logs" / f"{name}.log"
        if row == IMAGENET and not self._imagenet_weights:
            return Job(row, title, (), log, "not run: no weights file given")
        work = [self._train(row, seed, name, heldout, title)]
        curve = ("evaluate.label_curve = @LabelCurve()",) if row in self._plan.curve_rows else ()
        if heldout is not None:
            work.append(self._evaluate(row, name, name, title, (
                *_FROZEN, "evaluate.protocols = (@LinearProtocol(),)")))
        else:
            work.append(self._evaluate(row, name, name, title, curve))
        if self._plan.static and heldout is None:
            work.append(self._evaluate(row, name, run_name(row, seed, static=True),
                                       f"{title}, with one frame alone",
                                       (*_FROZEN, "evaluate.static = True")))
        return Job(row, title, tuple(work), log)

    def _flags(self, row: str, *, loss: Sequence[pathlib.Path] = (),
               bindings: Sequence[str] = ()) -> tuple[str, ...]:
        """Files, then bindings: the method's own file first, so that the scale's wins."""
        return (f"--data={self._data}", f"--gin_file={PAPERS}/{row}.gin", *self._gin_flags,
                *(f"--gin_file={x}" for x in loss), *(f"--gin_bindings={x}" for x in bindings))

    def _train(self, row: str, seed: int, name: str, heldout: int | None, title: str) -> Step:
        run_dir = self.run_dir / "pretrain" / name
        product = run_dir / "encoder" / encoder_files.TRAINED
        end = (f"--run_dir={run_dir}",)
        if row in UNTRAINED:
            bindings = (f"initial.seed = {seed}",) + (
                (f"inflated_resnet50.weights = {self._imagenet_weights!r}",)
                if row == IMAGENET else ())
            return Step(f"make the network: {title}", (
                "elo_tf.bin.initial", *self._flags(row, bindings=bindings), *end), product)
        bindings = (f"pretrain.seed = {seed}",
                    *((f"random_weights.seed = {seed}",) if row == "random_loss" else ()),
                    *(() if heldout is None else (f"Records.heldout_percent = {heldout}",)))
        loss = (self._searched(row),) if row in self._plan.searches else ()
        return Step(f"train: {title}", (
            "elo_tf.bin.pretrain", *self._flags(row, loss=loss, bindings=bindings), *end), product)

    def _evaluate(self, row: str, trained: str, name: str, title: str,
                  bindings: Sequence[str]) -> Step:
        run_dir = self.run_dir / "evaluate" / name
        encoder = self.run_dir / "pretrain" / trained / "encoder"
        bindings = ("evaluate.networks = ('trained',)", f"evaluate.method = {row!r}", *bindings)
        return Step(f"evaluate: {title}", (
            "elo_tf.bin.evaluate", *self._flags(row, bindings=bindings), f"--encoder={encoder}",
            f"--run_dir={run_dir}"), run_dir / EVALUATION)

    def _searched(self, row: str) -> pathlib.Path:
        # An absolute path stays as it is.
        return configuration.ROOT / self._plan.searches[row]

    def lacking(self, job: Job) -> str:
        """The search that a job needs and that is not there; empty if it can run."""
        needed = self._plan.searches.get(job.row)
        return "" if not needed or self._searched(job.row).is_file() else needed

    def search_command(self, row: str) -> str:
        """How to search for a method's loss at the mini scale."""
        return (f"python -m elo_tf.bin.search --gin_file=study.gin --gin_file=search/cma_es.gin"
                f"{_SEARCHES.get(row, '')} "
                + shlex.join((f"--data={self._data}", f"--run_dir=search_{row}")))


def fold_splits(folds: int) -> tuple[tuple[str, str], ...]:
    """The pairs of splits that `tools.make_folds` makes."""
    return tuple((f"train{i}", f"test{i}") for i in range(1, folds + 1))


def run_job(job: Job) -> float:
    """Does a job's steps.

    Returns:
      Seconds it took.

    Raises:
      StepFailedError: a step failed.
    """
    started = time.monotonic()
    for step in job.steps:
        step.run(job.log)
    return time.monotonic() - started


def run_jobs(jobs: Sequence[Job], workers: str,
             ray_address: str | None = None) -> Iterator[tuple[int, float | Exception]]:
    """Runs jobs, several at a time; one that fails stops no other.

    Args:
      jobs: to run.
      workers: how many at a time, or "ray": as many as a cluster has cores.
      ray_address: of a running cluster, which sees the same files; None to start one here.

    Yields:
      (index of the job, seconds it took, or why it failed), in the order of completion.

    Raises:
      UserError: `workers` is neither.
    """
    if workers == "ray":
        with parallel_ray.cluster(ray_address):
            yield from parallel_ray.run_tasks(run_job, jobs, retries=0)
        return
    if not workers.isdigit() or not int(workers):
        raise UserError(f"--workers={workers}; give a number of 1 or more, or ray")
    pool = futures.ThreadPoolExecutor(int(workers))
    running = {pool.submit(run_job, job): i for i, job in enumerate(jobs)}
    try:
        for done in futures.as_completed(running):
            error = done.exception()
            if error is None or isinstance(error, Exception):
                yield running[done], error or done.result()
            else:
                raise error
    except BaseException:
        steps.stop_all()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
