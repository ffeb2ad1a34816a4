#!/usr/bin/env python3
"""Measures a client's fault: until it is noticed, until it is said who did it, and until the first
new client's kernel has run.

With 1, 16 and 48 clients on the GPU (their policy: terminate), which end at their first error, as
most programs do, or stay, until the supervisor ends them. In the same run what one would run
instead: a shell loop that asks for the server's status every 3 s and starts the daemon again.
Newcomers come at once and, where they get an error, again and again. On simulated servers: a real
one takes about a second longer to make its contexts again.

Never part of a test: times are for reading, not for asserting.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suites"))
import harness  # noqa: E402
from bench import TimedEvents, machine, ms, row  # noqa: E402
from fault_kit import Stage  # noqa: E402
from gate_kit import SHARED, for_everybody  # noqa: E402
from sim_kit import Lines  # noqa: E402

STATES = {"leave": "that end at their error", "stay": "that stay"}
POLL = 3.0  # seconds
EVENTS = {"noticed": "fault", "attributed": "incident_attributed", "over": "fault_over"}

# As a user would write it: start the daemon; every 3 s, look whether it answers and no server is in
# FAULT; else begin again with all of it.
ALTERNATIVE = r"""
ask() { timeout 3 nvidia-cuda-mps-control 2>/dev/null; }
while :; do
  nvidia-cuda-mps-control -f >>"$LOG" 2>&1 &
  daemon=$!
  bad=
  while sleep POLL; do
    servers=$(echo get_server_list | ask) || break
    for server in $servers; do
      echo "get_server_status $server" | ask | grep -q FAULT && bad=$server
    done
    [ -n "$bad" ] && break
  done
  echo "quit -t 1" | ask
  kill -9 $daemon $bad
  wait $daemon
done
"""


def knows(log, pid):
    """Whether the daemon has heard of this program: it runs without MPS else."""
    return log is None or f"NEW CLIENT {pid} " in log.read_text(errors="replace")


class Round:
    """Clients that are there, one that faults, and a newcomer."""

    def __init__(self, environment, count, kind, log=None):
        self.environment = environment
        self.kind = kind
        self.log = log  # of a daemon without a gate, which a newcomer may have missed
        self.unlimited = 0  # newcomers that ran without MPS
        arguments = ["--commands"] if kind == "stay" else ["--until-error", "--launch-ms", "50"]
        self.culprit = self.begin("--commands")
        self.clients = [self.begin(*arguments) for _ in range(count - 1)]
        for probe in (self.culprit, *self.clients):
            said = probe.said()
            if (said["cuInit"], said["cuCtxCreate"]) != (0, 0):
                raise AssertionError(f"a client is not let in: {said}")

    def begin(self, *arguments):
        program = harness.OPTIONS.build / "bin/mps-probe"
        return Lines([program, *arguments], self.environment)

    def fault(self):
        """When it was ordered."""
        began = time.monotonic()
        self.culprit.tell("fault bad-address")
        with contextlib.suppress(AssertionError):  # it was ended before it could say so
            self.culprit.said()
        if self.kind == "leave":
            self.culprit.leave()
        return began

    def serves(self):
        """When the first new client's kernel had run."""
        end = time.monotonic() + harness.DEADLINE
        while time.monotonic() < end:
            newcomer = self.begin("--commands")
            said = newcomer.said()
            good = said["cuInit"] == 0 and knows(self.log, newcomer.pid)
            self.unlimited += said["cuInit"] == 0 and not good
            good = good and newcomer.ask("launch 1")["result"] == 0
            at = time.monotonic()
            newcomer.kill()
            if good:
                return at
        raise AssertionError("no newcomer is served")

    def end(self):
        for probe in (self.culprit, *self.clients):
            probe.kill()


def connected(supervisor):
    return sum(client["connected"] for client in supervisor.get("/v1/clients"))


