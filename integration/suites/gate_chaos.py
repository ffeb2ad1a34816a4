"""Gate, supervisor and daemon are killed in random order under a stream of starting programs.

No program gets past without an admission. One that finds nobody at the share's socket, since gate
and supervisor were both dead, runs without MPS: that is CUDA's way, and is counted.
"""

import os
import select
import signal
import threading
import time

import harness
from gate_kit import REFUSED, SHARED, WITHOUT_MPS, GateSuite, Program, for_everybody
from harness import wait_until

SECONDS = 30.0
LONG = 600.0
STREAMS = 5
QUOTA = 3  # clients at a time
HELD = 3  # its status: a child that its killed predecessor was starting still has the lock


class Stream(threading.Thread):
    """Starts one program after the other."""

    def __init__(self, supervisor, seed):
        super().__init__(daemon=True)
        self.supervisor = supervisor
        self.random = harness.random.Random(seed)
        self.programs = []  # (pid, what cuInit returned, started at, answered at)
        self.trouble = None
        self.over = False
        self.start()

    def run(self):
        try:
            while not self.over:
                self.one()
        except Exception as error:  # said by the test, which reads it
            self.trouble = error

    def one(self):
        started = time.monotonic()
        program = Program(self.supervisor)
        pid = program.pid
        answer = program.answer()
        self.programs.append((pid, answer, started, time.monotonic()))
        (program.kill if self.random.random() < 0.3 else program.end)()
        self.supervisor.helpers.remove(program.process)


class Killer:
    """Knows when neither gate nor supervisor surely held the share's socket."""

    def __init__(self, supervisor, random):
        self.supervisor = supervisor
        self.random = random
        self.kills = {"gate": 0, "supervisor": 0, "daemon": 0}
        self.unheld = []  # [from, to], seconds
        self.held_by = {"gate", "supervisor"}
        self.alive = True
        self.too_early = 0  # starts that found the run directory still held

    def lost(self, who):
        self.held_by.discard(who)
        if not self.held_by and not (self.unheld and self.unheld[-1][1] is None):
            self.unheld.append([time.monotonic(), None])

    def kill_gate(self):
        gates = self.supervisor.gates()
        self.lost("gate")
        for pid in gates:
            self.kill(pid)

    def kill_supervisor(self):
        if not self.alive:
            return
        self.lost("supervisor")
        self.supervisor.kill9()
        self.alive = False

    def kill_daemon(self):
        for pid in harness.control_daemons(self.supervisor.pipe()):
            self.kill(pid)

    @staticmethod
    def kill(pid):
        """And waits for its end: what it held is closed then."""
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            select.select([handle], [], [], harness.DEADLINE)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def one(self):
        who = self.random.choices(("gate", "supervisor", "daemon"), (3, 3, 2))[0]
        getattr(self, f"kill_{who}")()
        self.kills[who] += 1
        if not self.alive and self.random.random() < 0.7:
            self.start()
        if self.alive and self.random.random() < 0.7:
            self.settle()
        time.sleep(self.random.uniform(0, 0.3))

    def start(self):
        self.supervisor.start(wait_ready=False)
        self.alive = True

    def settle(self):
        """Until both hold the socket again."""
        wait_until(self.stands, "gate and supervisor stand")
        self.held_by = {"gate", "supervisor"}
        if self.unheld and self.unheld[-1][1] is None:
            self.unheld[-1][1] = time.monotonic()

    def stands(self):
        ended = self.supervisor.process.poll()
        if ended == HELD:
            self.too_early += 1
        if not self.alive or ended is not None:
            self.start()
        try:
            return len(self.supervisor.gates()) == 1 and (
                self.supervisor.instance(SHARED)["gate"] == "standing"
            )
        except (OSError, AssertionError, harness.http.client.HTTPException, ValueError):
            return False

    def was_unheld(self, since, until):
        return any(start <= until and (end is None or since <= end) for start, end in self.unheld)


class Chaos(GateSuite):
    seconds = SECONDS

    def test_nobody_gets_past(self):
        seed = harness.OPTIONS.seed
        print(f"seed {seed}", flush=True)
        supervisor = self.supervisor(for_everybody(quota={"clients": QUOTA})).start()
        killer = Killer(supervisor, self.random)
        streams = [Stream(supervisor, seed * 100 + n) for n in range(STREAMS)]
        end = time.monotonic() + (LONG if harness.OPTIONS.full else self.seconds)
        while time.monotonic() < end and not any(stream.trouble for stream in streams):
            killer.one()
        killer.settle()
        for stream in streams:
            stream.over = True
        for stream in streams:
            stream.join(timeout=2 * harness.DEADLINE)
            self.assertIsNone(stream.trouble)
            self.assertFalse(stream.is_alive())
        self.check(supervisor, killer, [one for stream in streams for one in stream.programs])
        self.lets_in(supervisor).end()
        supervisor.wait_no_slots()

    def check(self, supervisor, killer, programs):
        past = [one for one in programs if one[1] == WITHOUT_MPS]
        unexcused = [one for one in past if not killer.was_unheld(*one[2:])]
        seconds = sum(end - start for start, end in killer.unheld)
        heard = supervisor.heard()
        admitted = supervisor.admitted_pids()
        kills = ", ".join(f"{who} {count} times" for who, count in killer.kills.items())
        print(
            f"killed: {kills}; {killer.too_early} starts found the last one's lock; "
            f"programs: {len(programs)}, of which {len(heard)} came to a daemon "
            f"and {len(admitted)} were admitted; nobody surely held the share's socket "
            f"{len(killer.unheld)} times, for {seconds:.2f} s in all, and {len(past)} programs ran "
            "without MPS then",
            flush=True,
        )
        self.assertEqual({one[1] for one in programs} - {REFUSED, WITHOUT_MPS}, set())
        self.assertEqual(unexcused, [], "ran without MPS while somebody held the socket")
        self.assertEqual(heard - admitted, set(), "the daemon heard of them, and no slot did")
        self.assertEqual(heard & {one[0] for one in past}, set())
        self.assertEqual(max(supervisor.slots()[1].values()), QUOTA)
        self.assertGreater(len(heard), 10)


if __name__ == "__main__":
    harness.main()
