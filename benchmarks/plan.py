"""What a configuration costs: counts from the graph of its step, and a forecast for devices.

    python -m benchmarks.plan --gin_file=papers/elo_cvpr2020/final.gin
    python -m benchmarks.plan --search --gin_file=papers/elo_cvpr2020/search.gin

The step is built and traced, on the CPU; it is never run, and no records are needed. Every clip
counts as having flow, sound and a window of another time. See `training.costs` for what is counted.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence

import gin
from absl import flags, logging

from elo_tf import cli
from elo_tf.bin import configuration
from elo_tf.errors import UserError
from elo_tf.training import costs
from elo_tf.training.optimization import create_slots

SEARCH = flags.DEFINE_bool("search", False, "Plan the search instead of the final training.")
BATCH = flags.DEFINE_integer("batch", 1, "Clips of a device in one pass.", lower_bound=1)
RECOMPUTE = flags.DEFINE_list(
    "recompute", ["none", "units", "views", "both"],
    "Values of PretrainingModel.recompute to count beside that of the configuration.")
DEVICES = flags.DEFINE_integer(
    "devices", None, "Devices that train; the paper's 64, or 8 a candidate, by default.",
    lower_bound=1)
PEAK = flags.DEFINE_float(
    "peak_tflops", None, "Peak of a device in TFLOP/s, beside the devices known by name.",
    lower_bound=1e-9)
UTILISATION = flags.DEFINE_float(
    "utilisation", 0.4, "Share of the peak that is reached; an assumption, not a measurement.",
    lower_bound=1e-9, upper_bound=1.0)
flags.FLAGS.set_default("run_dir", "")  # nothing is written

# TFLOP/s: dense peaks of the maker's data sheets, with bfloat16 inputs. V100 has float16
# only, which is not offered here: it is listed as what there was when the paper was written.
NAMED_DEVICES = {"V100 (float16)": 125.0, "A100": 312.0, "H100 SXM": 989.0}
MEMORIES_GB = (32, 80)  # of a V100; of the other two

PAPER_VIDEOS, PAPER_EPOCHS = 2_000_000, 100
PAPER_DEVICES, PAPER_DAYS = 64, 3
PAPER_CANDIDATE_DEVICES, PAPER_CANDIDATE_HOURS = 8, 4
PAPER_ROUNDS, PAPER_TOURNAMENT_ROUNDS = 250, 2000


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of a configuration.

    Attributes:
      by_recompute: the step's costs, by value of PretrainingModel.recompute.
      parameters: trainable numbers, by encoder; "heads" are all that is no encoder.
      state_bytes: variables and the optimiser's.
      input_bytes: a clip, as it reaches the device.
      losses: how many are built.
    """

    by_recompute: dict[str, costs.Costs]
    parameters: dict[str, int]
    state_bytes: int
    input_bytes: int
    losses: int


