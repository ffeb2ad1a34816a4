"""What a fault can meet: a table of scenarios, each also with the supervisor killed at a moment that
the seed says. At the end of each the instance serves, or says why not; the ledger has the clients
that are there and no other; nobody was inside without an admission; no process is left.

Without --full: what `ci` runs. With it: everything, and everything once more with a supervisor that
is killed. Scenarios mostly wait, so that a few are played at a time.
"""

import concurrent.futures
import pathlib
import sys
import threading
import traceback
import unittest

import harness
import fault_acts_clients  # noqa: F401: each puts its scenarios into the table
import fault_acts_quarantine  # noqa: F401
import fault_acts_servers  # noqa: F401
import fault_acts_starts  # noqa: F401
import fault_acts_steps  # noqa: F401
import fault_acts_verbs  # noqa: F401
from fault_kit import Killer, NotHere, Stage
from fault_table import SCENARIOS, needs_groups
from gate_kit import Cgroups

AT_A_TIME = 4
KILLED_IN_CI = 5
TEAMS = ("team-a", "team-b")


class Groups:
    """Cgroups for all that is played."""

    def __init__(self):
        self.lock = threading.Lock()
        self.made = None

    def containers(self):
        """Two containers by namespace, and what is known of them; or None."""
        with self.lock:
            self.made = self.made or Cgroups()
            if not self.made.usable():
                return None, None
            known = {}
            return {team: self.made.container(team, known) for team in TEAMS}, known

    def why(self):
        return self.made.why

    def remove(self):
        if self.made:
            self.made.remove()


GROUPS = Groups()


def seed_of(name):
    return f"{harness.OPTIONS.seed} {name}"


def on_gpu():
    return harness.OPTIONS.backend == "gpu"


def gpus():
    return len(list(pathlib.Path("/dev").glob("nvidia[0-9]*")))


def play(scenario, killed):
    """None, or why it was not played."""
    containers = known = None
    if needs_groups(scenario):
        containers, known = GROUPS.containers()
        if containers is None:
            return f"needs real cgroups: {GROUPS.why()}"
    if on_gpu() and scenario.nvml:
        return "needs a simulated NVML"
    if on_gpu() and scenario.devices > gpus():
        return f"needs {scenario.devices} GPUs"
    try:
        return play_on_stage(scenario, killed, containers, known)
    except NotHere as error:
        return str(error)


def play_on_stage(scenario, killed, containers, known):
    stage = Stage(
        scenario.policies,
        devices=scenario.devices,
        seed=seed_of(scenario.name),
        identities=known,
        nvml=scenario.nvml,
        **scenario.settings,
    )
    stage.inside_of = {team: Cgroups.inside(path) for team, path in (containers or {}).items()}
    good = False
    try:
        stage.start(scenario.also)
        killer = Killer(stage) if killed else None
        stage.clock = killer.go.set if killer else lambda: None
        scenario.act(stage)
        if killer:
            killer.finish()
        scenario.end(stage)
        good = True
    except NotHere:
        good = True
        raise
    except Exception:
        traceback.print_exc()  # now; the test's own word comes when its turn has come
        raise
    finally:
        stage.close(keep=not good)


class FaultScenarios(unittest.TestCase):
    pool = None
    played = {}

    @classmethod
    def setUpClass(cls):
        # On one GPU each would hear the others' Xids.
        cls.pool = concurrent.futures.ThreadPoolExecutor(1 if on_gpu() else AT_A_TIME)
        for name, arguments in cls.played.items():
            cls.played[name] = cls.pool.submit(play, *arguments)

    @classmethod
    def tearDownClass(cls):
        cls.pool.shutdown(cancel_futures=True)
        GROUPS.remove()

    def finish(self):
        why = self.played[self._testMethodName].result()
        if why:
            print(f"NOT TESTED HERE: {self.id()}: {why}", file=sys.stderr, flush=True)
            self.skipTest(why)


def wanted():
    """By name: all with --full; else those that are for `ci`, and a few with a killed supervisor."""
    full = harness.OPTIONS.full
    count = 0
    for scenario in SCENARIOS:
        if full or scenario.ci:
            yield f"test_{scenario.name}", (scenario, False)
        count += bool(scenario.killed_in_ci)
        if scenario.killable and (full or scenario.killed_in_ci):
            yield f"test_{scenario.name}_supervisor_killed", (scenario, True)
    assert count <= KILLED_IN_CI and len(SCENARIOS) >= 40


def load_tests(loader, _tests, _pattern):
    return unittest.TestSuite(FaultScenarios(name) for name in FaultScenarios.played)


def choose(arguments):
    """The tests named as Class.test, of all that there are; or what is wanted."""
    names = [a.split(".")[-1] for a in arguments if a.startswith("FaultScenarios.")]
    if names:
        harness.OPTIONS.full = True
    every = dict(wanted())
    FaultScenarios.played = {name: every[name] for name in names} if names else every
    for name in FaultScenarios.played:
        setattr(FaultScenarios, name, FaultScenarios.finish)
    return [a for a in arguments if not a.startswith("FaultScenarios.")]


if __name__ == "__main__":
    harness.main(choose)
