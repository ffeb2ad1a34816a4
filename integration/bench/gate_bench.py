#!/usr/bin/env python3
"""Measures cuInit of real programs through a gate and without one, in pairs.

Two supervisors with the same control daemon, one with a gate and one direct; each pair is one
program at each, in random order, so that what the machine does besides meets both. The program
itself says how long its cuInit took. Without a GPU that ends with the error that the daemon's
failing server gives, on both sides; with living servers, at the first client's server being there.

Never part of a test: times are for reading, not for asserting.
"""

import argparse
import json
import pathlib
import random
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suites"))
import gate_kit  # noqa: E402
import harness  # noqa: E402
from bench import machine, resident_mib, row  # noqa: E402


def cu_init(supervisor):
    """Seconds, and what it returned."""
    program = supervisor.probe()
    said = json.loads(program.communicate(timeout=harness.DEADLINE)[0])
    supervisor.helpers.remove(program)
    return said["cuInitMicroseconds"] / 1e6, said["cuInit"]


def one_pair(sides, order):
    took = {}
    for name in order:
        took[name], result = cu_init(sides[name])
        if name == "gated":
            sides[name].wait_no_slots()
        if result not in (0, gate_kit.REFUSED):
            raise AssertionError(f"cuInit of the {name} one returned {result}")
    return took


def measure(sides, pairs, seed):
    chance = random.Random(seed)
    for name in sides:  # what comes first of all is not compared
        one_pair({name: sides[name]}, [name])
    order = list(sides)
    pairs = [one_pair(sides, chance.sample(order, len(order))) for _ in range(pairs)]
    figures = {name: row([pair[name] for pair in pairs]) for name in sides}
    figures["more"] = statistics.median(pair["gated"] - pair["direct"] for pair in pairs)
    for which in ("median", "p99"):
        figures[f"{which}Ratio"] = figures["gated"][which] / figures["direct"][which]
    return figures


def run(options):
    gated, direct = gate_kit.GatedSupervisor(), harness.Supervisor()
    sides = {"gated": gated, "direct": direct}
    try:
        for name, supervisor in sides.items():
            for file, text in gate_kit.for_everybody().items():
                supervisor.policies.put(file, text)
            supervisor.start()
        figures = measure(sides, options.pairs, options.seed)
        figures["gateResidentMiB"] = resident_mib(gated.gate_pid())
    finally:
        for supervisor in sides.values():
            supervisor.close()
    return figures


def show(figures):
    def ms(seconds):
        return f"{seconds * 1000:.2f} ms"

    for name, what in (("direct", "without a gate"), ("gated", "through the gate")):
        one = figures[name]
        print(f"  cuInit {what:17} median {ms(one['median'])}, p99 {ms(one['p99'])} "
              f"(n = {one['n']})")
    print(f"  the gate               {ms(figures['more'])} more (median of the pairs); "
          f"{figures['medianRatio']:.2f} times as long, p99 {figures['p99Ratio']:.2f}")
    print(f"  the gate's memory      {figures['gateResidentMiB']:.1f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="real-535")
    parser.add_argument("--pairs", type=int, default=500)
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
    figures = run(options)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
