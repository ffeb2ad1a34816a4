#!/usr/bin/env python3
"""Measures the supervisor on the real control daemon, beside what one would run instead.

For 1, 8 and 64 instances: time until all are ready; a killed control daemon: noticed, and serving
again with its limits read back (as the event stream's reader sees it); memory and processor time
when idle. In the same run the same kill under a shell loop, and under a restart after 1 s with a
probe every 3 s, which is what a systemd unit with a health check gives. Ratios are to our median.

Policies: a file replaced by a rename until its limits are set and read back; a ConfigMap with a
thousand of them swapped for one in which all are others, until they are in force; memory with them.

Never part of a test: times are for reading, not for asserting.
"""

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suites"))
import harness  # noqa: E402

LIFE = 1.05
TICK = os.sysconf("SC_CLK_TCK")


def percentile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def row(values):
    return {"median": statistics.median(values), "p99": percentile(values, 0.99), "n": len(values)}


class TimedEvents(harness.Events):
    """Events with the moment at which a reader of the stream had them."""

    def __init__(self, path):
        self.arrivals = {}
        super().__init__(path)

    def take(self, event, now):
        self.arrivals[event["id"]] = now
        super().take(event, now)


def stat(pid):
    text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()


def cpu_seconds(pid, children=False):
    fields = stat(pid)
    first = 13 if children else 11
    return (int(fields[first]) + int(fields[first + 1])) / TICK


def resident_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure_start(supervisor, count):
    began = time.monotonic()
    supervisor.start(wait_ready=False)
    supervisor.events = TimedEvents(supervisor.run / "supervisor.sock")
    ready = [supervisor.events.wait("ready", 0, f"gpu{n}.shared") for n in range(count)]
    # The stream may be opened after the first events; the journal's own times count then.
    return max(supervisor.events.arrivals[e["id"]] for e in ready) - began


def measure_kills(supervisor, count, kills):
    noticed, serving = [], []
    names = [f"gpu{n}.shared" for n in range(count)]
    last = {name: time.monotonic() for name in names}
    for k in range(kills):
        name = names[k % count]
        wait = last[name] + LIFE - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        pid = supervisor.instance(name)["control"]["pid"]
        mark = supervisor.events.last_id()
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        exited = supervisor.events.wait("control_exited", mark, name)
        ready = supervisor.events.wait("ready", mark, name)
        noticed.append(supervisor.events.arrivals[exited["id"]] - began)
        serving.append(supervisor.events.arrivals[ready["id"]] - began)
        last[name] = time.monotonic()
    return row(noticed), row(serving)


def measure_idle(supervisor, seconds):
    pid = supervisor.process.pid
    daemons = [i["control"]["pid"] for i in supervisor.get("/v1/instances")]
    supervisor.events.ended = True
    before = cpu_seconds(pid), cpu_seconds(pid, children=True), sum(map(cpu_seconds, daemons))
    time.sleep(seconds)
    after = cpu_seconds(pid), cpu_seconds(pid, children=True), sum(map(cpu_seconds, daemons))
    share = [100 * (a - b) / seconds for a, b in zip(after, before)]
    return {
        "residentMiB": resident_mib(pid),
        "cpuPercent": share[0],
        "frontEndsCpuPercent": share[1],
        "daemonsCpuPercent": share[2],
        "daemonsResidentMiB": sum(map(resident_mib, daemons)),
    }


POLICY = """\
# {owner}: version {version}
apiVersion: mps-supervisor.dev/v1
kind: MpsPolicy
metadata:
  namespace: "{owner}"
spec:
  devices: ["*"]
  isolation: shared
  client:
    activeThreadPercentage: {percentage}
    pinnedDeviceMemory: 4Gi
    priority: normal
  quota:
    clients: 10
    pinnedDeviceMemory: 40Gi
  overrides:
    - match: {{podLabels: {{size: large}}}}
      client: {{activeThreadPercentage: 50}}
  onViolation: report
  onFault: {{clients: terminate}}
"""


