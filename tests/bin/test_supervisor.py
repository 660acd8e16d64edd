"""The supervisor over real processes: small scripts that fail, are killed, or are stopped."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from elo_tf.bin import supervisor

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

# Ends at its n-th start with the n-th outcome: an exit code, or a signal that it sends itself.
SCRIPT = """
import os, pathlib, sys, time
log = pathlib.Path(sys.argv[1])
with log.open("a") as file:
    file.write(f"{time.monotonic()} {' '.join(sys.argv[2:])}\\n")
outcome = int(os.environ["OUTCOMES"].split()[len(log.read_text().splitlines()) - 1])
if outcome < 0:
    os.kill(os.getpid(), -outcome)
sys.exit(outcome)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """Supervises the script; its exit code, and the (time, arguments) of each start."""
    path, log = tmp_path / "script.py", tmp_path / "log"
    path.write_text(SCRIPT)

    def run(outcomes, *flags, restarts=3):
        monkeypatch.setenv("OUTCOMES", " ".join(map(str, outcomes)))
        code = supervisor.supervise(
            [sys.executable, str(path), str(log), *flags], restarts, first_delay=0.1)
        starts = [line.split(" ", 1) for line in log.read_text().splitlines()]
        return code, [(float(at), arguments) for at, arguments in starts]

    return run


@pytest.mark.parametrize("outcomes, code", (
    ([0], 0),
    ([1, 75, 0], 0),
    ([-signal.SIGKILL, 0], 0),
    ([-signal.SIGSEGV, -signal.SIGKILL, 1, 0], 0),
    ([2], 2),  # the user's error
    ([1, 2], 2),
    ([130], 130),  # stopped on purpose
    ([143], 143),
    ([-signal.SIGTERM], 143),
    ([1, 1, 1, 7], 7),  # given up
    ([1, 1, 1, -signal.SIGKILL], 137),
))
def test_a_run_that_fails_is_started_again(outcomes, code, script):
    result, starts = script(outcomes)
    assert (result, len(starts)) == (code, len(outcomes))


def test_each_restart_is_told_with_its_reason_and_waits_longer(script, capfd):
    _, starts = script([3, -signal.SIGKILL, 75, 4])
    gaps = [b - a for (a, _), (b, _) in zip(starts, starts[1:], strict=False)]
    assert all(gap > least for gap, least in zip(gaps, (0.1, 0.2, 0.4), strict=True))
    begun = "supervisor: the run "
    assert capfd.readouterr().err.splitlines() == [
        f"{begun}ended with exit code 3; starting it again in 0.1 s (1 of at most 3 times)",
        f"{begun}was ended by SIGKILL; starting it again in 0.2 s (2 of at most 3 times)",
        f"{begun}ended with exit code 75; starting it again in 0.4 s (3 of at most 3 times)",
        f"{begun}ended with exit code 4; it was started 4 times, and is given up"]


def test_without_restarts_it_runs_once(script):
    assert script([1], restarts=0)[0] == 1


@pytest.mark.parametrize("flags, kept", (
    (["--restarts=3", "--run_dir=a"], "--run_dir=a"),
    (["--run_dir=a", "--restarts", "3", "--data=b"], "--run_dir=a --data=b"),
    (["-restarts=3", "--restarts_dir=a", "restarts"], "--restarts_dir=a restarts"),
    (["--gin_bindings", "x = 'a b'", "--restarts=3"], "--gin_bindings x = 'a b'"),
))
def test_the_child_gets_all_flags_but_the_supervisors(flags, kept, script):
    assert script([0], *flags)[1][0][1] == kept


def test_the_own_command_is_the_whole_line_of_this_process():
    code = "from elo_tf.bin import supervisor\nprint(supervisor.own_command())"
    line = [sys.executable, "-B", "-c", code, "--run_dir=a b", "--restarts=3"]
    done = subprocess.run(line, cwd=ROOT, check=True, text=True, capture_output=True)
    assert done.stdout == f"{line}\n"


# --- signals --------------------------------------------------------------------------------------

# Says when it has begun; on a signal it saves, which takes a while, and ends with 128 + n.
SAVES = """
import os, signal, sys, time
def save(number, frame):
    print("saving", number, flush=True)
    time.sleep(0.3)
    print("saved", flush=True)
    sys.exit(128 + number)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
print("begun", os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def supervised(tmp_path):
    """Starts a supervisor in a process of its own; that process, and its child's id."""
    processes = []

    def start(text=SAVES, delay=0.1):
        (tmp_path / "child.py").write_text(text)
        command = [sys.executable, str(tmp_path / "child.py")]
        processes.append(subprocess.Popen(
            [sys.executable, "-c", "import sys\nfrom elo_tf.bin import supervisor\n"
             f"sys.exit(supervisor.supervise({command}, 3, first_delay={delay}))"],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        line = processes[-1].stdout.readline().split()
        assert line[0] == "begun"
        return processes[-1], int(line[1])

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT))
def test_a_signal_goes_on_to_the_child_and_ends_both(number, supervised):
    process, child = supervised()
    process.send_signal(number)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert out.splitlines() == [f"saving {number.value}", "saved"]
    assert not alive(child)


def test_a_killed_child_is_started_again(supervised):
    process, child = supervised()
    os.kill(child, signal.SIGKILL)
    begun, other = process.stdout.readline().split()
    assert begun == "begun" and int(other) != child
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=20)
    assert out.splitlines() == ["saving 15", "saved"] and process.returncode == 143
    assert "was ended by SIGKILL; starting it again" in error


def test_a_signal_while_it_waits_ends_it_at_once(supervised):
    process, _ = supervised("import os\nprint('begun', os.getpid(), flush=True)\nos._exit(1)",
                            delay=60)
    assert "starting it again in 60 s" in process.stderr.readline()
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 143 and time.monotonic() - begun < 5


def test_the_child_does_not_outlive_a_killed_supervisor(supervised):
    process, child = supervised()
    process.kill()
    assert process.stdout.read().splitlines() == ["saving 15", "saved"]
    process.wait()
    for _ in range(100):
        if not alive(child):
            break
        time.sleep(0.05)
    assert not alive(child)


def alive(pid):
    try:
        return "\nState:\tZ" not in pathlib.Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
