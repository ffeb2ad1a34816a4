"""The control daemon dies, hangs, or is held, and what becomes of its instance."""

import json
import os
import select
import signal
import subprocess
import unittest

import harness
from harness import Suite, control_daemons, processes, wait_until

FAST_PROBE = {"probe": {"interval": "200ms", "timeout": "500ms", "failures": 3}}
LIFE = 1.05  # seconds a daemon must have been ready for, so that its end is no failed start
DAEMON_FILES = {"control", "control_lock", "control_privileged", "log"}


class Recovery(Suite):
    def check_serving(self, supervisor, name):
        """One daemon, the right limits, nothing stale: asked of the daemon, not of the supervisor."""
        pid = supervisor.instance(name)["control"]["pid"]
        self.assertEqual(control_daemons(supervisor.pipe(name)), [pid])
        output = supervisor.answered(
            "get_default_active_thread_percentage",
            "get_default_device_pinned_mem_limit 0",
            pipe=supervisor.pipe(name),
        )
        self.assertEqual(output, "50.0\n10G\n")
        files = set(os.listdir(supervisor.pipe(name))) - {"nvidia-cuda-mps-control.pid"}
        self.assertEqual(files, DAEMON_FILES)
        self.assertEqual(os.listdir(supervisor.open_pipe(name)), ["control"])
        ours = os.stat(supervisor.open_pipe(name) / "control").st_ino
        self.assertEqual(ours, os.stat(supervisor.pipe(name) / "control").st_ino)

    def test_a_hundred_kills(self):
        count = 8
        supervisor = self.supervisor(devices=count).start()
        names = [f"gpu{n}.shared" for n in range(count)]
        mark = supervisor.events.last_id()
        kills = 0
        wanted = 1000 if harness.OPTIONS.full else 100
        while kills < wanted:
            wait_until(
                lambda at=harness.time.monotonic(): harness.time.monotonic() - at > LIFE, "a life"
            )
            batch = self.random.sample(names, min(self.random.randint(4, count), wanted - kills))
            old = {name: supervisor.instance(name)["control"]["pid"] for name in batch}
            for pid in old.values():
                os.kill(pid, signal.SIGKILL)
            for name in batch:
                supervisor.events.wait("control_exited", mark, name)
                event = supervisor.events.wait("ready", mark, name)
                self.assertNotEqual(int(event["data"]["pid"]), old[name])
            mark = supervisor.events.last_id()
            for name in batch:
                supervisor.wait_open(name)
                self.check_serving(supervisor, name)
            kills += len(batch)
        self.assertEqual(
            sum(supervisor.instance(name)["restarts"] for name in names), kills, "each kill, once"
        )

        def zombies():
            return [p for p in processes() if p[3] == supervisor.process.pid and p[2] == "Z"]

        wait_until(lambda: not zombies(), "none is left unreaped")
        self.assertEqual([e["kind"] for e in supervisor.events.of("start_failed")], [])

    def test_a_stopped_daemon_is_replaced(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        old = supervisor.instance()["control"]["pid"]
        mark = supervisor.events.last_id()
        os.kill(old, signal.SIGSTOP)
        blocked = supervisor.events.wait("channel_blocked", mark)
        self.assertEqual(blocked["message"], "the control daemon is stopped (state T in /proc)")
        wedged = supervisor.events.wait("wedged", mark)
        self.assertEqual(
            wedged["message"],
            "no answer 3 times in a row: the control daemon is stopped (state T in /proc); "
            "no clients run, it is replaced",
        )
        supervisor.events.wait("ready", wedged["id"])
        supervisor.wait_open()
        self.assertNotEqual(supervisor.instance()["control"]["pid"], old)
        self.check_serving(supervisor, "gpu0.shared")

    def test_a_front_end_that_hangs_ends_with_its_supervisor(self):
        patient = {"probe": {"interval": "100ms", "timeout": "60s", "failures": 3}}
        supervisor = self.supervisor(settings=patient).start()
        daemon = supervisor.instance()["control"]["pid"]
        os.kill(daemon, signal.SIGSTOP)
        hanging = wait_until(harness.HangingFrontEnd(supervisor.process.pid), "a front-end hangs")
        mark = supervisor.events.last_id()
        supervisor.kill9()
        wait_until(lambda: not harness.is_running(hanging), "it has ended, too")
        os.kill(daemon, signal.SIGCONT)
        supervisor.start()
        self.check_serving(supervisor, "gpu0.shared")
        self.assertEqual(supervisor.instance()["control"]["pid"], daemon)
        seen = [e["kind"] for e in supervisor.events.seen if e["id"] > mark]
        self.assertEqual([kind for kind in seen if kind.startswith("channel_")], [])

    def test_a_held_session_is_busy_and_named(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        pid = supervisor.instance()["control"]["pid"]
        mark = supervisor.events.last_id()
        session = supervisor.hold_session()
        event = supervisor.events.wait_holder("channel_busy", session.pid, mark)
        self.assertEqual(
            event["message"],
            f"the one command session is held by pid {session.pid} (nvidia-cuda-mps)",
        )

        def named():  # a look that has no time left to name anybody is followed by another
            shown = supervisor.instance()
            detail = shown["channelDetail"] or {}
            return shown["channel"] == "busy" and detail.get("holder") == session.pid

        wait_until(named, "it is shown")
        session.stdin.close()
        supervisor.events.wait("channel_ok", event["id"])
        self.assertEqual(supervisor.instance()["control"]["pid"], pid)
        self.assertEqual(supervisor.instance()["restarts"], 0)

    def test_a_silent_peer_blocks_and_is_named(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        pid = supervisor.instance()["control"]["pid"]
        mark = supervisor.events.last_id()
        # As a tenant would: another uid, through the open share.
        peer = supervisor.silent_peer(supervisor.open_pipe() / "control", uid=1235)
        event = supervisor.events.wait_holder("channel_blocked", peer.pid, mark)
        self.assertIn(
            f"the control daemon waits for a connection that says nothing, of pid {peer.pid} (",
            event["message"],
        )
        self.assertEqual(supervisor.instance()["channel"], "blocked")
        peer.stdin.close()
        supervisor.events.wait("channel_ok", event["id"])
        self.assertEqual(supervisor.instance()["control"]["pid"], pid)
        self.assertEqual(supervisor.events.of("wedged"), [])

    def test_the_holder_is_ended_where_the_settings_say_so(self):
        supervisor = self.supervisor(settings={**FAST_PROBE, "channelHolder": "end"}).start()
        mark = supervisor.events.last_id()
        peer = supervisor.silent_peer(supervisor.open_pipe() / "control", uid=1235)
        supervisor.events.wait("channel_blocked", mark)
        self.assertEqual(peer.wait(timeout=harness.DEADLINE), -signal.SIGTERM)
        supervisor.events.wait("channel_ok", mark)

    def test_a_waiter_for_the_lock_keeps_nobody_down(self):
        supervisor = self.supervisor().start()
        lock = supervisor.pipe() / "control_lock"
        # A local user cannot even open it…
        denied = subprocess.run(
            [harness.PYTHON, "-c", f"open({str(lock)!r}, 'r+')"],
            user=1235,
            capture_output=True,
            text=True,
        )
        self.assertIn("PermissionError", denied.stderr)
        # …and root, who can, waits for a file that the next daemon does not use.
        waiter = subprocess.Popen(
            [
                harness.PYTHON,
                "-c",
                "import fcntl,sys;f=open(sys.argv[1],'r+');print('waiting',flush=True);"
                "fcntl.lockf(f,fcntl.LOCK_EX);print('got it',flush=True);sys.stdin.read()",
                str(lock),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        supervisor.helpers.append(waiter)
        self.assertEqual(waiter.stdout.readline(), "waiting\n")
        mark = supervisor.events.last_id()
        started = harness.time.monotonic()
        wait_until(lambda: harness.time.monotonic() - started > LIFE, "a life")
        os.kill(supervisor.instance()["control"]["pid"], signal.SIGKILL)
        self.assertEqual(waiter.stdout.readline(), "got it\n")
        supervisor.events.wait("ready", mark)
        self.assertEqual(supervisor.events.of("start_failed"), [])

    def test_a_share_whose_socket_was_taken_away_is_mended(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        control = supervisor.open_pipe() / "control"

        def taken():
            """As uid 0 does it in a container that has the share mounted for writing."""
            control.unlink(missing_ok=True)
            try:
                control.mkdir()
            except FileExistsError:  # a probe came in between, and it was mended
                return False
            return True

        wait_until(taken, "a directory is in its place")
        supervisor.events.wait("door_mended")
        self.check_serving(supervisor, "gpu0.shared")

    def test_limits_changed_behind_our_back_are_put_right(self):
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        mark = supervisor.events.last_id()
        # On 535 any local user who reaches the share can do this; from 550 on only root, and only
        # through the daemon's own directory.
        through_share = supervisor.backend.version == "535"
        pipe = supervisor.open_pipe() if through_share else supervisor.pipe()
        uid = 1235 if through_share else None
        output = supervisor.answered(
            "set_default_active_thread_percentage 77", pipe=pipe, uid=uid
        )
        self.assertEqual(output, "77.0\n")
        drifted = supervisor.events.wait("limits_drifted", mark)
        self.assertEqual(
            drifted["message"],
            "somebody changed the limits: active thread percentage: 50 % was set, the daemon says "
            '"77.0"; they are put right',
        )
        wait_until(lambda: supervisor.instance()["limits"]["confirmed"], "confirmed again")
        self.check_serving(supervisor, "gpu0.shared")
        self.assertEqual(supervisor.instance()["limitsDrifted"], 1)

    def test_what_root_in_a_container_can_do_through_the_share(self):
        """And what it cannot; docs/operations.md, "Direct instances", has the same as a table."""
        supervisor = self.supervisor(settings=FAST_PROBE).start()
        share = supervisor.open_pipe()
        pid = supervisor.instance()["control"]["pid"]
        for command in ("quit", "quit -t 1"):
            output = supervisor.answered(command, pipe=share)
            self.assertIn("Not enough privilege to execute quit command", output)
        sets = {
            "set_default_active_thread_percentage 1": "1.0\n",
            "set_default_device_pinned_mem_limit 0 1M": "",
            "set_default_client_priority 1": "",
        }
        for command, on_535 in sets.items():
            output = supervisor.answered(command, pipe=share)
            if supervisor.backend.version == "535":
                self.assertEqual(output, on_535)  # any uid can; it is seen and put right
            else:
                self.assertIn("Insufficient privileges for UID 0", output)
        # Orders to a server are looked up before anybody's right to them is (550 too).
        for command in ("terminate_client 77 78", "shutdown_server 77 -f"):
            output = supervisor.answered(command, pipe=share)
            self.assertIn("Server 77 not found", output)
        if supervisor.backend.version == "535":
            supervisor.events.wait("limits_drifted")
        asked = (
            "get_default_active_thread_percentage",
            "get_default_device_pinned_mem_limit 0",
            "get_default_client_priority",
        )
        # Each of the three, whichever a probe came between.
        wait_until(lambda: supervisor.answered(*asked) == "50.0\n10G\n0\n", "the limits are right")
        wait_until(lambda: supervisor.instance()["limits"]["confirmed"], "it is said")
        self.assertEqual(supervisor.instance()["control"]["pid"], pid)
        self.check_serving(supervisor, "gpu0.shared")


class Steered(Suite):
    """What only a simulated control daemon does when it is told to."""

    def test_the_door_opens_when_who_waits_at_it_can_be_answered(self):
        supervisor = self.supervisor(settings=FAST_PROBE)
        steering = supervisor.root / "sim.conf"
        steering.write_text("no_greeting = mps-supervisor\n")
        supervisor.environment["MPS_SIM_CONF"] = str(steering)
        supervisor.start(wait_ready=False)
        said = supervisor.events.wait("door_failed")
        self.assertEqual(
            said["message"],
            "newcomers wait, and are not answered yet: no greeting from "
            f"{supervisor.pipe() / 'control'}; it is asked again until it gives one",
        )
        newcomer = supervisor.probe()
        wait_until(lambda: harness.socket_inodes(newcomer.pid), "it has come")
        log = supervisor.run / "gpu0.shared/private/mps.log"

        def sessions():
            return log.read_bytes().count(b"UI closed")

        before = sessions()
        wait_until(lambda: sessions() >= before + 2, "it is looked after")  # and stays closed
        self.assertFalse(select.select([newcomer.stdout], [], [], 0)[0])
        steering.write_text("")
        supervisor.wait_open()
        # Refused, or let in: it comes twice, and the door may open in between.
        self.assertIn(json.loads(newcomer.stdout.readline())["cuInit"], (0, 805))
        again = supervisor.probe()
        self.assertEqual(json.loads(again.stdout.readline())["cuInit"], 0)
        self.assertEqual(len(supervisor.events.of("door_failed")), 1)


def load_tests(loader, _tests, _pattern):
    cases = [Recovery]
    if harness.OPTIONS.backend.startswith("sim-"):
        cases.append(Steered)
    return unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in cases)


if __name__ == "__main__":
    harness.main()
