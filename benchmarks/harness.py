"""Time and memory of the two sides of a benchmark, each run in a fresh process, in turn.

A benchmark is a program whose first word may be a side: `bench_X.py SIDE ARGUMENTS` does that
side's work once and ends with report(); `bench_X.py` alone prepares the input and calls compare(),
which runs `bench_X.py SIDE ARGUMENTS` for both sides in turn.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from data_utils.program import CODE_ROOT

OBVIOUS, OURS = "obvious", "ours"


def options(
    about: str, sides: Sequence[str] = (OBVIOUS, OURS), **flags: int | str
) -> argparse.Namespace:
    """A benchmark's own flags with their defaults, the side's name and --runs."""
    parser = argparse.ArgumentParser(
        description=about,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("side", nargs="?", choices=sides, help="run only this side")
    for name, default in {**flags, "runs": 5}.items():
        shown = "default: %(default)s" if default else "a folder (of a side: its input)"
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(default), default=default, help=shown
        )
    return parser.parse_args()


def report(
    seconds: float, output: str, peak_bytes: int | None = None, parts: dict | None = None
) -> None:
    """A side's last line, for compare().

    output: what the side computed, in a few words (size and hash); both sides must say the same.
    peak_bytes: by default the process's own peak; 0 if the benchmark does not measure memory.
    parts: seconds of named parts of the work, compared one by one.
    """
    peak_bytes = peak_memory() if peak_bytes is None else peak_bytes
    found = {"seconds": seconds, "peak_bytes": peak_bytes, "output": output, "parts": parts or {}}
    print(json.dumps(found), flush=True)


def peak_memory(process: int | str = "self") -> int:
    """The most bytes that a process has had in memory since it started; 0 if it has ended."""
    # Not getrusage's ru_maxrss: it begins with the memory of the parent that started the process.
    found = re.search(
        r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    )
    return 1024 * int(found[1]) if found else 0


def reset_peak_memory() -> None:
    """Make peak_memory() count from what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def compare(
    name: str,
    file: str | Path,
    arguments: Sequence[object] = (),
    *,
    sides: tuple[str, str] = (OBVIOUS, OURS),
    runs: int = 5,
) -> dict:
    """Run both sides of the benchmark `file` in turn and print all runs, medians and ratios.

    Returns {side: {seconds, peak_bytes, parts}} of medians. Different outputs end the program.
    """
    print(
        f"{name}: {os.cpu_count()} cores, {processor()}; {runs} runs per side, in turn", flush=True
    )
    found: dict[str, list[dict]] = {side: [] for side in sides}
    for run in range(runs):
        for side in sides:
            found[side].append(one_run(file, side, arguments))
            seconds, peak = (found[side][-1][key] for key in ("seconds", "peak_bytes"))
            memory = f" {peak / 1e6:10.1f} MB" if peak else ""
            print(f"  run {run + 1} {side:>12} {seconds:10.3f} s{memory}", flush=True)
    outputs = {side: {row["output"] for row in found[side]} for side in sides}
    for side in sides:
        print(f"  output of {side}: {' | '.join(sorted(outputs[side]))}")
    if len(set.union(*outputs.values())) != 1:
        raise SystemExit(f"{name}: the outputs differ, so the times mean nothing")
    medians = {side: median(found[side]) for side in sides}
    print_ratios(name, *(medians[side] for side in sides))
    return medians


def compare_steps(
    name: str, file: str | Path, options: argparse.Namespace, opponent: str = OBVIOUS
) -> None:
    """Compare a side with ours: the 200M student with other options.hidden and .layers."""
    config = json.loads((CODE_ROOT / "configs/models/qwen/200M.json").read_text(encoding="utf-8"))
    config.update(hidden_size=options.hidden, num_hidden_layers=options.layers)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        compare(name, file, ["--config", path], sides=(opponent, OURS), runs=options.runs)


def one_run(file: str | Path, side: str, arguments: Sequence[object]) -> dict:
    """The last line of one side, run in a process of its own."""
    command = [sys.executable, str(file), side, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", errors="replace")
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(rows: list[dict]) -> dict:
    """Median of each figure over the runs of a side."""
    figures = {key: statistics.median(r[key] for r in rows) for key in ("seconds", "peak_bytes")}
    parts = {k: statistics.median(row["parts"][k] for row in rows) for k in rows[0]["parts"]}
    return {**figures, "parts": parts}


def print_ratios(name: str, obvious: dict, ours: dict) -> None:
    """The medians part by part; the last line is NAME time_ratio A memory_ratio B."""
    pairs = [(part, obvious["parts"][part], seconds) for part, seconds in ours["parts"].items()]
    for part, theirs, seconds in [*pairs, ("all", obvious["seconds"], ours["seconds"])]:
        print(f"  {part:<28} {theirs:10.4f} s {seconds:10.4f} s   ratio {theirs / seconds:8.2f}")
    line = f"{name} time_ratio {obvious['seconds'] / ours['seconds']:.2f}"
    if ours["peak_bytes"]:
        line += f" memory_ratio {obvious['peak_bytes'] / ours['peak_bytes']:.2f}"
    print(line, flush=True)


def processor() -> str:
    """Name of the processor, for the record."""
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return names[0] if names else "unknown processor"
