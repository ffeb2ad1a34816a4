#!/usr/bin/env python3
"""Measures what mps-run and the shim add to the start of a program, in pairs.

/bin/true by itself, by mps-run, by mps-run --guard, with the shim that is told the limits, and with
the shim that takes a place: one of each in random order, so that what the machine does besides meets
all of them. From the spawn to the end as a parent sees it. Beside them what comes closest without
this project: `env` with the variables as they would have to be written by hand.

Never part of a test: times are for reading, not for asserting.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suites"))
import gate_kit  # noqa: E402
import harness  # noqa: E402
from bench import machine, ms, row  # noqa: E402

TRUE = "/bin/true"


def ways(supervisor):
    """name: (program, arguments, environment)"""
    folder = supervisor.run / gate_kit.SHARED / "open"
    harness.wait_until(lambda: (folder / "lib/libmps-shim.so").exists(), "the share is complete")
    run = str(folder / "bin/mps-run")
    clean = {"PATH": "/usr/bin:/bin"}
    shim = {**clean, "LD_PRELOAD": str(folder / "lib/libmps-shim.so")}
    by_hand = [f"CUDA_MPS_PIPE_DIRECTORY={folder}/pipe", "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25"]
    return {
        "by itself": (TRUE, [TRUE], clean),
        "env, by hand": ("/usr/bin/env", ["env", *by_hand, TRUE], clean),
        "mps-run": (run, [run, "--", TRUE], clean),
        "mps-run --guard": (run, [run, "--guard", "--", TRUE], clean),
        "shim": (TRUE, [TRUE], shim),
        "shim, asking": (TRUE, [TRUE], {**shim, "MPS_SHIM": "ask"}),
    }


def start(program, arguments, environment):
    """Seconds."""
    before = time.perf_counter_ns()
    pid = os.posix_spawn(program, arguments, environment)
    _, status = os.waitpid(pid, 0)
    took = (time.perf_counter_ns() - before) / 1e9
    if status != 0:
        raise AssertionError(f"{arguments}: status {status}")
    return took


def measure(supervisor, pairs, seed):
    chance = random.Random(seed)
    all_ways = ways(supervisor)
    names = list(all_ways)
    rounds = []
    for number in range(pairs + 3):
        took = {name: start(*all_ways[name]) for name in chance.sample(names, len(names))}
        if number >= 3:
            rounds.append(took)
    figures = {}
    for name in names:
        figures[name] = row([took[name] for took in rounds])
        more = [took[name] - took["by itself"] for took in rounds]
        figures[name]["more"] = statistics.median(more)
    return figures


def show(figures):
    for name, one in figures.items():
        print(f"  {name:16} median {ms(one['median'])}, p99 {ms(one['p99'])}, "
              f"{one['more'] * 1000:.2f} ms more than by itself (median of {one['n']} pairs)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="sim-550")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    options = parser.parse_args()
    options.build = options.build.resolve()
    harness.OPTIONS.__dict__.update(build=options.build, backend=options.backend)
    reason = harness.Backend(options.backend, options.build).missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIPPED)
    print(f"machine: {machine()}\nbackend: {options.backend}, build {options.build.name}\n")
    supervisor = gate_kit.GatedSupervisor()
    try:
        for file, text in gate_kit.for_everybody(percentage=25).items():
            supervisor.policies.put(file, text)
        supervisor.start()
        figures = measure(supervisor, options.pairs, options.seed)
    finally:
        supervisor.close()
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