def count(batch: int, recomputes: list[str], names: Sequence[str] | None = None) -> Counts:
    """Builds and traces the configured step, once for each way to recompute.

    Args:
      batch: clips in a pass.
      recomputes: values of PretrainingModel.recompute.
      names: of the losses; None for all of the space.
    """
    of = gin.get_configurable
    space, clip = of("LossSpace")(), of("ClipSpec")()
    by_recompute = {}
    for recompute in recomputes:
        started = time.perf_counter()
        logging.info("building and tracing the step, recompute = %s", recompute)
        # Parts of a batch cost each the same; what XLA fuses is not in the graph.
        model = of("PretrainingModel")(
            clip, space, names=names, seed=1, recompute=recompute, accumulate=1, xla=False)
        model.compile(optimizer=of("make_optimizer")(1000, batch))
        create_slots(model.optimizer, model.trainable_variables)
        signature = costs.batch_signature(clip, batch, model.modalities, model.needs_other)
        by_recompute[recompute] = costs.count_costs(costs.trace_step(model, signature))
        logging.info("counted in %.0f s", time.perf_counter() - started)
    parameters = {m: costs.count_variables(e.trainable_variables)[0]
                  for m, e in model.encoders.items()}
    total = costs.count_variables(model.trainable_variables)[0]
    parameters["heads"] = total - sum(parameters.values())
    state = costs.count_variables([*model.variables, *model.optimizer.variables()])[1]
    inputs = sum(spec.shape.num_elements() * spec.dtype.size for spec in signature.values())
    return Counts(by_recompute, parameters, state, inputs // batch, len(model.names))


def device_seconds(flops: float, peak_tflops: float, utilisation: float) -> float:
    """Seconds that one device needs for so many FLOPs."""
    return flops / (peak_tflops * 1e12 * utilisation)


def print_counts(counts: Counts, batch: int, configured: str) -> None:
    """Prints the table of counts a clip."""
    clip = gin.get_configurable("ClipSpec")()
    names = list(counts.by_recompute)
    columns = [counts.by_recompute[name] for name in names]
    print(f"clips of {clip.frames} + {clip.next_frames} frames of {clip.size} x {clip.size}, "
          f"{counts.losses} losses, {query('PretrainingModel.precision')}, {batch} clip(s) a pass")
    print("\nparameters")
    for name, number in [*counts.parameters.items(), ("total", sum(counts.parameters.values()))]:
        print(f"  {name:10} {number / 1e6:10.2f} M")
    print(f"  variables and the optimiser's: {counts.state_bytes / 1e9:.2f} GB a device\n")

    def row(title, values, form):
        print(f"{title:52}" + "".join(f"{form.format(x):>11}" for x in values))

    row("a clip, with recompute =", [f"{x}{'*' * (x == configured)}" for x in names], "{}")
    row("  GFLOPs forward", [x.flops_forward / batch / 1e9 for x in columns], "{:.2f}")
    row("  GFLOPs backward, what is recomputed too",
        [x.flops_backward / batch / 1e9 for x in columns], "{:.2f}")
    row("  GFLOPs", [x.flops / batch / 1e9 for x in columns], "{:.2f}")
    row("  GB kept from forward to backward",
        [x.activation_bytes / batch / 1e9 for x in columns], "{:.3f}")
    row("  GB alive at most, in the order of tracing",
        [x.peak_bytes / batch / 1e9 for x in columns], "{:.3f}")
    for memory in MEMORIES_GB:
        row(f"  clips that fit in {memory} GB with the variables, at most",
            [(memory * 1e9 - counts.state_bytes) * batch // x.peak_bytes for x in columns],
            "{:.0f}")
    row("  GB moved, nothing fused: forward", [x.bytes_forward / batch / 1e9 for x in columns],
        "{:.2f}")
    row("  GB moved: backward", [x.bytes_backward / batch / 1e9 for x in columns], "{:.2f}")
    row("  GB moved a step: the optimiser", [x.bytes_update / 1e9 for x in columns], "{:.2f}")
    row("  FLOPs a byte moved", [x.intensity for x in columns], "{:.1f}")
    print(f"  MB of input: {counts.input_bytes / 1e6:.2f}")
    print("* as configured. FLOPs are those of convolutions and matrix products, 2 a multiply-add.")


def devices() -> dict[str, float]:
    """Peak in TFLOP/s of the devices to forecast for."""
    given = {f"{PEAK.value:g} TFLOP/s": PEAK.value} if PEAK.value else {}
    return NAMED_DEVICES | given


def query(name: str):
    """The value that a parameter has."""
    return gin.query_parameter(name)


def print_final(counts: Counts, batch: int, configured: str) -> None:
    """Prints the forecast of the final training."""
    chosen = counts.by_recompute[configured]
    steps, global_batch = query("pretrain.steps"), query("pretrain.batch_size")
    clips = steps * global_batch
    flops = clips * chosen.flops / batch
    number = DEVICES.value or PAPER_DEVICES
    print(f"\nfinal training: {steps:,} steps of {global_batch} = {clips:,} clips, {flops:.3g} "
          f"FLOPs\nOne clip a video an epoch (our reading): {clips / PAPER_VIDEOS:.4g} epochs of "
          f"the paper's {PAPER_VIDEOS:,} videos.")
    print(f"\nat {UTILISATION.value:.0%} of the peak   peak TFLOP/s  device-days  days on {number}")
    for name, peak in devices().items():
        days = device_seconds(flops, peak, UTILISATION.value) / 86400
        print(f"{name:18} {peak:14.0f} {days:12.1f} {days / number:11.1f}")
    print(f"{'the paper':18} {'':14} {PAPER_DEVICES * PAPER_DAYS:12.1f} {PAPER_DAYS:11.1f}"
          f"  (on {PAPER_DEVICES} GPUs that it does not name)")
    paper_clips = PAPER_VIDEOS * PAPER_EPOCHS
    seconds = PAPER_DEVICES * PAPER_DAYS * 86400
    plain = counts.by_recompute.get("none", chosen)
    print(f"\nIf the paper's {PAPER_VIDEOS:,} videos x {PAPER_EPOCHS} epochs cost what ours do "
          f"(recompute = none),\nits {PAPER_DAYS} days on {PAPER_DEVICES} GPUs are "
          f"{paper_clips * plain.flops / batch / seconds / 1e12:.1f} TFLOP/s and "
          f"{paper_clips / seconds:.1f} clips/s a GPU, without a pause.")


def print_search(counts: Counts, batch: int, configured: str) -> None:
    """Prints the forecast of the search, for each reading of "round"."""
    chosen = counts.by_recompute[configured]
    steps, proxy_batch = query("Proxy.steps"), query("Proxy.batch_size")
    clips = steps * proxy_batch
    flops = clips * chosen.flops / batch
    number = DEVICES.value or PAPER_CANDIDATE_DEVICES
    population = gin.get_configurable("CMAES")(list(map(str, range(counts.losses)))).population
    readings = [
        (f"{PAPER_ROUNDS} candidates", PAPER_ROUNDS),
        (f"{PAPER_ROUNDS} generations of {population}", PAPER_ROUNDS * population),
        (f"tournament, {PAPER_TOURNAMENT_ROUNDS:,}", PAPER_TOURNAMENT_ROUNDS)]
    configured_candidates = query("search.generations") * population
    print(f"\na candidate: {steps:,} steps of {proxy_batch} = {clips:,} clips; {flops:.3g} FLOPs "
          "of training, without features,\nclustering and evaluation. As configured the search has "
          f"{query('search.generations')} generations of {population}, "
          f"{configured_candidates:,} candidates.")
    print(f"\nGPU-hours, and days with one candidate after the other on {number} devices, at "
          f"{UTILISATION.value:.0%} of the peak:\n{'':18} {'a candidate':>17}"
          + "".join(f"{title:>26}" for title, _ in readings))
    paper = PAPER_CANDIDATE_DEVICES * PAPER_CANDIDATE_HOURS
    rows = [(name, device_seconds(flops, peak, UTILISATION.value) / 3600, number)
            for name, peak in devices().items()]
    for name, hours, used in [*rows, ("the paper's figure", paper, PAPER_CANDIDATE_DEVICES)]:
        print(f"{name:18} {hours / used:8.2f} h x {used:<4}" + "".join(
            f"{n * hours:11,.0f} h {n * hours / used / 24:8.1f} days" for _, n in readings))
    print(f"\nThe paper: \"4 hours using 8 GPUs\" a candidate. What a round is, it does not say, "
          f"nor which\nGPU. If its candidate cost what ours does, that is "
          f"{flops / (paper * 3600) / 1e12:.1f} TFLOP/s a GPU.")


def main(argv):
    """Counts and forecasts."""
    del argv
    configuration.parse(configuration.GIN_FILE.value, configuration.GIN_BINDINGS.value)
    configured = query("PretrainingModel.recompute")
    names = list(dict.fromkeys([*RECOMPUTE.value, configured]))
    unknown = set(names) - {"none", "units", "views", "both"}
    if unknown:
        raise UserError(f"--recompute: there is no {unknown.pop()!r}; choose from none, units, "
                        "views and both")
    counts = count(BATCH.value, names)
    print(f"$ python -m benchmarks.plan {' '.join(sys.argv[1:])}\n")
    print_counts(counts, BATCH.value, configured)
    (print_search if SEARCH.value else print_final)(counts, BATCH.value, configured)


if __name__ == "__main__":
    cli.run(main)
