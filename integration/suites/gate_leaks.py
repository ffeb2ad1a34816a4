"""Thousands of programs come through a gate and go, and nothing of them stays: descriptors and files
exactly, memory but for some slack. --full: ten thousand."""

import json
import os
import pathlib

import harness
from gate_kit import GateSuite, for_everybody
from harness import wait_until

PROGRAMS, FULL = 2000, 10000
# Before the first look: what is made once and kept, and the 4096 latest events in memory.
FIRST = 2200
AT_A_TIME = 4
SLACK_KIB = 2048  # of memory: allocators keep some, and the kernel counts in batches
# The journal's older half; it is bounded, and there once the first half is full.
COMES_LATER = {"journal.jsonl.1"}


def resident_kib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"{pid} has no memory")


class Leaks(GateSuite):
    def test_thousands_leave_nothing_behind(self):
        supervisor = self.supervisor(for_everybody()).start()
        messages = json.loads((supervisor.state / "opening.json").read_text())["messages"]
        self.pass_through(supervisor, messages, FIRST)
        # What is open for a moment, as for a command or an answer of the API, is not in the least.
        before = min((self.look(supervisor) for _ in range(20)), key=self.how_many)
        self.pass_through(supervisor, messages, FULL if harness.OPTIONS.full else PROGRAMS)
        wait_until(lambda: self.look(supervisor)["exact"] == before["exact"], "nothing is left")
        after = self.look(supervisor)
        for name, kib in after["memory"].items():
            print(f"{name}: {before['memory'][name]} KiB, then {kib} KiB", flush=True)
            self.assertLess(kib, before["memory"][name] + SLACK_KIB, name)
        self.assertEqual(supervisor.events.of("gate_lost"), [])
        self.pass_through(supervisor, messages, AT_A_TIME)

    @staticmethod
    def slots(supervisor):
        """How many there have been, ended or not."""
        records = supervisor.admissions.all()
        return len({record["slot"]["id"] for record in records if "slot" in record})

    def pass_through(self, supervisor, messages, count):
        """Each a process of its own; let in, answered by the daemon, and gone."""
        came = self.slots(supervisor)
        crowds = [
            supervisor.peer(through=count // AT_A_TIME, say=messages) for _ in range(AT_A_TIME)
        ]
        for crowd in crowds:
            self.assertEqual(crowd.stdout.readline(), f"{count // AT_A_TIME}\n")
            crowd.stdin.close()
            crowd.wait(timeout=harness.DEADLINE)
            supervisor.helpers.remove(crowd)
        supervisor.wait_no_slots()
        supervisor.wait_no_admissions()
        self.assertEqual(self.slots(supervisor) - came, count)
        wait_until(lambda: supervisor.instance()["clients"] == 0, "no clients")

    def look(self, supervisor):
        files = {
            str(path.relative_to(supervisor.root))
            for top in (supervisor.run, supervisor.state)
            for path in top.rglob("*")
            if path.name not in COMES_LATER
        }
        pids = {"supervisor": supervisor.process.pid, "gate": supervisor.gate_pid()}
        kinds = {name: self.descriptors(pid) for name, pid in pids.items()}
        memory = {name: resident_kib(pid) for name, pid in pids.items()}
        return {"exact": (files, kinds), "memory": memory}

    @staticmethod
    def how_many(look):
        return sum(sum(kinds.values()) for kinds in look["exact"][1].values())

    @staticmethod
    def descriptors(pid):
        """How many of each kind."""
        kinds = {}
        for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            try:
                kind = os.readlink(entry).split(":")[0]
            except FileNotFoundError:
                continue
            kinds[kind] = kinds.get(kind, 0) + 1
        return kinds


if __name__ == "__main__":
    harness.main()
