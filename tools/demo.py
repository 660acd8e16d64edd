"""The whole way, from videos to a served network, at a size that two cores carry in minutes.

    python -m tools.demo --output=demo                      # on videos that it makes, with labels
    python -m tools.demo --output=demo --videos=/my/folder  # on yours, without labels

Every step is one of the project's programs, printed as you would type it. Run it again and it goes
on where it stopped.
"""

import json
import pathlib
import subprocess
import sys
import time

from absl import flags

from elo_tf import cli, programs
from elo_tf.errors import UserError

OUTPUT = flags.DEFINE_string("output", "demo", "Folder for everything that the demo makes.")
VIDEOS = flags.DEFINE_string(
    "videos", "", "Folder of your own videos; by default a set is made, with labels to test on.")
WORKERS = flags.DEFINE_integer("workers", 2, "Processes that convert videos.", lower_bound=1)

GIN = "--gin_file=demo.gin"
CLUSTERS = 96  # gin/defaults.gin's
CLIPS_PER_CLUSTER = 4
HELDOUT_PERCENT = 20  # Records.heldout_percent
NOTABLE = 0.1  # a loss of more than this weight must have fallen


def run(title: str, program: str, *arguments: str) -> None:
    """Runs one program and shows its output.

    Raises:
      UserError: if it fails; it has then said why.
    """
    print(f"\n=== {title}\n$ {programs.shown(program, *arguments)}", flush=True)
    started = time.monotonic()
    code = subprocess.run([sys.executable, "-m", programs.module(program), *arguments],
                          cwd=programs.CHECKOUT).returncode
    if code:
        raise UserError(f"the step '{title}' ended with exit code {code}; what it printed is above")
    print(f"    {time.monotonic() - started:.0f} s", flush=True)


def convert(output: pathlib.Path, source: pathlib.Path, split: str) -> None:
    """Converts a folder or a CSV of videos at the demo's size."""
    run(f"convert {split} videos to records", "tools.convert_videos", f"--input={source}",
        f"--output={output / 'records'}", f"--split={split}", "--fps=6", "--min_side=36",
        "--flow=dis", f"--workers={WORKERS.value}")


def clusters_for(records: pathlib.Path) -> int:
    """Clusters of the Zipf fitness: 96, or fewer where the held-out part of a set is small."""
    summary = json.loads((records / "unlabelled.json").read_text(encoding="utf-8"))
    heldout = summary["converted"] * HELDOUT_PERCENT // 100
    return max(min(CLUSTERS, heldout // CLIPS_PER_CLUSTER), 2)


def losses_line(pretrain: pathlib.Path) -> str:
    """Says whether every notable loss fell on clips that were not trained on."""
    heldout = json.loads((pretrain / "heldout.json").read_text(encoding="utf-8"))
    before, after = heldout["before"], heldout["after"]
    notable = [name for name, weight in heldout["weights"].items()
               if weight > NOTABLE and name in before]
    risen = [name for name in notable if not after[name] < before[name]]
    if risen:
        return (f"NO: of {len(notable)} losses of weight above {NOTABLE}, these did not fall on "
                f"unseen clips: {', '.join(risen)}")
    return (f"yes: all {len(notable)} losses of weight above {NOTABLE} fell on clips the training "
            "has not seen")


def main(argv: list[str]) -> None:
    """Runs all steps."""
    del argv
    started = time.monotonic()
    output = pathlib.Path(OUTPUT.value).resolve()
    folder = {name: output / name
              for name in ("videos", "records", "search", "pretrain", "evaluate", "export",
                           "report")}
    encoder = f"--encoder={folder['pretrain'] / 'encoder'}"
    data = f"--data={folder['records']}"
    own = bool(VIDEOS.value)
    if own:
        videos = pathlib.Path(VIDEOS.value).expanduser().resolve()
        if not videos.is_dir():
            raise UserError(f"no folder {videos}; name a folder of videos")
        convert(output, videos, "unlabelled")
    else:
        run("make videos whose classes differ by motion alone", "tools.make_videos",
            f"--output={folder['videos']}", "--clips=unlabelled:480,train:120,test:120",
            f"--workers={WORKERS.value}")
        for split in ("unlabelled", "train", "test"):
            convert(output, folder["videos"] / f"{split}.csv", split)
    clusters = clusters_for(folder["records"])
    run("search the weights of 40 losses by Zipf fitness, without labels", "elo_tf.bin.search",
        data, GIN, f"--gin_bindings=ZipfFitness.k = {clusters}",
        f"--run_dir={folder['search']}")
    run("train the final network with the best loss", "elo_tf.bin.pretrain", data, GIN,
        f"--gin_file={folder['search'] / 'best_loss.gin'}", f"--run_dir={folder['pretrain']}")
    if own:
        print("\nYour videos have no labels: there is no evaluation.")
    else:
        run("evaluate the frozen features", "elo_tf.bin.evaluate", encoder, data,
            f"--run_dir={folder['evaluate']}")
    run("export the network", "elo_tf.bin.export", encoder, f"--run_dir={folder['export']}",
        *(() if own else (f"--head={folder['evaluate'] / 'heads' / 'linear'}",
                          f"--evaluation={folder['evaluate']}")))
    run("write the report", "elo_tf.bin.report", data, f"--search={folder['search']}",
        f"--pretrain={folder['pretrain']}", f"--evaluation={folder['evaluate']}",
        f"--export_dir={folder['export'] / 'elo'}", f"--run_dir={folder['report']}")
    print(f"\nDid every loss fall? {losses_line(folder['pretrain'])}")
    print(f"The whole demo took {time.monotonic() - started:.0f} s.")
    print(f"Your report: {folder['report'] / 'report.html'}")


if __name__ == "__main__":
    cli.run(main)
