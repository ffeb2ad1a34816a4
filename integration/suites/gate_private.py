"""The daemon's own directory behind a gate: who is not the daemon's finds nothing there."""

import os
import pathlib
import signal
import subprocess

import harness
from gate_kit import OTHER_UID, SHARED, GateSuite
from harness import PYTHON, control_daemons, wait_until

ANOTHER = {"user": OTHER_UID, "group": OTHER_UID, "extra_groups": []}
# setns() needs it; the gate itself does not.
WITHOUT_CHROOT = ("setpriv", "--bounding-set=-sys_chroot", "--inh-caps=-sys_chroot")
CONNECT = (
    "import socket,sys;s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET);"
    "sys.exit(s.connect_ex(sys.argv[1]))"
)
NOT_THERE, NOT_ALLOWED = 2, 13
LIMIT = "get_default_active_thread_percentage"


def space_of(pid):
    return os.readlink(f"/proc/{pid}/ns/mnt")


def is_in_use(space, supervisor):
    """Whether any process is in this mount namespace. The kernel gives the number of one that has
    gone to others: it is the one in which something is mounted at the daemon's directory."""
    pipe = str(supervisor.pipe())
    for pid, _, state, _ in harness.processes():
        try:
            mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
            if state not in "ZX" and space_of(pid) == space and pipe in mounts:
                return True
        except OSError:
            pass
    return False


def links_of(pid):
    links = []
    for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:
            pass
    return links


def directories_of(pid):
    return [link for link in links_of(pid) if link.startswith("/") and os.path.isdir(link)]


class PrivateSuite(GateSuite):
    def connect(self, path, **options):
        """What connecting to it from outside gives: 0 or an error's number."""
        return subprocess.run([PYTHON, "-c", CONNECT, str(path)], **options).returncode

    def daemon(self, supervisor):
        return supervisor.instance()["control"]["pid"]

    def check_private(self, supervisor):
        pipe = supervisor.pipe()
        daemon = self.daemon(supervisor)
        self.assertEqual(os.listdir(pipe), [])
        self.assertEqual(os.stat(pipe).st_mode & 0o777, 0o711)
        within = pathlib.Path(supervisor.daemon_pipe())
        self.assertEqual(os.stat(within).st_mode & 0o777, 0o711)
        self.assertIn("control", os.listdir(within))
        for options in ({}, ANOTHER):
            self.assertEqual(self.connect(pipe / "control", **options), NOT_THERE)
        self.assertEqual(self.connect(within / "control", **ANOTHER), NOT_ALLOWED)
        self.assertNotEqual(space_of(daemon), space_of("self"))
        self.assertNotEqual(space_of(daemon), space_of(supervisor.process.pid))
        self.check_nothing_mounted(supervisor)
        return space_of(daemon)

    def check_visible(self, supervisor):
        self.assertEqual(space_of(self.daemon(supervisor)), space_of("self"))
        self.assertEqual(self.connect(supervisor.pipe() / "control", **ANOTHER), 0)

    def check_nothing_mounted(self, supervisor):
        for pid in ("self", supervisor.process.pid, 1):
            try:
                mounts = pathlib.Path(f"/proc/{pid}/mountinfo").read_text()
            except OSError:
                continue  # it has ended
            self.assertNotIn(str(supervisor.root), mounts)

    def check_serves(self, supervisor):
        """The daemon sees each program's own pid and uid, and its limits can be read."""
        self.lets_in(supervisor).end()
        supervisor.wait_no_slots()
        self.lets_in(supervisor, OTHER_UID, **ANOTHER).end()
        supervisor.wait_no_slots()
        self.assertEqual(supervisor.ask_daemon(LIMIT), "100.0\n")
        limits = supervisor.instance()["limits"]
        self.assertTrue(limits["confirmed"], limits)


