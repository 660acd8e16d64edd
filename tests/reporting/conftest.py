"""Journals of searches as a search writes them, with values that look like those of one."""

import numpy as np
import pytest

from elo_tf.search import choice
from elo_tf.search.candidate import Candidate
from elo_tf.search.journal import candidate_record, open_journal

CLUSTERS = 12


def _write_search(folder, names, *, generations=4, population=6, failed=None, weak=True,
                  leaders=3, repeats=2, control=True, end=True, strategy="CMAES", seed=5):
    """Writes `journal.jsonl` into a folder.

    Args:
      folder: is made.
      names: of the losses; the last one is not searched.
      failed: {(generation, index): reason}.
      weak: whether labels were there.
      end: whether the leaders were evaluated again and the search ended.

    Returns:
      The journal.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    failed = failed or {}
    target = draw.beta(0.6, 0.8, len(names))
    mean = np.full(len(names), 0.5)

    def by_name(values):
        return dict(zip(names, np.asarray(values).tolist(), strict=True))

    def measured(weights, luck):
        distance = float(np.mean((weights - target) ** 2))
        zipf = 0.2 + 4 * distance + luck * float(draw.random())
        return {"zipf": zipf, "fitness": zipf,
                "weak": float(np.clip(0.6 - distance + 0.05 * draw.normal(), 0, 1)) if weak
                else None,
                "histogram": tuple(np.sort(draw.dirichlet(np.full(CLUSTERS, 1.5)))[::-1]),
                "spread": 1.25, "effective_rank": 7.5}

    folder.mkdir(parents=True)
    with open_journal(folder / "journal.jsonl") as writer:
        writer.write("search", version=2, names=list(names), searched=list(names)[:-1],
                     strategy=strategy, seed=1, population=population, generations=generations,
                     leaders=leaders, repeats=repeats, failed_fitness=1000.0,
                     config="c0ffee" * 10, commit="0123456789ab")

        def write_control(repeat):
            writer.write("control", repeat=repeat, zipf=1.5 + 0.01 * repeat,
                         weak=0.15 if weak else None, histogram=[1 / CLUSTERS] * CLUSTERS,
                         spread=0.5, effective_rank=3.0, seconds={"build": 20.0, "step": 0.1},
                         facts={"steps": 60, "batch_size": 8, "gpus": 0})

        if control:
            write_control(0)
            writer.write("forecast", candidates=population * generations,
                         repeats=leaders * repeats, workers=1, steps=60, batch_size=8, clips=480,
                         devices="2 CPU core(s)", gpus=0, cores=2, seconds_per_candidate=9.5,
                         unit="core-hours", unit_hours_per_candidate=9.5 * 2 / 3600,
                         hours=30 * 9.5 / 3600)
        for generation in range(generations):
            writer.write("asked", generation=generation, size=population)
            for index in range(population):
                weights = np.clip(mean + 0.3 * draw.normal(size=len(names)), 0, 1)
                first = (generation, index) == (0, 0)
                fields = measured(weights, 0.1) | {
                    "losses": by_name(draw.random(len(names)).astype(np.float32))}
                reason = failed.get((generation, index))
                if reason:
                    fields = {"fitness": 1000.0, "status": f"failed: {reason}"}
                writer.write("candidate", **candidate_record(Candidate(
                    generation=generation, index=index, weights=by_name(weights),
                    seconds={"total": 30.0 if first else 10.0, "train": 7.0, "features": 2.0,
                             "cluster": 0.25, **({"weak": 0.5} if weak else {})},
                    worker="here:1", **fields)))
            mean = mean + 0.4 * (target - mean)
            axes = [(0.9 / (1 + i), dict(zip(names[:-1], np.linalg.qr(draw.normal(
                size=(len(names) - 1, 1)))[0][:, 0].tolist(), strict=True))) for i in range(3)]
            writer.write("generation", generation=generation, best=min(
                x.fitness for x in writer.journal.candidates if x.generation == generation),
                mean=by_name(mean), sigma=0.3 * 0.97**generation, axes=axes)
        if end:
            for leader in choice.leaders(writer.journal):
                for repeat in range(1, repeats + 1):
                    weights = np.array(list(leader.weights.values()))
                    writer.write("candidate", **candidate_record(Candidate(
                        generation=leader.generation, index=leader.index, repeat=repeat,
                        weights=dict(leader.weights), seconds={"total": 10.0}, worker="here:1",
                        **measured(weights, 0.3))))
            for repeat in range(1, repeats + 1 if control else 1):
                write_control(repeat)
            verdict = choice.verdict(writer.journal)
            if verdict:
                writer.write("end", reason=f"all {generations} generations done", best=verdict)
        return writer.journal


@pytest.fixture(scope="session")
def write_search():
    """The function that writes a search's journal and returns it."""
    return _write_search
