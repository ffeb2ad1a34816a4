"""A stage for faults: a supervisor with gates, simulated servers, programs that fault on order, and
what must be true when it is over. Nothing here needs the supervisor to be alive while something is
done, so that it can be killed at any moment: who asks it tries again until one answers.
"""

import contextlib
import os
import pathlib
import random
import signal
import sys
import threading
import time

import harness
from fault_truth import Truth
from gate_kit import GatedSupervisor, socket_inodes
from harness import OPTIONS, processes, wait_until
from sim_kit import Lines, order
from sim_nvml import SimNvml

PATIENCE = 200.0  # seconds; the whole ladder takes 40 where nothing answers
AWAY = (OSError, AssertionError, harness.http.client.HTTPException, ValueError)
PROBE = {"interval": "1s", "timeout": "3s", "failures": 3}
WAITS = {"onFault": {"clients": "wait"}}  # of a policy
IGNORING = ("sh", "-c", "trap '' TERM; exec \"$@\"", "sh")  # whoever is started by it: SIGTERM


class NotHere(Exception):
    """What a scenario needs and this backend has not."""


def shared(device=0):
    return f"gpu{device}.shared"


def meets_error(client, results=(700, 806, 810)):
    """It says so, or was asked to go before it could: on a busy machine 200 ms are short."""
    try:
        said = client.said()
    except AssertionError:
        status = client.process.wait(timeout=PATIENCE)
        assert status in (-signal.SIGTERM, -signal.SIGKILL), status
    else:
        assert said["result"] in results, said


def faults(culprit, kind="bad-address"):
    culprit.tell(f"fault {kind}")
    meets_error(culprit, (700, 719, 806, 810))


class Actor(Lines):
    """A CUDA program of which it is put down that it was told to fault."""

    def __init__(self, stage, name, arguments, environment, **options):
        super().__init__(arguments, environment, **options)
        self.stage = stage
        self.instance = name

    def tell(self, line):
        if line.startswith("fault"):
            self.stage.told_to_fault(self.pid, self.instance)
        super().tell(line)