class Private(PrivateSuite):
    def test_nobody_outside_finds_it(self):
        supervisor = self.supervisor().start()
        self.check_private(supervisor)
        self.check_serves(supervisor)
        for uid in (None, OTHER_UID):
            status, output = supervisor.commands(LIMIT, pipe=supervisor.pipe(), uid=uid)
            self.assertTrue(status != 0 and "100" not in output, output)
        self.assertEqual(supervisor.ctl("status")[0], 0)
        self.assertEqual(supervisor.instance()["channel"], "ok")
        self.assertEqual(supervisor.events.of("pipe_directory_visible"), [])

    def test_servers_of_another_uid_start_in_it(self):
        supervisor = self.supervisor()
        supervisor.slow_servers()
        supervisor.start()
        program = self.is_held(supervisor, **ANOTHER)
        daemon = self.daemon(supervisor)

        def server():
            return [pid for pid, _, _, parent in harness.processes() if parent == daemon]

        pid = wait_until(server, "a server")[0]
        self.assertEqual(space_of(pid), space_of(daemon))
        # It is of the same uid, but keeps the daemon's group.
        way_round = f"/proc/{pid}/root{supervisor.pipe()}/control"
        self.assertEqual(self.connect(way_round, **ANOTHER), NOT_ALLOWED)
        supervisor.end_slow()
        program.answer()
        supervisor.wait_heard(program.pid, OTHER_UID)
        started = [line for line in supervisor.log.all() if b"Starting new server" in line]
        self.assertIn(f"for user {OTHER_UID}".encode(), started[-1])

    def test_each_instance_has_its_own(self):
        supervisor = self.supervisor({"a.yaml": harness.policy("team-a", isolation="dedicated")})
        own = "gpu0.ns-team-a"
        supervisor.start(wait_ready=(SHARED, own))
        spaces = {space_of(control_daemons(supervisor.pipe(name))[0]) for name in (SHARED, own)}
        self.assertEqual(len(spaces), 2)
        for name in (SHARED, own):
            self.assertEqual(os.listdir(supervisor.pipe(name)), [])

    def test_a_daemon_that_is_killed(self):
        supervisor = self.supervisor().start()
        gate = supervisor.gate_pid()
        held = wait_until(lambda: directories_of(gate), "the gate has the daemon's directory")
        self.check_private(supervisor)
        for _ in range(3):
            mark = supervisor.events.last_id()
            supervisor.kill_daemon()
            supervisor.events.wait("ready", mark)
            supervisor.wait_open()
        space = self.check_private(supervisor)
        self.check_serves(supervisor)
        # Nobody holds on to those before it. (The number of one that has gone is used again.)
        handles = [link for link in links_of(supervisor.process.pid) if link.startswith("mnt:")]
        self.assertEqual(handles, [space])
        self.assertEqual(len(directories_of(gate)), len(held))

    def test_servers_that_a_dead_daemon_left_keep_theirs(self):
        supervisor = self.supervisor()
        supervisor.slow_servers()
        supervisor.start()
        self.is_held(supervisor)
        daemon = self.daemon(supervisor)

        def servers():
            return [pid for pid, _, _, parent in harness.processes() if parent == daemon]

        server = wait_until(servers, "a server")[0]
        space = space_of(daemon)
        mark = supervisor.events.last_id()
        supervisor.kill_daemon()
        supervisor.events.wait("ready", mark)
        self.assertEqual(space_of(server), space)
        self.assertNotEqual(self.check_private(supervisor), space)
        supervisor.end_slow()
        wait_until(lambda: not is_in_use(space, supervisor), "it is gone with its last server")