def many_policies(count, version):
    return {
        f"team-{n}.yaml": POLICY.format(
            owner=f"team-{n}", version=version, percentage=10 + (n + version) % 40
        )
        for n in range(count)
    }


def measure_limits(supervisor, count, times):
    """From the rename of the one policy file until the last instance has its new limits."""
    names = [f"gpu{n}.shared" for n in range(count)]
    seen = []
    for k in range(times):
        mark = supervisor.get("/v1/status")["lastEventId"]
        fresh = supervisor.policies.path / ".all.yaml.new"
        fresh.write_text(harness.policy(percentage=20 + k % 2, memory="4Gi"))
        began = time.monotonic()
        os.rename(fresh, supervisor.policies.path / "all.yaml")
        changed = [supervisor.events.wait("limits_changed", mark, name) for name in names]
        seen.append(max(supervisor.events.arrivals[e["id"]] for e in changed) - began)
    supervisor.policies.remove("all.yaml")
    return row(seen)


def measure_reloads(supervisor, policies, times):
    """From the swap of a ConfigMap in which every file is another until all are in force."""
    supervisor.policies.swap_config_map(many_policies(policies, 0))  # its links come one by one
    harness.wait_until(
        lambda: supervisor.get("/v1/status")["policies"]["files"] == policies, "the first of them")
    seen = []
    for version in range(1, times + 1):
        mark = supervisor.get("/v1/status")["lastEventId"]
        supervisor.policies.swap_config_map(many_policies(policies, version))
        changed = supervisor.events.wait("policies_changed", mark)
        seen.append(supervisor.events.arrivals[changed["id"]] - supervisor.policies.swapped_at)
    return row(seen), resident_mib(supervisor.process.pid)


