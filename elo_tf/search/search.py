"""The search as it is run: proxies behind the loop, best_loss.gin at the end."""

import functools
import importlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import tensorflow as tf
from absl import flags, logging

from elo_tf import cli, files, provenance, quiet
from elo_tf.errors import UserError
from elo_tf.losses import LossSpace
from elo_tf.search import choice, engines, forecast
from elo_tf.search.best_loss import write_best_loss
from elo_tf.search.candidate import Candidate, Control
from elo_tf.search.journal import Journal, read_journal
from elo_tf.search.loop import JOURNAL, Watcher, run_search
from elo_tf.search.proxy import Proxy
from elo_tf.search.space import SearchSpace
from elo_tf.search.strategies import CMAES, Strategy
from elo_tf.search.summaries import SearchSummaries
from elo_tf.training.devices import fix_threads

BEST_LOSS = "best_loss.gin"
CLUSTERS = "clusters.json"


@gin.configurable(denylist=["run_dir", "workers", "ray_address", "imports", "watchers"])
def search(run_dir: str, *, space: SearchSpace = gin.REQUIRED,
           make_strategy: Callable[[Sequence[str]], Strategy] = CMAES, generations: int = 250,
           leaders: int = 5, repeats: int = 2, time_limit: float = 0.0, memory_gb: float = 0.0,
           gpus: int | None = None, cpus: int = 1, workers: str = "0",
           ray_address: str | None = None, imports: Sequence[str] = (),
           watchers: Sequence[Watcher] = ()) -> pathlib.Path:
    """Searches for the loss whose features are closest to Zipf's law.

    Args:
      run_dir: gets journal.jsonl and best_loss.gin; an unfinished search in it goes on.
      space: which weights are searched, and how.
      make_strategy: called with the names of the searched losses.
      generations: of the strategy.
      leaders: how many of the best are evaluated again in the end.
      repeats: how often, each with a seed of its own; see `run_search`.
      time_limit: seconds for one candidate, after which it has failed; 0: none.
      memory_gb: that one candidate may take in a local process, in GB; 0: no limit.
      gpus: of each candidate, for processes and actors; None: one, where this machine has any.
      cpus: cores of each candidate, for actors without GPUs.
      workers: "0": this process; a number: so many local processes; "ray": actors of a cluster.
      ray_address: of a running cluster; None starts Ray on this machine.
      imports: modules that register what the configuration names, for other processes.
      watchers: told of what happens, beside the progress bar.

    Returns:
      The path of best_loss.gin.
    """
    folder = pathlib.Path(run_dir)
    strategy = make_strategy(space.searched)
    candidates = _candidates(strategy, generations)
    header = {"config": provenance.config_hash(gin.config_str()), "commit": provenance.commit(),
              "dead_zone": space.losses.dead_zone}
    build = functools.partial(build_proxy, time_limit=time_limit)
    if workers != "0":
        build = functools.partial(build_elsewhere, gin.config_str(), tuple(imports), time_limit)
    with make_engine(build, workers, ray_address, time_limit=time_limit, memory_gb=memory_gb,
                     gpus=gpus, cpus=cpus) as engine:
        # Before the journal is begun, so that wrong data leave none; a finished search trains
        # nothing.
        if read_journal(folder / JOURNAL).end is None:
            logging.info("building the proxy; its step is compiled once for all candidates")
            engine.start()

        def expected(control: Control) -> dict[str, Any]:
            # Local workers share the cores of this machine; actors have those they ask for.
            cores = cpus if workers == "ray" else max(1, (os.cpu_count() or 1) // engine.workers)
            return forecast.forecast(control, candidates=candidates, repeats=leaders * repeats,
                                     workers=engine.workers, cores=cores)

        journal = run_search(
            space, strategy, engine, run_dir=run_dir, generations=generations, leaders=leaders,
            repeats=repeats, header=header, forecast=expected,
            watchers=[_Terminal(candidates + leaders * repeats), _Clusters(folder),
                      SearchSummaries(run_dir), *watchers])
    path = folder / BEST_LOSS
    if not path.exists():
        write_best_loss(path, journal, dead_zone=space.losses.dead_zone)
    return path


@gin.configurable(denylist=["time_limit", "quiet"])
def build_proxy(*, losses: LossSpace = gin.REQUIRED, make_proxy: Callable[..., Proxy] = Proxy,
                intra_op_threads: int = 2, deterministic: bool = False, time_limit: float = 0.0,
                quiet: bool = False) -> Proxy:
    """Builds what evaluates candidates in one process.

    Args:
      losses: the loss space; all its losses are built.
      make_proxy: called with space, time_limit and quiet.
      intra_op_threads: of every operation on a CPU, on whose number the last bits of a fitness
        depend: one number, whatever the workers and the machine. Operations that do not depend on
        each other run at the same time in any case. Not 1: the kernels of TensorFlow 2.15 then
        give other last bits from time to time, unless the process has a single core. 0 takes all
        cores.
      deterministic: use TensorFlow's deterministic kernels, where a GPU has others that are
        faster: without them its bits differ from run to run.
      time_limit: seconds of a training.
      quiet: without progress bars.
    """
    fix_threads(intra_op_threads)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if not tf.config.list_physical_devices("GPU"):
        # The graph's optimiser takes longer than it saves: without it a step is as fast on a CPU,
        # and its compiling by a third faster. For GPUs it also decides the layout.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    return make_proxy(space=losses, time_limit=time_limit, quiet=quiet)


def build_elsewhere(config: str, imports: Sequence[str], time_limit: float) -> Proxy:
    """Builds the same in a process that knows nothing of the configuration yet."""
    if not flags.FLAGS.is_parsed():  # absl would say so with the first line of the log.
        flags.FLAGS.mark_as_parsed()
    quiet.configure_logging()
    for name in imports:
        importlib.import_module(name)
    gin.clear_config()
    gin.parse_config(config)
    gin.finalize()
    try:
        return build_proxy(time_limit=time_limit, quiet=True)
    except UserError as error:  # gin's copy of it does not pickle.
        raise UserError(error.message) from None


def make_engine(build: Callable[[], Proxy], workers: str, ray_address: str | None, *,
                time_limit: float, memory_gb: float, gpus: int | None,
                cpus: int) -> engines.Engine:
    """The engine of a --workers flag; see `search`.

    Raises:
      UserError: the flag is neither a number nor "ray", or there are fewer GPUs than a candidate
        takes.
    """
    if workers == "0":
        return engines.InProcess(build)
    here = len(tf.config.list_physical_devices("GPU"))
    tf.config.set_visible_devices([], "GPU")  # They are the workers', to their last byte.
    gpus = min(here, 1) if gpus is None else gpus
    # A proxy looks at its time between steps; this is for one that does not come so far.
    limit = 1.1 * time_limit + 30 if time_limit else None
    if workers == "ray":
        return engines.RayActors(build, ray_address, gpus=gpus, cpus=cpus, time_limit=limit)
    if not workers.isdigit():
        raise UserError(f"--workers is {workers!r}; it must be a number of processes, 0 for none, "
                        "or ray")
    if gpus > here:
        raise UserError(f"search.gpus is {gpus}, but this machine has {here} GPU(s)")
    names = [",".join(map(str, range(first, first + gpus)))
             for first in range(0, here - gpus + 1, gpus)] if gpus else []
    return engines.LocalProcesses(build, int(workers), time_limit=limit,
                                  memory=int(memory_gb * 1e9) or None, gpus=names)


def _candidates(strategy: Strategy, generations: int) -> int:
    """How many candidates the strategy is expected to propose."""
    size = getattr(strategy, "size", None)  # of a grid
    most = generations * strategy.population
    return most if size is None else min(size, most)


class _Terminal(Watcher):
    """The progress bar: best so far, candidates done, and the time left."""

    def __init__(self, total: int):
        self._total = total
        self._bar: Any = None

    def on_start(self, journal: Journal) -> None:
        """Says what the search will cost, and what is known."""
        control = journal.controls[0]
        if journal.forecast is not None:
            print(forecast.sentence(journal.forecast), flush=True)
        untrained = f"{control.zipf:.4f}" if control.ok else control.status
        logging.info("untrained network: Zipf fitness %s", untrained)
        known = len(journal.candidates) + len(journal.repeats)
        self._bar = cli.progress(total=self._total, initial=known, desc="search",
                                 unit="candidate")

    def on_candidate(self, journal: Journal, candidate: Candidate,
                     clusters: Mapping[str, Any] | None) -> None:
        """One more."""
        del clusters
        best = journal.best
        self._bar.set_postfix_str(
            f"fitness {candidate.fitness:.4f}, best {best.fitness:.4f}" if candidate.ok and best
            else candidate.status, refresh=False)
        self._bar.update()

    def on_end(self, journal: Journal) -> None:
        """Closes the bar."""
        if self._bar is not None:
            self._bar.close()


class _Clusters(Watcher):
    """Keeps the clips of the best candidate's clusters, for the report to show."""

    def __init__(self, folder: pathlib.Path):
        self._path = folder / CLUSTERS

    def on_candidate(self, journal: Journal, candidate: Candidate,
                     clusters: Mapping[str, Any] | None) -> None:
        """Writes them where this candidate leads, with whatever seed."""
        leading = choice.front_runner(journal)
        if clusters is None or leading is None or candidate.place != leading[0].place:
            return
        files.write_atomic(self._path, json.dumps({
            "generation": candidate.generation, "index": candidate.index,
            "repeat": candidate.repeat, "fitness": candidate.fitness, **clusters}) + "\n")
