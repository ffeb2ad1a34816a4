"""Random sequences over 8 devices and 30 clients: faults, kills of clients, servers, daemons and the
supervisor, drains, newcomers. Each has a seed and can be played again: --seed N --count 1. At the
end of each every instance serves, the ledger has the clients that are there, nobody was inside
without an admission, no process is left, what the incidents say is true, and a device to which
nothing was done has not noticed anything: its clients have no error, its processes are the same.
"""

import concurrent.futures
import contextlib
import signal
import sys
import time
import unittest

import harness
from fault_kit import PATIENCE, Stage, shared
from fault_table import TERMINATE, WAIT
from harness import OPTIONS, wait_until
from sim_kit import send

DEVICES = 8
CLIENTS = 30
STEPS = 24
IN_CI = 3
ALL = 500
AT_A_TIME = 2
QUIET = 60.0  # seconds for what a client was told before
ASKED_TO_GO = (-signal.SIGTERM, -signal.SIGKILL)
STICKY = (700, 719, 805, 806, 807, 810)


class Sequence:
    """What happens, and what of it the supervisor may be held to."""

    WEIGHTS = {
        "fault": 6,
        "kill_client": 4,
        "newcomers": 5,
        "kill_server": 2,
        "kill_daemon": 2,
        "kill_supervisor": 3,
        "drain": 1,
        "undrain": 2,
        "stop_client": 1,
        "hang": 1,
    }

    def __init__(self, seed):
        self.seed = seed
        policies = WAIT if seed % 3 == 0 else TERMINATE
        self.stage = Stage(policies, devices=DEVICES, seed=seed)
        self.random = self.stage.random
        self.done = []  # for people
        self.pending = []

    def play(self):
        good = False
        try:
            self.stage.start()
            self.fill()
            for _ in range(STEPS):
                self.step()
            self.settle()
            self.stage.check()
            good = True
        except AssertionError as error:
            print(f"seed {self.seed} failed: {error}", file=sys.stderr, flush=True)  # its turn may be far
            raise AssertionError(f"seed {self.seed}: {error}; done: {self.done}") from error
        finally:
            self.stage.close(keep=not good)

    def fill(self):
        self.stage.let_in([self.stage.begin(shared(self.device())) for _ in range(CLIENTS)])
        self.stage.truth.clients_are_there()

    def device(self):
        return self.random.randrange(DEVICES)

    def somebody(self):
        """A living client; who it is depends on the seed as far as time lets it."""
        living = [probe for probe in self.stage.inside if probe.process.poll() is None]
        return self.random.choice(living) if living else None

    def step(self):
        what = self.random.choices(list(self.WEIGHTS), list(self.WEIGHTS.values()))[0]
        self.done.append((what, getattr(self, what)()))
        self.collect()
        time.sleep(self.random.uniform(0, 0.2))

    # -- what happens --

    def fault(self):
        culprit, kind = self.somebody(), self.random.choice(("bad-address", "trap"))
        if culprit is None:
            return None
        self.tell(culprit, f"fault {kind}")
        return culprit.instance

    def hang(self):
        client = self.somebody()
        if client is None:
            return None
        self.tell(client, "hang")
        client.hangs = True
        return client.instance

    @staticmethod
    def tell(probe, line):
        with contextlib.suppress(BrokenPipeError):
            probe.tell(line)

    def kill_client(self):
        client = self.somebody()
        return client and send(client.pid, signal.SIGKILL)

    def stop_client(self):
        client = self.somebody()
        return client and send(client.pid, signal.SIGSTOP)

    def newcomers(self):
        name = shared(self.device())
        self.pending += [self.stage.begin(name) for _ in range(self.random.randint(1, 4))]
        return name

    def kill_server(self):
        name = shared(self.device())
        servers = self.stage.servers(name)
        if servers:
            self.stage.touch(name)
            send(servers[-1], signal.SIGKILL)
        return name

    def kill_daemon(self):
        name = shared(self.device())
        self.stage.touch(name)
        for pid in harness.control_daemons(self.stage.supervisor.pipe(name)):
            send(pid, signal.SIGKILL)
        return name

    def kill_supervisor(self):
        self.stage.kill_supervisor()
        pause = self.random.uniform(0, 0.3)
        time.sleep(pause)
        self.stage.start_supervisor()
        return round(pause, 3)

    def drain(self):
        name = shared(self.device())
        self.stage.touch(name)
        self.stage.ctl("drain", name)
        return name

    def undrain(self):
        names = [name for name in self.stage.names if self.is_drained(name)]
        for name in names:
            self.stage.ctl("undrain", name)
        return names

    def is_drained(self, name):
        return self.stage.state(name) in ("draining", "stopped")

    def collect(self):
        """Who has had an answer meanwhile is in, or has gone."""
        for probe in [probe for probe in self.pending if not probe.is_silent()]:
            self.pending.remove(probe)
            self.take_answer(probe)

    def take_answer(self, probe):
        try:
            self.stage.answer(probe)
        except AssertionError:  # asked to go for another's fault before it could say anything
            if probe.process.wait(timeout=PATIENCE) not in ASKED_TO_GO:
                raise

    # -- and how it ends --

    def settle(self):
        """Programs that have met an error end; drained instances are taken up again."""
        for probe in self.stage.inside:
            send(probe.pid, signal.SIGCONT)
            self.look_at(probe)
        wait_until(self.all_are_up, "nothing is drained", PATIENCE)
        for probe in self.pending:
            self.take_answer(probe)
        # Some of those came in before a fault that nobody had noticed yet.
        for probe in self.stage.inside:
            self.look_at(probe)

    def look_at(self, probe):
        if probe.process.poll() is not None:
            return
        if getattr(probe, "hangs", False):
            return probe.kill()
        try:
            self.tell(probe, "memory")
            said = probe.said(QUIET)
            while said["step"] != "memory":
                said = probe.said(QUIET)
        except AssertionError:
            return probe.kill()  # it was ended meanwhile
        if said["result"] in STICKY and probe.instance not in self.stage.truth.touched:
            raise AssertionError(f"{said} of a client of {probe.instance}, where nothing happened")
        if said["result"] != 0:
            probe.kill()

    def all_are_up(self):
        left = [name for name in self.stage.names if self.is_drained(name)]
        for name in left:
            self.stage.ctl("undrain", name)
        return not left


class FaultRandom(unittest.TestCase):
    count = IN_CI

    def test_sequences(self):
        seeds = range(OPTIONS.seed, OPTIONS.seed + self.count)
        print(f"seeds {seeds[0]} to {seeds[-1]}", flush=True)
        with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
            played = {seed: pool.submit(lambda seed=seed: Sequence(seed).play()) for seed in seeds}
            for seed, future in played.items():
                with self.subTest(seed=seed):
                    future.result()


def choose(arguments):
    rest = list(arguments)
    FaultRandom.count = ALL if OPTIONS.full else IN_CI
    if "--count" in rest:
        at = rest.index("--count")
        FaultRandom.count = int(rest[at + 1])
        del rest[at : at + 2]
    return rest


if __name__ == "__main__":
    harness.main(choose)