class Adopted(PrivateSuite):
    def check_adopted(self, supervisor, end):
        space = self.check_private(supervisor)
        daemon, gate = self.daemon(supervisor), supervisor.gate_pid()
        end()
        self.assertEqual(space_of(daemon), space)
        supervisor.start()
        self.assertEqual((self.daemon(supervisor), supervisor.gate_pid()), (daemon, gate))
        self.assertEqual(self.check_private(supervisor), space)
        self.assertEqual(len(control_daemons(supervisor.pipe())), 1)
        self.check_serves(supervisor)
        self.assertEqual(supervisor.events.of("pipe_directory_visible"), [])

    def test_by_a_new_supervisor(self):
        supervisor = self.supervisor().start()
        self.check_adopted(supervisor, supervisor.terminate)

    def test_after_the_last_one_was_killed(self):
        supervisor = self.supervisor().start()
        for _ in range(2):
            self.check_adopted(supervisor, supervisor.kill9)

    def test_one_that_a_direct_instance_started(self):
        supervisor = self.supervisor()
        supervisor.settings["gate"] = "off"
        supervisor.start(wait_ready=False)
        supervisor.events.wait("ready")
        harness.Supervisor.wait_open(supervisor)
        daemon = self.daemon(supervisor)
        self.assertEqual(supervisor.terminate(), 0)
        supervisor.settings["gate"] = "on"
        supervisor.start()
        self.assertEqual(self.daemon(supervisor), daemon)
        self.check_visible(supervisor)
        self.check_serves(supervisor)
        said = supervisor.events.wait("pipe_directory_visible")
        self.assertEqual(
            said["message"],
            "every user of this node gets to the daemon past the gate, in its own directory "
            f"{supervisor.pipe()}: an earlier supervisor started it so; it ends with its next start",
        )
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("restart", SHARED)[0], 0)
        supervisor.events.wait("ready", mark)
        supervisor.wait_open()
        self.check_private(supervisor)
        self.check_serves(supervisor)

    def test_not_without_a_gate(self):
        supervisor = self.supervisor().start()
        space = self.check_private(supervisor)
        daemon = self.daemon(supervisor)
        supervisor.kill9()
        supervisor.settings["gate"] = "off"
        mark = supervisor.events.last_id()
        supervisor.start(wait_ready=False)
        said = supervisor.events.wait("leftover", mark)
        self.assertIn(
            ", was left running, and only a gate gets to it, and there is none any more: it is "
            "ended when its clients have gone",
            said["message"],
        )
        wait_until(lambda: daemon not in control_daemons(supervisor.pipe()), "its end")
        supervisor.events.wait("ready", said["id"])
        harness.Supervisor.wait_open(supervisor)
        self.check_visible(supervisor)
        wait_until(lambda: not is_in_use(space, supervisor), "its directory's name space is gone")


class Ends(PrivateSuite):
    def test_with_all_instances(self):
        supervisor = self.supervisor(stopInstances=True).start()
        space = self.check_private(supervisor)
        self.assertEqual(supervisor.terminate(), 0)
        # A front-end that was in it is killed when the supervisor ends, and not waited for.
        wait_until(lambda: not is_in_use(space, supervisor), "nobody is in there")
        self.assertEqual(control_daemons(supervisor.pipe()), [])
        self.assertEqual(os.listdir(supervisor.pipe()), [])
        self.check_nothing_mounted(supervisor)
        supervisor.start()
        self.check_private(supervisor)
        self.check_serves(supervisor)

    def test_of_everything_at_once(self):
        supervisor = self.supervisor().start()
        space = self.check_private(supervisor)
        daemon, gate = self.daemon(supervisor), supervisor.gate_pid()
        supervisor.kill9()
        for pid in (gate, daemon):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_in_use(space, supervisor), "nobody is in there")
        self.check_nothing_mounted(supervisor)
        supervisor.start()
        self.check_private(supervisor)
        self.check_serves(supervisor)


class NotToBeHad(PrivateSuite):
    """Where it cannot be private, the instance goes on as it would without."""

    MESSAGE = (
        "every user of this node gets to the daemon past the gate, in its own directory {}: no "
        "private mount namespace can be made for it, which needs CAP_SYS_ADMIN and "
        "CAP_SYS_CHROOT: enter a mount namespace: Operation not permitted"
    )

    def test_goes_on_and_says_so_once(self):
        supervisor = self.supervisor().start(prefix=WITHOUT_CHROOT)
        self.check_visible(supervisor)
        self.check_serves(supervisor)
        mark = supervisor.events.last_id()
        supervisor.kill_daemon()
        supervisor.events.wait("ready", mark)
        supervisor.wait_open()
        self.check_visible(supervisor)
        self.check_serves(supervisor)
        said = [event["message"] for event in supervisor.events.of("pipe_directory_visible")]
        self.assertEqual(said, [self.MESSAGE.format(supervisor.pipe())])
        self.check_nothing_mounted(supervisor)


if __name__ == "__main__":
    harness.main()
