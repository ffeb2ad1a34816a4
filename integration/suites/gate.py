"""Real CUDA programs and real control daemons with a gate between them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile

import harness
from gate_kit import (
    DEFAULT,
    OTHER_UID,
    REFUSED,
    SHARED,
    WITHOUT_MPS,
    GateSuite,
    Program,
    for_everybody,
)
from harness import policy, wait_until

NO_WAIT = {"wait": "0s"}
ANOTHER = {"user": OTHER_UID, "group": OTHER_UID, "extra_groups": []}
OF_PROCESSES = ("--pid", "--fork", "--kill-child", "--mount-proc", "--ipc", "--uts", "--net")
OF_USERS = ("unshare", "--user", "--map-root-user")
READ_ONLY = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount --bind "$0" "$1" && mount -o remount,bind,ro "$1" || exit 9\n'
    'export CUDA_MPS_PIPE_DIRECTORY="$1/pipe"\nshift\nexec "$@"',
)


class WhoItIs(GateSuite):
    """The daemon sees each program's own pid and uid."""

    def check(self, supervisor, uid=0, **options):
        self.lets_in(supervisor, uid, **options).end()
        supervisor.wait_no_slots()

    def test_a_program_without_mps_would_be_told_apart(self):
        supervisor = self.supervisor()
        self.assertEqual(Program(supervisor).answer(), WITHOUT_MPS)  # there is no share yet

    def test_of_any_uid(self):
        supervisor = self.supervisor().start()
        self.check(supervisor)
        self.check(supervisor, OTHER_UID, **ANOTHER)
        self.check(supervisor)
        self.assertEqual(supervisor.events.of("refused"), [])

    def test_in_namespaces_of_its_own(self):
        supervisor = self.supervisor().start()
        self.check(supervisor, prefix=("unshare", *OF_PROCESSES))
        become = ("setpriv", f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups")
        self.check(supervisor, OTHER_UID, prefix=("unshare", *OF_PROCESSES, *become))

    def test_in_a_user_namespace(self):
        if subprocess.run([*OF_USERS, "true"], capture_output=True, **ANOTHER).returncode != 0:
            self.skipTest("no user namespaces for other uids here")
        supervisor = self.supervisor().start()
        self.check(supervisor, prefix=OF_USERS)
        # Root in there, and somebody else out here: that counts.
        self.check(supervisor, OTHER_UID, prefix=OF_USERS, **ANOTHER)
        self.check(supervisor, OTHER_UID, prefix=(*OF_USERS, *OF_PROCESSES), **ANOTHER)

    def test_with_a_read_only_mount(self):
        supervisor = self.supervisor().start()
        there = supervisor.root / "there"
        there.mkdir()
        here = supervisor.run / SHARED / "open"
        self.check(supervisor, prefix=(*READ_ONLY, str(here), str(there)))
        # It stays good while daemon and gate come and go.
        mark = supervisor.events.last_id()
        os.kill(supervisor.gate_pid(), signal.SIGKILL)
        supervisor.kill_daemon()
        supervisor.events.wait("ready", mark)
        supervisor.wait_open()
        self.check(supervisor, prefix=(*READ_ONLY, str(here), str(there)))


class Refusals(GateSuite):
    """805 at once, and the daemon never hears of it."""

    def test_no_policy(self):
        supervisor = self.supervisor({"a.yaml": policy("team-a", percentage=10)}).start()
        self.is_refused(supervisor, "no_policy")
        mark = supervisor.events.last_id()
        supervisor.policies.put("default.yaml", DEFAULT)
        supervisor.events.wait("policies_changed", mark)
        self.lets_in(supervisor)

    def test_no_room_in_the_quota(self):
        supervisor = self.supervisor(
            for_everybody(quota={"clients": 1}), admission=NO_WAIT
        ).start()
        first = self.lets_in(supervisor)
        self.is_refused(supervisor, "quota_clients")
        first.end()
        supervisor.wait_no_slots()
        self.lets_in(supervisor)

    def test_after_waiting(self):
        supervisor = self.supervisor(
            for_everybody(quota={"clients": 1}), admission={"wait": "1200ms"}
        ).start()
        self.lets_in(supervisor)
        event = self.is_refused(supervisor, "quota_clients")
        self.assertRegex(event["message"], r" has 1 of 1 clients on gpu0; waited [1-9]s$")

    def test_while_it_drains(self):
        supervisor = self.supervisor().start()
        mark = supervisor.events.last_id()
        supervisor.post(f"/v1/instances/{SHARED}:drain")
        supervisor.events.wait("stopped", mark)
        program = Program(supervisor)
        self.assertEqual(program.answer(), REFUSED)
        refused = supervisor.events.wait("refused", mark)
        self.assertIn(f" was refused, draining: {SHARED} takes no new", refused["message"])
        supervisor.post(f"/v1/instances/{SHARED}:undrain")
        supervisor.events.wait("ready", refused["id"])
        self.assertNotIn(program.pid, supervisor.log.pids())
        self.lets_in(supervisor)

    def test_after_an_end_with_all_instances(self):
        supervisor = self.supervisor(
            for_everybody(quota={"clients": 1}), stopInstances=True
        ).start()
        gate = supervisor.gate_pid()
        first = self.lets_in(supervisor)
        waiting = self.is_held(supervisor)
        self.assertEqual(supervisor.terminate(), 0)
        late = Program(supervisor)
        for program in (waiting, late):
            self.assertEqual(program.answer(), REFUSED)
        supervisor.start()
        self.assertEqual(supervisor.gates(), [gate])
        self.assertEqual(supervisor.log.pids(), [first.pid])
        first.end()
        supervisor.wait_no_slots()
        self.lets_in(supervisor)

    def test_nobody_can_tell_whose_it_is(self):
        groups = self.cgroups()
        supervisor = self.supervisor().start()
        container = groups.container()  # as anybody could name a cgroup
        event = self.is_refused(supervisor, "unidentified", prefix=groups.inside(container))
        self.assertIn("of which no runtime has a record", event["message"])

    def test_another_uid(self):
        supervisor = self.supervisor().start()
        first = self.lets_in(supervisor)
        event = self.is_refused(supervisor, "uid_conflict", **ANOTHER)
        self.assertIn(
            f"{SHARED} serves uid 0 until its last client ends, and this client is of uid "
            f"{OTHER_UID}",
            event["message"],
        )
        first.end()
        supervisor.wait_no_slots()
        self.lets_in(supervisor, OTHER_UID, **ANOTHER)

    def test_another_uid_may_wait(self):
        supervisor = self.supervisor(uidConflict="wait").start()
        first = self.lets_in(supervisor)
        second = self.is_held(supervisor, **ANOTHER)
        # Of the uid that is served somebody comes in beside it.
        beside = self.lets_in(supervisor)
        self.check_held(supervisor, second)
        first.end()
        beside.end()
        self.check_came_in(supervisor, second, uid=OTHER_UID)
        self.assertEqual(supervisor.events.of("refused"), [])


class Automatic(GateSuite):
    """gate: auto."""

    def test_stands_where_it_can(self):
        supervisor = self.supervisor(gate="auto").start()
        self.assertEqual(supervisor.instance()["gate"], "standing")
        self.lets_in(supervisor)

    def test_direct_where_it_cannot(self):
        supervisor = self.supervisor(gate="auto")
        # Without the right to attach a client's credentials.
        without = "-sys_admin,-setuid,-setgid"
        supervisor.start(
            wait_ready=False,
            prefix=("setpriv", "--bounding-set", without, "--inh-caps", without),
        )
        event = supervisor.events.wait("gate_not_possible")
        self.assertIn("no gate can stand on this node: ", event["message"])
        supervisor.events.wait("ready", instance=SHARED)
        self.assertEqual(supervisor.instance()["gate"], "direct")
        self.assertEqual(supervisor.gates(), [])
        status, _, err = supervisor.ctl("shares", "create", "--device", "0")
        self.assertEqual(
            (status, err),
            (1, "mps-ctl: a share needs a gate, and no instance of this node has one\n"),
        )


class Domains(GateSuite):
    """An instance of a namespace's own has a gate of its own."""

    OWN = "gpu0.ns-team-a"

    def test_comes_and_goes_with_its_policy(self):
        groups = self.cgroups()
        own = policy("team-a", isolation="dedicated")
        supervisor = self.supervisor({"a.yaml": own, "b.yaml": policy("team-b")})
        known = {}
        team_a = {"prefix": groups.inside(groups.container("team-a", known))}
        team_b = {"prefix": groups.inside(groups.container("team-b", known))}
        self.identities(supervisor, known)
        supervisor.start(wait_ready=(SHARED, self.OWN))
        log = supervisor.log_of(self.OWN)
        self.check_own(supervisor, log, team_a)
        self.is_refused(supervisor, "wrong_domain", **team_a)
        self.is_refused(supervisor, "wrong_domain", name=self.OWN, **team_b)
        self.lets_in(supervisor, **team_b).end()

        supervisor.policies.remove("a.yaml")
        wait_until(lambda: self.OWN not in supervisor.instance_ids(), "it has gone")
        late = Program(supervisor, name=self.OWN, **team_a)
        self.assertEqual(late.answer(), REFUSED)  # whoever has the directory mounted
        mark = supervisor.events.last_id()
        supervisor.policies.put("a.yaml", own)
        supervisor.events.wait("ready", mark, self.OWN)
        supervisor.wait_open(self.OWN)
        self.check_own(supervisor, log, team_a)
        self.assertNotIn(late.pid, log.pids())

    def check_own(self, supervisor, log, who):
        program = Program(supervisor, name=self.OWN, **who)
        self.assertEqual(program.answer(), REFUSED)
        wait_until(lambda: (program.pid, 0) in log.clients(), "its daemon has heard of it")
        program.end()


class Held(GateSuite):
    """Newcomers wait for what is away, and come in when it is back."""

    def test_while_the_daemon_is_down(self):
        supervisor = self.supervisor().start()
        supervisor.break_control()
        mark = supervisor.events.last_id()
        supervisor.kill_daemon()
        supervisor.events.wait("control_exited", mark)
        programs = [self.is_held(supervisor), self.is_held(supervisor)]
        # Several starts have failed before it is mended.
        supervisor.events.wait("start_failed", mark, count=2)
        self.check_held(supervisor, *programs)
        supervisor.mend_control()
        supervisor.events.wait("ready", mark)
        self.check_came_in(supervisor, *programs)

    def test_while_the_daemon_is_stopped(self):
        supervisor = self.supervisor().start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        program = self.is_held(supervisor)
        wait_until(lambda: program.pid in supervisor.admitted_pids(), "it has a slot")
        self.check_held(supervisor, program)
        os.kill(daemon, signal.SIGCONT)
        self.check_came_in(supervisor, program)

    def test_for_no_longer_than_it_may_take(self):
        """A daemon that takes nobody: a program that was let in is refused in time, and not left
        waiting. The limit is 10 s where nobody waits for a place."""
        supervisor = self.supervisor(
            admission=NO_WAIT, probe={"interval": "1m", "timeout": "50s", "failures": 5}
        ).start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        programs = [self.is_held(supervisor) for _ in range(4)]
        for program in programs:
            self.assertEqual(program.answer(), REFUSED)
        said = supervisor.events.wait("refused")
        self.assertRegex(
            said["message"],
            r"^process \d+ was let in, and then refused, timeout: the control daemon did not take it "
            r"within 10s$",
        )
        os.kill(daemon, signal.SIGCONT)
        self.lets_in(supervisor)

    def test_who_is_let_in_needs_not_be_taken_by_the_daemon_at_once(self):
        supervisor = self.supervisor(admission=NO_WAIT).start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        program = self.is_held(supervisor)
        wait_until(lambda: program.pid in supervisor.admitted_pids(), "it has a slot")
        # There is room for it, so it does not wait for that: the gate goes on trying.
        wait_until(
            lambda: program.has_answered() or supervisor.at_the_daemon() >= 3, "several tries"
        )
        self.check_held(supervisor, program)
        os.kill(daemon, signal.SIGCONT)
        self.check_came_in(supervisor, program)

    def test_while_the_supervisor_is_dead(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        first = self.lets_in(supervisor)
        gate, daemon = supervisor.gate_pid(), supervisor.instance()["control"]["pid"]
        supervisor.kill9()
        second = self.is_held(supervisor)
        supervisor.start()
        self.assertEqual(supervisor.gates(), [gate])
        self.assertEqual(supervisor.instance()["control"]["pid"], daemon)
        # The slot of the first one counts: it was taken from what is recorded.
        self.assertEqual(supervisor.slots()[0], {first.pid})
        self.check_held(supervisor, second)
        first.end()
        self.check_came_in(supervisor, second)
        self.assertEqual(max(supervisor.slots()[1].values()), 1)

    def test_over_an_upgrade(self):
        supervisor = self.supervisor().start()
        gate = supervisor.gate_pid()
        self.assertEqual(supervisor.terminate(), 0)
        programs = [self.is_held(supervisor), self.is_held(supervisor)]
        self.check_held(supervisor, *programs)
        supervisor.start()
        self.check_came_in(supervisor, *programs)
        self.assertEqual(supervisor.gates(), [gate])

    def test_with_a_slot_while_the_daemon_is_stopped_and_the_supervisor_dead(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1})).start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        program = self.is_held(supervisor)
        wait_until(lambda: program.pid in supervisor.admitted_pids(), "it has a slot")
        supervisor.kill9()
        os.kill(daemon, signal.SIGCONT)
        self.check_held(supervisor, program)
        supervisor.start()
        self.check_came_in(supervisor, program)  # by the slot that it has
        self.assertEqual(max(supervisor.slots()[1].values()), 1)

    def test_who_is_inside_stays_known(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1}), admission=NO_WAIT)
        supervisor.slow_servers()
        supervisor.start()
        program = Program(supervisor)
        wait_until(lambda: program.pid in supervisor.log.pids(), "it is inside")
        gate = supervisor.gate_pid()
        supervisor.kill9()
        mark = supervisor.events.last_id()
        supervisor.start()
        adopted = supervisor.events.wait("gate_adopted", mark)
        self.assertEqual(
            adopted["message"], "found the gate of an earlier supervisor, with 1 program inside"
        )
        self.assertEqual(supervisor.gates(), [gate])
        self.is_refused(supervisor, "quota_clients")
        self.assertFalse(program.has_answered())
        supervisor.end_slow()
        self.assertEqual(program.answer(), REFUSED)

    def test_when_the_gate_is_killed(self):
        supervisor = self.supervisor().start()
        for _ in range(3):
            gate = supervisor.gate_pid()
            os.kill(gate, signal.SIGKILL)
            program = Program(supervisor)
            self.check_came_in(supervisor, program)
            self.assertNotEqual(supervisor.gate_pid(), gate)
            program.end()
        supervisor.events.wait("gate_lost")

    def test_who_is_inside_of_a_gate_that_is_killed(self):
        supervisor = self.supervisor(for_everybody(quota={"clients": 1}), admission=NO_WAIT)
        supervisor.slow_servers()
        supervisor.start()
        program = Program(supervisor)
        wait_until(lambda: program.pid in supervisor.log.pids(), "it is inside")
        gate = supervisor.gate_pid()
        os.kill(gate, signal.SIGKILL)
        self.assertEqual(program.answer(), REFUSED)
        wait_until(lambda: supervisor.gates() not in ([], [gate]), "the next gate")
        supervisor.wait_open()
        self.is_refused(supervisor, "quota_clients")  # it lives, so its slot does
        program.kill()
        supervisor.wait_no_slots()
        supervisor.end_slow()
        self.lets_in(supervisor)

    def test_when_somebody_took_the_socket_away(self):
        supervisor = self.supervisor(
            probe={"interval": "200ms", "timeout": "3s", "failures": 3}
        ).start()
        os.unlink(supervisor.share())  # as root can, with a mount for writing
        supervisor.events.wait("door_mended")
        self.lets_in(supervisor)

    def test_when_somebody_took_the_whole_folder_away(self):
        supervisor = self.supervisor(
            probe={"interval": "200ms", "timeout": "3s", "failures": 3}
        ).start()
        shutil.rmtree(supervisor.open_pipe())
        supervisor.events.wait("door_mended")
        self.lets_in(supervisor)

    def test_while_there_is_no_gate(self):
        supervisor = self.supervisor().start()
        gate = supervisor.gate_pid()
        os.kill(supervisor.process.pid, signal.SIGSTOP)  # it does not start the next one
        os.kill(gate, signal.SIGKILL)
        wait_until(lambda: not supervisor.gates(), "the gate has gone")
        programs = [self.is_held(supervisor), self.is_held(supervisor)]
        self.check_held(supervisor, *programs)
        os.kill(supervisor.process.pid, signal.SIGCONT)
        self.check_came_in(supervisor, *programs)
        lost = supervisor.events.wait("gate_lost")
        self.assertIn("newcomers wait until it stands again", lost["message"])

    def test_a_program_at_a_gate_that_is_killed(self):
        supervisor = self.supervisor().start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        program = self.is_held(supervisor)
        wait_until(lambda: program.pid in supervisor.admitted_pids(), "it has been asked for")
        os.kill(supervisor.gate_pid(), signal.SIGKILL)
        # Its connection is gone, behind the greeting: so it does not run without limits.
        self.assertEqual(program.answer(), REFUSED)
        os.kill(daemon, signal.SIGCONT)
        supervisor.wait_open()
        self.lets_in(supervisor)


