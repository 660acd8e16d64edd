"""The search as it is run: proxies behind the loop, best_loss.gin at the end."""

import pathlib
from collections.abc import Callable

import gin
from absl import logging

from elo_tf import cli, files, provenance
from elo_tf.losses import LossSpace
from elo_tf.search.best_loss import write_best_loss
from elo_tf.search.journal import Candidate, read_journal
from elo_tf.search.loop import JOURNAL, run_search
from elo_tf.search.proxy import Proxy
from elo_tf.search.strategies import CMAES, Strategy
from elo_tf.training.devices import fix_threads

BEST_LOSS = "best_loss.gin"
TRACES = "traces.txt"


@gin.configurable(denylist=["run_dir"])
def search(run_dir: str, *, space: LossSpace = gin.REQUIRED,
           make_strategy: Callable[[int], Strategy] = CMAES,
           make_proxy: Callable[..., Proxy] = Proxy, generations: int = 250,
           intra_op_threads: int = 0) -> pathlib.Path:
    """Searches for the loss whose features are closest to Zipf's law.

    Args:
      run_dir: gets journal.jsonl and best_loss.gin; an unfinished search in it goes on.
      space: the loss space.
      make_strategy: called with the number of weights.
      make_proxy: called with the space, unless the search in run_dir is finished.
      generations: of the strategy.
      intra_op_threads: of every operation; 0 takes all cores. The last bits of a fitness depend on
        it: fix it where a search is to give the same on machines of different sizes.

    Returns:
      The path of best_loss.gin.
    """
    fix_threads(intra_op_threads)
    strategy = make_strategy(len(space.names))
    total = generations * strategy.population
    proxies: list[Proxy] = []
    best: list[Candidate] = []
    # Before the journal is begun, so that wrong data leave none; a finished search trains nothing.
    if read_journal(pathlib.Path(run_dir) / JOURNAL).end is None:
        logging.info("building the proxy; its first step is compiled once for all candidates")
        proxies.append(make_proxy(space=space))
    bar = cli.progress(total=total, desc="search", unit="candidate")

    def evaluate(weights: dict[str, float]) -> dict:
        return proxies[0].evaluate(weights)

    def on_candidate(candidate: Candidate, replayed: bool) -> None:
        del replayed
        if candidate.ok and (not best or candidate.fitness < best[0].fitness):
            best[:] = [candidate]
        bar.update()
        bar.set_postfix_str(
            f"fitness {candidate.fitness:.4f}, best {best[0].fitness:.4f}" if best
            else candidate.status)

    header = {"config": provenance.config_hash(gin.config_str()), "commit": provenance.commit()}
    winner = run_search(space.names, strategy, evaluate, run_dir=run_dir, generations=generations,
                        header=header, on_candidate=on_candidate)
    bar.close()
    path = pathlib.Path(run_dir) / BEST_LOSS
    if not path.exists():
        write_best_loss(path, winner, header | strategy_facts(strategy, generations),
                        dead_zone=space.dead_zone)
    if proxies:
        files.write_atomic(pathlib.Path(run_dir) / TRACES,
                           f"{proxies[0].traces} trace(s) of the train step\n")
    return path


def strategy_facts(strategy: Strategy, generations: int) -> dict:
    """What best_loss.gin says of the strategy."""
    return {"strategy": type(strategy).__name__, "seed": strategy.seed,
            "population": strategy.population, "generations": generations}