def one_of_ours(supervisor, count, kind, figures):
    harness.wait_until(lambda: connected(supervisor) == 0, "nobody is there")
    mark = supervisor.events.last_id()
    environment = supervisor.backend.environment(supervisor.open_pipe())
    this = Round(environment, count, kind)
    try:
        harness.wait_until(lambda: connected(supervisor) == count, "all are known")
        began = this.fault()
        served = this.serves()
        for name, event in EVENTS.items():
            seen = supervisor.events.wait(event, mark, SHARED)
            figures[name].append(supervisor.events.arrivals[seen["id"]] - began)
        figures["serving"].append(served - began)
    finally:
        this.end()


def measure(count, kind, rounds):
    stage = Stage(for_everybody())
    supervisor = stage.supervisor
    figures = {name: [] for name in (*EVENTS, "serving")}
    try:
        supervisor.events = TimedEvents(supervisor.run / "supervisor.sock")
        stage.start()
        for _ in range(rounds):
            one_of_ours(supervisor, count, kind, figures)
    finally:
        supervisor.close()
    return {name: row(values) for name, values in figures.items()}


def measure_alternative(backend, count, kind, rounds, chance):
    with tempfile.TemporaryDirectory(prefix="mps-", dir="/tmp") as folder:
        folder = pathlib.Path(folder)
        (folder / "pipe").mkdir(mode=0o711)
        environment = backend.environment(folder / "pipe")
        log = folder / "log"
        log.touch()
        environment.update(LOG=str(log), MPS_SIM_SERVER_READY_MS="5")
        script = ALTERNATIVE.replace("POLL", str(POLL))
        shell = subprocess.Popen(
            ["bash", "-c", script],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        serving, unlimited = [], 0
        try:
            for _ in range(rounds):
                wait_until_it_serves(environment, log)
                time.sleep(chance.uniform(0, POLL))  # the fault comes at any moment
                this = Round(environment, count, kind, log)
                try:
                    began = this.fault()
                    serving.append(this.serves() - began)
                    unlimited += this.unlimited
                finally:
                    this.end()
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        return {**row(serving), "withoutMps": unlimited}


def wait_until_it_serves(environment, log):
    program = harness.OPTIONS.build / "bin/mps-probe"

    def good():
        probe = Lines([program, "--commands"], environment)
        said = probe.said()
        probe.kill()
        return said["cuInit"] == 0 and knows(log, probe.pid)

    harness.wait_until(good, "the daemon serves")


def show(count, kind, figures):
    print(f"\n{count} clients {STATES[kind]} (n = {figures['serving']['n']})")
    words = {
        "noticed": "fault -> noticed",
        "attributed": "fault -> who did it",
        "over": "fault -> it says that it serves",
        "serving": "fault -> first new kernel",
    }
    for name, text in words.items():
        one = figures[name]
        print(f"  {text:32} median {ms(one['median'])}, p99 {ms(one['p99'])}")
    other = figures.get("alternative")
    if other:
        ratio = other["median"] / figures["serving"]["median"]
        print(f"  {'the same under a loop of 3 s':32} median {ms(other['median'])}, "
              f"p99 {ms(other['p99'])} (n = {other['n']}): {ratio:.1f} times ours; "
              f"{other['withoutMps']} newcomers ran without MPS meanwhile")


def run(options):
    backend = harness.Backend(options.backend, options.build)
    chance = random.Random(options.seed)
    results = {"machine": machine(), "backend": options.backend, "clients": {}}
    for count in options.counts:
        for kind in STATES:
            figures = measure(count, kind, options.rounds)
            rounds = min(options.rounds, options.alternative)
            if rounds:
                figures["alternative"] = measure_alternative(backend, count, kind, rounds, chance)
            results["clients"][f"{count} {kind}"] = figures
            show(count, kind, figures)
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="mixed-550")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 16, 48])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--alternative", type=int, default=20, help="at most so many rounds of it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    options = parser.parse_args()
    options.build = options.build.resolve()
    harness.OPTIONS.__dict__.update(build=options.build, backend=options.backend)
    reason = harness.Backend(options.backend, options.build).missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIPPED)
    print(f"machine: {machine()}\nbackend: {options.backend}, build {options.build.name}")
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