class OtherOpenings(GateSuite):
    """Nothing but a client's opening gets through a share's directory."""

    def opening(self, supervisor):
        store = json.loads((supervisor.state / "opening.json").read_text())
        return store["greeting"], store["messages"]

    def said_by(self, supervisor, program):
        """What another of the driver's programs says first, to a listener of ours."""
        greeting = bytes.fromhex(self.opening(supervisor)[0])
        with tempfile.TemporaryDirectory(dir=supervisor.root) as folder:
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            listener.bind(f"{folder}/control")
            listener.listen()
            listener.settimeout(harness.DEADLINE)
            speaker = subprocess.Popen(
                [str(program)],
                env=supervisor.backend.environment(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            supervisor.helpers.append(speaker)
            speaker.stdin.write(b"get_server_list\n")
            speaker.stdin.flush()
            said = []
            while len(said) < 2:
                peer = listener.accept()[0]
                peer.settimeout(harness.DEADLINE)
                peer.send(greeting)
                said = [text for text in (peer.recv(512), peer.recv(512)) if text]
            speaker.kill()
            listener.close()
            return [text.hex() for text in said]

    def check_nothing_was_heard(self, supervisor):
        wait_until(lambda: not supervisor.log.strangers(), "nobody but the supervisor is heard")

    def variants(self, supervisor):
        first, *others = messages = self.opening(supervisor)[1]
        plain = [[text, ""] for text in messages]
        control = supervisor.backend.control
        server = supervisor.targets["nvidia-cuda-mps-server"]
        foreign = [self.said_by(supervisor, control), self.said_by(supervisor, server)]
        for said in foreign:
            self.assertNotEqual(said, messages)
        attempts = [[[text, ""] for text in said] for said in foreign]
        for at, text in enumerate(messages):
            for wrong in (text[:-2], text + "00", "00" + text, text[:-2] + "ff", "", "00" * 400):
                attempts.append([*plain[:at], [wrong, ""], *plain[at + 1 :]])
            attempts.append([*plain[:at], [text, "descriptor"], *plain[at + 1 :]])
            attempts.append([*plain[:at], [text, "lent"], *plain[at + 1 :]])
        attempts.append([["".join(messages), ""]])
        attempts.append([[text, ""] for text in (*others, first)])
        attempts.append([[first, ""], [first, ""]])
        forged = [[[first, "forged"], *plain[1:]], [*plain[:-1], [others[-1], "forged"]]]
        return attempts, forged

    def test_by_any_uid(self):
        supervisor = self.supervisor().start()
        attempts, forged = self.variants(supervisor)
        for uid in (None, OTHER_UID):
            tried = attempts + (forged if uid is None else [])
            peer = supervisor.peer(uid, attempts=tried)
            outcome = json.loads(peer.stdout.readline())
            wrong = [(how, what) for how, what in zip(outcome, tried) if how != "closed"]
            self.assertEqual(wrong, [])
            self.assertNotIn(peer.pid, supervisor.admitted_pids())
        self.check_nothing_was_heard(supervisor)
        said = supervisor.events.wait("unknown_opening")["message"]
        self.assertIn("a process that is no CUDA program of this node's driver was refused", said)
        # The opening itself does get through: it is what is said that counts.
        plain = [[text, ""] for text in self.opening(supervisor)[1]]
        peer = supervisor.peer(attempts=[plain])
        peer.stdout.readline()
        supervisor.wait_heard(peer.pid)

    def test_commands_and_servers(self):
        supervisor = self.supervisor().start()
        for uid in (None, OTHER_UID):
            for line in ("set_default_active_thread_percentage 7", "get_server_list", "quit"):
                status, output = supervisor.commands(line, pipe=supervisor.open_pipe(), uid=uid)
                self.assertTrue(status != 0 or not output.strip(), output)
            server = subprocess.run(
                [str(supervisor.targets["nvidia-cuda-mps-server"])],
                env=supervisor.backend.environment(supervisor.open_pipe()),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=harness.DEADLINE,
                user=uid,
            )
            self.assertNotEqual(server.returncode, 0)
        self.check_nothing_was_heard(supervisor)
        percentage = supervisor.ask_daemon("get_default_active_thread_percentage")
        self.assertEqual(percentage, "100.0\n")
        supervisor.events.wait("unknown_opening")
        self.lets_in(supervisor)


class Crowds(GateSuite):
    def test_a_thousand_silent_and_a_thousand_half_open_peers(self):
        supervisor = self.supervisor().start()
        first = json.loads((supervisor.state / "opening.json").read_text())["messages"][0]
        crowd = [supervisor.peer(hold=1000), supervisor.peer(OTHER_UID, hold=1000, say=first)]
        for peer in crowd:
            self.assertEqual(peer.stdout.readline(), "1000\n")
        wait_until(lambda: supervisor.at_the_share() >= 2000, "the crowd is there")
        for _ in range(3):
            percentage = supervisor.ask_daemon("get_default_active_thread_percentage")
            self.assertEqual(percentage, "100.0\n")
            self.assertEqual(supervisor.ctl("status")[0], 0)
            self.lets_in(supervisor).end()
        supervisor.wait_no_slots()
        self.lets_in(supervisor, OTHER_UID, **ANOTHER)
        self.assertEqual(supervisor.instance()["channel"], "ok")
        self.assertTrue(all(peer.poll() is None for peer in crowd))
        wait_until(lambda: supervisor.at_the_share() >= 2000, "the crowd is there")
        for peer in crowd:
            peer.stdin.close()
        wait_until(lambda: supervisor.at_the_share() == 0, "all have left")
        self.assertEqual(supervisor.events.of("gate_lost"), [])


if __name__ == "__main__":
    harness.main()