def measure_policies(supervisor, count, options):
    limits = measure_limits(supervisor, count, options.reloads)
    swap, resident = measure_reloads(supervisor, options.policies, max(2, options.reloads // 4))
    return {
        "limits": limits, "swap": swap, "policies": options.policies, "residentMiB": resident,
    }


ALTERNATIVE = r"""
# As a user would write it: start the daemon, set its limits until they read back, wait, again.
while :; do
  nvidia-cuda-mps-control -f >>"$LOG" 2>&1 &
  echo $! >"$FOLDER/pid.new"; mv "$FOLDER/pid.new" "$FOLDER/pid"
  until printf 'set_default_active_thread_percentage 50\nget_default_active_thread_percentage\n' |
      nvidia-cuda-mps-control 2>/dev/null | grep -q '^50.0$'; do sleep 0.01; done
  date +%s.%N >>"$FOLDER/ready"
  wait $!
  PAUSE
done
"""
PROBE = r"""
(while sleep 3; do echo get_default_active_thread_percentage | timeout 3 nvidia-cuda-mps-control \
    >/dev/null || kill -9 "$(cat "$FOLDER/pid")"; done) &
"""


def measure_alternative(backend, pause, probe, kills):
    """Kill to serving again under a shell's loop; its own word for when it serves."""
    with tempfile.TemporaryDirectory(prefix="mps-", dir="/tmp") as folder:
        folder = pathlib.Path(folder)
        (folder / "pipe").mkdir(mode=0o711)
        env = backend.environment(folder / "pipe")
        env.update(FOLDER=str(folder), LOG=str(folder / "log"))
        script = (PROBE if probe else "") + ALTERNATIVE.replace("PAUSE", pause)
        shell = subprocess.Popen(
            ["bash", "-c", script], env=env, start_new_session=True, stderr=subprocess.DEVNULL
        )
        ready = folder / "ready"
        lines = lambda: ready.read_text().splitlines() if ready.exists() else []  # noqa: E731
        serving = []
        try:
            harness.wait_until(lambda: len(lines()) == 1, "the first start")
            for k in range(kills):
                time.sleep(LIFE)
                pid = int((folder / "pid").read_text())
                began = time.time()
                os.kill(pid, signal.SIGKILL)
                harness.wait_until(lambda: len(lines()) == k + 2, "the next start")
                serving.append(float(lines()[-1]) - began)
        finally:
            os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
        return row(serving)


def machine():
    model = "unknown"
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} x {model}, Linux {platform.release()}"


def ms(seconds):
    return f"{seconds * 1000:.1f} ms"


def run_policies(count, backend, options):
    """With a supervisor of its own: its memory is to be its own too."""
    if count > options.policies_up_to:
        return None
    supervisor = harness.Supervisor(devices=count, backend=backend)
    try:
        measure_start(supervisor, count)
        return measure_policies(supervisor, count, options)
    finally:
        supervisor.close()


def print_policies(figures):
    limits, swap, number = figures["limits"], figures["swap"], figures["policies"]
    print(f"  policy -> limits set median {ms(limits['median'])}, p99 {ms(limits['p99'])} "
          f"(n = {limits['n']})")
    print(f"  {number} policies -> in force  median {ms(swap['median'])}, p99 {ms(swap['p99'])} "
          f"(n = {swap['n']}, all replaced)")
    print(f"  supervisor           {figures['residentMiB']:.1f} MiB with {number} policies")


def run(options):
    backend = harness.Backend(options.backend, options.build)
    results = {"machine": machine(), "backend": options.backend, "instances": {}}
    print(f"machine: {results['machine']}\nbackend: {options.backend}, build {options.build.name}")
    for count in options.counts:
        supervisor = harness.Supervisor(devices=count, backend=backend)
        try:
            start = measure_start(supervisor, count)
            noticed, serving = measure_kills(supervisor, count, options.kills)
            idle = measure_idle(supervisor, options.idle)
            policies = run_policies(count, backend, options)
        finally:
            supervisor.close()
        results["instances"][count] = {
            "startSeconds": start, "noticed": noticed, "serving": serving, "idle": idle,
            "policies": policies,
        }
        print(f"\n{count} instances (n = {noticed['n']} kills, idle for {options.idle} s)")
        print(f"  all ready            {ms(start)}")
        print(f"  killed -> noticed    median {ms(noticed['median'])}, p99 {ms(noticed['p99'])}")
        print(f"  killed -> serving    median {ms(serving['median'])}, p99 {ms(serving['p99'])}")
        print(f"  supervisor           {idle['residentMiB']:.1f} MiB, {idle['cpuPercent']:.3f} % of a core")
        print(f"  front-ends                      {idle['frontEndsCpuPercent']:.3f} % of a core")
        print(f"  control daemons      {idle['daemonsResidentMiB']:.1f} MiB, {idle['daemonsCpuPercent']:.3f} % of a core")
        if policies:
            print_policies(policies)
    ours = results["instances"][options.counts[0]]["serving"]["median"]
    print("\nthe same kill without us: killed -> serving")
    for name, pause, probe in (
        ("a shell loop", "", False),
        ("restart after 1 s, probe every 3 s", "sleep 1", True),
    ):
        figures = measure_alternative(backend, pause, probe, min(options.kills, 20))
        figures["ratio"] = figures["median"] / ours
        results[name] = figures
        print(f"  {name:36} median {ms(figures['median'])}, p99 {ms(figures['p99'])}: "
              f"{figures['ratio']:.1f} times ours")
    print(f"  {'nvidia-cuda-mps-control -d alone':36} never")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--backend", default="real-535")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--idle", type=float, default=60.0, help="seconds")
    parser.add_argument("--reloads", type=int, default=40, help="of one policy; a quarter of many")
    parser.add_argument("--policies", type=int, default=1000)
    parser.add_argument("--policies-up-to", type=int, default=8, help="instances")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    options = parser.parse_args()
    options.build = options.build.resolve()
    harness.OPTIONS.__dict__.update(build=options.build, backend=options.backend)
    reason = harness.Backend(options.backend, options.build).missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIPPED)
    results = run(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