class Stage:
    def __init__(self, files, devices=1, seed=1, identities=None, nvml=False, **settings):
        self.random = random.Random(seed)
        gated = settings.get("gate", "on") == "on"
        self.kind = GatedSupervisor if gated else harness.Supervisor
        self.supervisor = self.kind(devices, {"probe": PROBE, **settings})
        self.supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        for name, text in files.items():
            self.supervisor.policies.put(name, text)
        if identities is not None:
            path = self.supervisor.state / "identities.json"
            path.write_text(harness.json.dumps(identities))
            path.chmod(0o600)
        self.truth = Truth(self)
        self.devices = devices
        self.nvml = self.ask_nvml() if nvml else None
        self.kept_out = 0  # entries of the quarantine at the end
        self.gated = gated
        self.names = []  # of the instances that there are
        self.inside = []  # programs that were let in: (pid, process)
        self.programs = []  # all that were started

    def ask_nvml(self):
        """For its devices, and for what the driver says of them."""
        lines = [f"gpu {device['uuid']}" for device in self.supervisor.settings["devices"]]
        return SimNvml(self.supervisor, f"driver {self.supervisor.backend.version}.1", *lines)

    def needs_simulated(self, what):
        if self.supervisor.backend.gpu:
            raise NotHere(f"needs a simulated {what}")

    def steer(self, text, name=None):
        """What servers that start from now on read (integration/simulator/README.md)."""
        self.needs_simulated("server")
        self.touch(name)
        folder = self.supervisor.run / (name or shared())
        (folder / "sim.conf.new").write_text(text + "\n")
        os.rename(folder / "sim.conf.new", folder / "sim.conf")

    # -- the supervisor --

    def start(self, also=()):
        self.names = [*(shared(device) for device in range(self.devices)), *also]
        self.truth.prepare()
        self.supervisor.start(wait_ready=self.names)
        self.truth.begin(self.names)
        if self.nvml:
            self.nvml.wait_listener()
        return self

    def kill_supervisor(self):
        self.supervisor.kill9()

    def start_supervisor(self):
        """Again, as systemd does: also when the last one's lock is held still for a moment."""

        def stands():
            if self.supervisor.process.poll() is not None:
                self.supervisor.start(wait_ready=False)
                time.sleep(0.01)
            try:
                return bool(self.supervisor.get("/v1/status"))
            except AWAY:
                return False

        wait_until(stands, "a supervisor answers")

    def get(self, path):
        """Whoever answers: the one that runs, or the next."""

        def answer():
            with contextlib.suppress(*AWAY):
                return [self.supervisor.get(path)]
            return None

        return wait_until(answer, path, PATIENCE)[0]

    def ctl(self, *arguments):
        """Once a supervisor can be reached."""
        return wait_until(
            lambda: (done := self.supervisor.ctl(*arguments))[0] != 3 and done, str(arguments)
        )

    def drained(self, name=None):
        """Asked for again of each supervisor: who is killed forgets it."""
        name = name or shared()
        self.touch(name)
        wait_until(
            lambda: self.state(name) == "stopped" or self.ask_for(name, "drain"), "drained", PATIENCE
        )

    def restarted(self, name=None):
        """By force; likewise."""
        name = name or shared()
        old = self.daemon(name)
        wait_until(
            lambda: old not in harness.control_daemons(self.supervisor.pipe(name))
            or self.ask_for(name, "restart", "--force"),
            "restarted",
            PATIENCE,
        )

    def ask_for(self, name, verb, *flags):
        """False: what comes of it is still to be seen."""
        self.ctl(verb, name, *flags)
        time.sleep(0.1)
        return False

    def kill_supervisor_at(self, kind, count=1, name=None):
        """As soon as this event is seen; and the next one is started."""
        self.event(kind, count, name)
        self.kill_supervisor()
        self.start_supervisor()

    def event(self, kind, count=1, name=None):
        return self.supervisor.events.wait(kind, 0, name or shared(), count, PATIENCE)

    def state(self, name=None):
        return self.get(f"/v1/instances/{name or shared()}")["state"]

    def wait_state(self, *states, name=None):
        wait_until(lambda: self.state(name) in states, f"{states}", PATIENCE)

    # -- programs --

    def begin(self, name=None, prefix=(), arguments=(), **options):
        """A program that has been started; answer() waits for what it says. `arguments`: more of
        them, which make it another workload."""
        environment = self.supervisor.backend.environment(
            self.supervisor.open_pipe(name or shared())
        )
        program = [*prefix, OPTIONS.build / "bin/mps-probe", "--commands", *arguments]
        probe = Actor(self, name or shared(), program, environment, **options)
        self.supervisor.helpers.append(probe.process)
        self.programs.append(probe)
        return probe

    def answer(self, probe, deadline=PATIENCE):
        """What cuInit returned, or else cuCtxCreate; who is not let in ends at once."""
        said = probe.said(deadline)
        if (said["cuInit"], said["cuCtxCreate"]) == (0, 0):
            self.inside.append(probe)
        else:
            probe.leave()
        return said["cuInit"] or said["cuCtxCreate"]

    def client(self, name=None, prefix=(), arguments=()):
        """A program that is in. One that came to the server in the moment in which its fault was
        not yet noticed gets an error, and comes again as a user's would."""

        def let_in():
            probe = self.begin(name, prefix, arguments)
            return self.answer(probe) == 0 and probe

        return wait_until(let_in, "a client is let in", PATIENCE)

    def clients(self, count, name=None, prefix=()):
        return self.let_in([self.begin(name, prefix) for _ in range(count)], prefix)

    def let_in(self, begun, prefix=()):
        """Programs that have been started where nothing is wrong. On a machine that is very busy
        the daemon may not take one of them in the time that the gate gives it: it comes again."""
        return [
            probe if self.answer(probe) == 0 else self.client(probe.instance, prefix)
            for probe in begun
        ]

    def waiting(self, count, name=None):
        """Newcomers that have come to the gate."""
        begun = [self.begin(name) for _ in range(count)]
        for probe in begun:
            wait_until(lambda probe=probe: socket_inodes(probe.pid), "it has a socket")
        return begun

    def living(self):
        return {probe.pid for probe in self.inside if probe.process.poll() is None}

    def leave(self, *probes):
        for probe in probes:
            if probe.process.poll() is None:
                probe.leave()

    # -- MPS's own processes --

    def touch(self, name=None):
        """Something is done to it: it may have incidents."""
        self.truth.touched.add(name or shared())

    def told_to_fault(self, pid, name):
        self.truth.is_told(pid, name)
        self.touch(name)

    def daemon(self, name=None):
        self.touch(name)
        pipe = self.supervisor.pipe(name or shared())
        return wait_until(lambda: harness.control_daemons(pipe), "a daemon", PATIENCE)[0]

    def servers(self, name=None):
        daemons = harness.control_daemons(self.supervisor.pipe(name or shared()))
        return [
            pid
            for pid, _, state, parent in processes()
            if parent in daemons and state not in "ZX"
        ]

    def server(self, name=None):
        self.touch(name)
        return wait_until(lambda: self.servers(name), "a server", PATIENCE)[-1]

    def order(self, line, name=None, server=None):
        """None where the server has died, of it or before."""
        self.needs_simulated("server")
        word, *rest = line.split()
        if word == "fault":
            self.told_to_fault(int(rest[0]), name or shared())
        try:
            return order(server or self.server(name), line)
        except ConnectionRefusedError:
            return None

    # -- what is true at the end --

    def check(self, names=None):
        """It serves, the ledger is right, nobody was inside without an admission, what is said of it
        is true (fault_truth.py), nothing is left."""
        for name in names or self.names:
            self.check_serves(name)
        self.check_ledger()
        self.check_admitted()
        self.truth.check(self.kept_out)
        self.check_nothing_left()

    def check_serves(self, name):
        tries = []

        def served():
            probe = self.begin(name)
            tries.append(self.answer(probe))
            if tries[-1] == 0:
                tries[-1] = probe.ask("launch 1")["result"]
                self.leave(probe)
            return tries[-1] == 0

        self.wait_state("ready", name=name)
        wait_until(served, f"a newcomer on {name} is served", PATIENCE)

    def ledger(self):
        return sorted(pid for one in self.get("/v1/admissions") for pid in one["pids"])

    def check_ledger(self):
        def expected():  # each time: somebody may be ending
            return sorted(self.living()) if self.gated else []

        try:
            wait_until(lambda: self.ledger() == expected(), "the ledger is right")
        except AssertionError as error:
            raise AssertionError(f"{error}: {self.ledger()}, and not {expected()}") from None

    def check_admitted(self):
        if not self.gated:
            return
        past = {probe.pid for probe in self.inside} - self.supervisor.admitted_pids()
        assert not past, f"inside without an admission: {past}"

    def check_nothing_left(self):
        for probe in self.programs:
            probe.kill()
        wait_until(lambda: self.ledger() == [], "nobody has a slot")
        wait_until(self.is_tidy, "one daemon, one gate, one server each", PATIENCE)

    def is_tidy(self):
        names = self.names
        daemons = [harness.control_daemons(self.supervisor.pipe(name)) for name in names]
        ours = set(self.of_mps())
        servers = ours - {pid for some in daemons for pid in some}
        at_home = all(len(some) == 1 for some in daemons) and len(servers) <= len(names)
        gates = len(self.supervisor.gates()) == len(names) if self.gated else True
        return at_home and gates and not self.zombies()

    def of_mps(self):
        """Pids of all that runs in one of our pipe directories."""
        prefix = f"CUDA_MPS_PIPE_DIRECTORY={self.supervisor.run}/".encode()
        for pid, name, state, _ in processes():
            if not name.startswith("nvidia-cuda-mps") or state in "ZX":
                continue
            with contextlib.suppress(OSError):
                if prefix in pathlib.Path(f"/proc/{pid}/environ").read_bytes():
                    yield pid

    def zombies(self):
        ours = self.supervisor.process.pid
        return [pid for pid, _, state, parent in processes() if parent == ours and state == "Z"]

    def close(self, keep=False):
        self.supervisor.keep = keep
        if keep:
            self.supervisor.output.flush()
            text = (self.supervisor.root / "supervisor.log").read_text(errors="replace")
            print("\n".join(text.splitlines()[-40:]), file=sys.stderr)
        self.supervisor.close()
        for probe in self.programs:
            for pipe in (probe.process.stdin, probe.process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()


class Killer(threading.Thread):
    """Kills the supervisor once, at a moment that the seed says, and starts it again."""

    def __init__(self, stage, within=1.5):
        super().__init__(daemon=True)
        self.stage = stage
        self.after = stage.random.uniform(0, within)
        self.go = threading.Event()
        self.trouble = None
        self.start()

    def run(self):
        self.go.wait()
        time.sleep(self.after)
        try:
            self.stage.kill_supervisor()
            self.stage.start_supervisor()
        except Exception as error:  # said by the scenario, which reads it
            self.trouble = error

    def finish(self):
        self.go.set()
        self.join(timeout=PATIENCE)
        if self.trouble or self.is_alive():
            raise AssertionError(f"no supervisor again: {self.trouble}")

