"""Who gets in at a gate where quotas are smaller than what is asked for: real processes, also in
real cgroups."""

import os
import signal
import subprocess

import harness
from gate_kit import REFUSED, GateSuite, Program, for_everybody
from harness import policy, wait_until

NO_WAIT = {"wait": "0s"}


class Quotas(GateSuite):
    QUOTAS = {f"team-{n}": n for n in range(1, 9)}  # 36 of 8 times 8

    def teams(self, **settings):
        """A supervisor with 8 namespaces, a container of each, and 8 programs in each of them."""
        groups = self.cgroups()
        files = {f"{n}.yaml": policy(n, quota={"clients": c}) for n, c in self.QUOTAS.items()}
        supervisor = self.supervisor(files, **settings)
        known = {}
        containers = {name: groups.container(name, known) for name in self.QUOTAS}
        self.identities(supervisor, known)
        supervisor.start()
        order = [name for name in self.QUOTAS for _ in range(8)]
        self.random.shuffle(order)
        teams = {name: [] for name in self.QUOTAS}
        for name in order:
            teams[name].append(Program(supervisor, groups.inside(containers[name])))
        return supervisor, teams

    def inside(self, supervisor, teams):
        heard = supervisor.heard()
        return {name: sum(p.pid in heard for p in programs) for name, programs in teams.items()}

    def test_64_programs_of_8_namespaces_of_which_the_rest_is_refused(self):
        supervisor, teams = self.teams(admission=NO_WAIT)
        for programs in teams.values():
            for program in programs:
                self.assertEqual(program.answer(), REFUSED)
        self.assertEqual(self.inside(supervisor, teams), self.QUOTAS)
        for name in self.QUOTAS:
            if name == "team-8":
                continue
            said = supervisor.events.wait(
                "refused", where=lambda e, n=name: e["message"].startswith(f"{n}, pod ")
            )
            self.assertIn(" was refused, quota_clients: ", said["message"])

    def test_64_programs_of_8_namespaces_of_which_the_rest_waits(self):
        supervisor, teams = self.teams()
        everybody = [program for programs in teams.values() for program in programs]
        wait_until(lambda: sum(p.has_answered() for p in everybody) == 36, "36 are let in")
        wait_until(lambda: supervisor.at_the_share() == 28, "28 wait")
        self.assertEqual(self.inside(supervisor, teams), self.QUOTAS)
        self.all_come_in(supervisor, everybody)
        self.assertEqual(supervisor.slots()[1], self.QUOTAS)
        supervisor.wait_no_admissions()

    def test_many_programs_of_one_user(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 5})).start()
        programs = [Program(supervisor) for _ in range(24)]
        wait_until(lambda: sum(p.has_answered() for p in programs) == 5, "5 are let in")
        wait_until(lambda: supervisor.at_the_share() == 19, "19 wait")
        self.assertEqual(len(supervisor.heard()), 5)
        self.all_come_in(supervisor, programs)
        self.assertEqual(list(supervisor.slots()[1].values()), [5])
        supervisor.wait_no_admissions()

    def all_come_in(self, supervisor, programs):
        """Each of them, as others make room: by ending or by being killed."""
        everybody = {program.pid for program in programs}
        left = list(programs)
        while left:
            done = [program for program in left if program.has_answered()]
            for program in done:
                self.assertEqual(program.answer(), REFUSED)
                left.remove(program)
                self.random.choice((program.end, program.kill))()
            wait_until(
                lambda: not left or any(program.has_answered() for program in left), "the next"
            )
        supervisor.wait_no_slots()
        self.assertEqual(supervisor.admitted_pids(), everybody)
        wait_until(lambda: supervisor.heard() == everybody, "the daemon heard of them all")
        self.assertEqual(supervisor.events.of("refused"), [])

    def test_freed_when_the_process_is_gone(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        self.leave_and_follow(supervisor, ())

    def test_freed_when_the_process_of_a_container_is_gone(self):
        supervisor, container = self.one_container()
        self.leave_and_follow(supervisor, container)

    def one_container(self):
        """A supervisor with a quota of one client, and what puts a program into a container."""
        groups = self.cgroups()
        supervisor = self.supervisor({"a.yaml": policy("team-a", quota={"clients": 1})})
        known = {}
        container = groups.container("team-a", known)
        self.identities(supervisor, known)
        return supervisor.start(), groups.inside(container)

    def leave_and_follow(self, supervisor, prefix):
        program = self.lets_in(supervisor, prefix=prefix)
        ways = ("end", "kill", "restart", "kill meanwhile", "zombie", "zombie meanwhile")
        for leave in ways:
            following = self.is_held(supervisor, prefix=prefix)
            self.check_held(supervisor, following)
            if leave == "restart" or leave.endswith("meanwhile"):
                supervisor.kill9()
            if leave.startswith("zombie"):
                os.kill(program.pid, signal.SIGKILL)  # nobody waits for it
            elif leave.startswith("kill"):
                program.kill()
            if supervisor.process.returncode is not None:
                supervisor.start()
            if leave == "restart":
                self.check_held(supervisor, following)
            if leave in ("end", "restart"):
                program.end()
            self.check_came_in(supervisor, following)
            program = following
        self.assertEqual(max(supervisor.slots()[1].values()), 1)

    def test_an_admission_lasts_as_long_as_its_cgroup(self):
        supervisor, container = self.one_container()
        for dies_meanwhile in (False, True):
            mark = len(supervisor.admissions.all())
            other = subprocess.Popen([*container, "sleep", "1000"], stdin=subprocess.DEVNULL)
            supervisor.helpers.append(other)
            self.lets_in(supervisor, prefix=container).kill()
            supervisor.wait_no_slots()
            supervisor.kill9()
            if dies_meanwhile:
                self.end(other)
            supervisor.start()
            if not dies_meanwhile:
                self.assertEqual(len(supervisor.get("/v1/admissions")), 1)
                self.end(other)
            supervisor.wait_no_admissions()
            made = [r for r in supervisor.admissions.all()[mark:] if "admission" in r]
            self.assertTrue(made)
            self.assertEqual(supervisor.get("/v1/admissions"), [])

    @staticmethod
    def end(process):
        process.kill()
        process.wait()

    def test_not_freed_by_leaving_the_cgroup(self):
        groups = self.cgroups()
        supervisor = self.supervisor(
            {"a.yaml": policy("team-a", quota={"clients": 1}), "b.yaml": policy("team-b")}
        )
        known = {}
        first, second = groups.container("team-a", known), groups.container("team-a", known)
        away = groups.container("team-b", known)
        self.identities(supervisor, known)
        supervisor.start()
        program = self.lets_in(supervisor, prefix=groups.inside(first))
        (away / "cgroup.procs").write_text(str(program.pid))
        following = self.is_held(supervisor, prefix=groups.inside(second))
        supervisor.kill9()
        supervisor.start()
        self.lets_in(supervisor, prefix=groups.inside(away))
        self.check_held(supervisor, following)
        program.kill()
        self.check_came_in(supervisor, following)
        self.assertEqual(supervisor.slots()[1]["team-a"], 1)


if __name__ == "__main__":
    harness.main()
