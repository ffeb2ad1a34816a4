"""The supervisor dies and another takes over: nothing restarted, no event twice and none lost."""

import collections
import os
import shutil
import signal

import harness
from gate_kit import GatedSupervisor
from harness import Suite, control_daemons, wait_until


class Adoption(Suite):
    def pids(self, supervisor):
        return {i["id"]: i["control"]["pid"] for i in supervisor.get("/v1/instances")}

    def test_a_new_supervisor_takes_over_all(self):
        supervisor = self.supervisor(devices=4).start()
        before = self.pids(supervisor)
        for round_number in range(3):
            supervisor.kill9()
            mark = supervisor.events.last_id()
            supervisor.start()
            for name, pid in before.items():
                event = supervisor.events.wait("control_adopted", mark, name)
                self.assertEqual(event["data"]["pid"], str(pid))
            self.assertEqual(self.pids(supervisor), before)
            self.assertTrue(all(i["control"]["adopted"] for i in supervisor.get("/v1/instances")))
        # An adopted daemon is watched like one of our own.
        mark = supervisor.events.last_id()
        os.kill(before["gpu2.shared"], signal.SIGKILL)
        supervisor.events.wait("control_exited", mark, "gpu2.shared")
        supervisor.events.wait("ready", mark, "gpu2.shared")
        after = self.pids(supervisor)
        self.assertNotEqual(after.pop("gpu2.shared"), before.pop("gpu2.shared"))
        self.assertEqual(after, before)

    def test_an_orderly_end_leaves_the_daemons_too(self):
        supervisor = self.supervisor().start()
        before = self.pids(supervisor)
        self.assertEqual(supervisor.terminate(), 0)
        self.assertEqual(control_daemons(supervisor.pipe()), [before["gpu0.shared"]])
        self.assertFalse((supervisor.run / "supervisor.sock").exists())
        supervisor.start()
        self.assertEqual(self.pids(supervisor), before)

    def test_stop_instances_ends_them(self):
        supervisor = self.supervisor(devices=2).start(flags=["--stop-instances"])
        self.assertEqual(supervisor.terminate(), 0)
        for name in ("gpu0.shared", "gpu1.shared"):
            self.assertEqual(control_daemons(supervisor.pipe(name)), [])
        supervisor.start()
        said = [event["message"] for event in supervisor.events.of("control_exited")]
        self.assertEqual([text for text in said if "no supervisor" in text], [])
        self.assertEqual(supervisor.get("/v1/faults"), [])

    def test_a_daemon_that_died_meanwhile_is_started_again(self):
        supervisor = self.supervisor().start()
        pid = self.pids(supervisor)["gpu0.shared"]
        supervisor.kill9()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not control_daemons(supervisor.pipe()), "its end")
        mark = supervisor.events.last_id()
        supervisor.start()
        self.assertNotEqual(self.pids(supervisor)["gpu0.shared"], pid)
        said = supervisor.events.wait("control_exited", mark)
        text = f"the control daemon, pid {pid}, ended while no supervisor ran"
        self.assertEqual(said["message"], text)
        (incident,) = supervisor.get("/v1/faults")
        self.assertEqual((incident["kind"], incident["end"]), ("daemon_died", "serving"))
        self.assertEqual(incident["cause"], text)
        # And no more of it, by whoever comes then.
        supervisor.kill9()
        supervisor.start()
        self.assertEqual(len(supervisor.events.of("control_exited")), 1)
        self.assertEqual(len(supervisor.get("/v1/faults")), 1)

    def test_a_daemon_of_which_nothing_is_left_is_not_told_of(self):
        supervisor = self.supervisor().start()
        supervisor.kill9()
        os.kill(control_daemons(supervisor.pipe())[0], signal.SIGKILL)
        wait_until(lambda: not control_daemons(supervisor.pipe()), "its end")
        shutil.rmtree(supervisor.run)  # as /run is after a reboot
        supervisor.start()
        self.assertEqual(supervisor.events.of("control_exited"), [])
        self.assertEqual(supervisor.get("/v1/faults"), [])

    def test_a_daemon_that_was_told_to_quit_meanwhile_is_nobodys_fault(self):
        supervisor = self.supervisor().start()
        supervisor.kill9()

        def ended():  # told again: a front-end of the dead supervisor may be ending yet
            if control_daemons(supervisor.pipe()):
                supervisor.commands("quit", pipe=supervisor.pipe())
            return not control_daemons(supervisor.pipe())

        wait_until(ended, "its end")
        supervisor.start()
        said = supervisor.events.wait("control_exited")
        self.assertEqual(said["data"]["asked"], "true")
        self.assertEqual(supervisor.get("/v1/faults"), [])

    def test_a_daemon_whose_device_is_gone_is_ended(self):
        supervisor = self.supervisor(devices=2).start()
        supervisor.kill9()
        supervisor.settings["devices"].pop()
        supervisor.start()
        wait_until(lambda: not control_daemons(supervisor.pipe("gpu1.shared")), "its end")
        wait_until(lambda: supervisor.instance_ids() == ["gpu0.shared"], "it is gone")

    def test_what_was_told_before_a_daemons_death_is_not_told_again(self):
        supervisor = self.supervisor()
        if not supervisor.backend.real:
            (supervisor.root / "sim.conf").write_text("server_fails = 1\n")
            supervisor.environment["MPS_SIM_CONF"] = str(supervisor.root / "sim.conf")
        supervisor.start()
        supervisor.probe().wait(timeout=harness.DEADLINE)
        wait_until(lambda: (supervisor.instance()["server"] or {}).get("failedStarts") == 6, "6 starts")
        started = harness.time.monotonic()
        wait_until(lambda: harness.time.monotonic() - started > 1.05, "a life")
        mark = supervisor.events.last_id()
        os.kill(self.pids(supervisor)["gpu0.shared"], signal.SIGKILL)
        supervisor.events.wait("ready", mark)
        supervisor.kill9()
        supervisor.start()
        for kind in ("server_start_failed", "client_asked", "client_gone", "control_exited"):
            self.assertEqual(len(supervisor.events.of(kind)), 1, kind)

    def test_a_daemon_of_another_device_is_not_adopted(self):
        supervisor = self.supervisor().start()
        old = self.pids(supervisor)["gpu0.shared"]
        supervisor.kill9()
        mark = supervisor.events.last_id()
        supervisor.settings["devices"][0]["uuid"] = "GPU-99999999-0000-0000-0000-000000000000"
        supervisor.start()
        said = supervisor.events.wait("leftover", mark)
        self.assertIn(f"pid {old} for GPU-00000000-0000-0000-0000-000000000000", said["message"])
        new = self.pids(supervisor)["gpu0.shared"]
        self.assertEqual(control_daemons(supervisor.pipe()), [new])
        self.assertNotEqual(new, old)

    def test_another_spelling_of_the_run_directory_is_the_same(self):
        supervisor = self.supervisor().start()
        before = self.pids(supervisor)
        supervisor.kill9()
        os.symlink(supervisor.run, supervisor.root / "alias")
        supervisor.start(flags=["--run-dir", str(supervisor.root / "alias") + "/"])
        self.assertEqual(self.pids(supervisor), before)

    def test_one_that_had_no_lock_yet_when_it_was_looked_for(self):
        """Its supervisor was killed when it had just started it: the next one starts another, which
        finds the lock taken, and takes over the first."""
        gated = GatedSupervisor()
        self.made.append(gated)
        for supervisor in (self.supervisor(), gated):
            with self.subTest(gate=supervisor.settings["gate"]):
                self.late(supervisor)

    def late(self, supervisor):
        turns = supervisor.root / "turns"
        turns.mkdir()
        self.take_turns(supervisor, turns)
        supervisor.start(wait_ready=False)
        first = self.begun(turns / "1")
        supervisor.kill9()
        supervisor.start(wait_ready=False)
        second = self.begun(turns / "2")
        (turns / "1.go").touch()
        wait_until(lambda: self.has_a_lock(first), "the first one's lock")
        (turns / "2.go").touch()
        taken_up = supervisor.events.wait("control_adopted", 0)
        supervisor.events.wait("ready", taken_up["id"])
        self.assertEqual(self.pids(supervisor)["gpu0.shared"], first)
        self.assertEqual(control_daemons(supervisor.pipe()), [first])
        self.assertEqual([e["message"] for e in supervisor.events.of("control_adopted")],
                         [f"took over the control daemon of an earlier supervisor, pid {first}"])
        ends = [e["data"]["pid"] for e in supervisor.events.of("control_exited")]
        self.assertEqual(ends, [str(second)])

    def take_turns(self, supervisor, turns):
        """Control daemons that say who they are in turns/N; the first two go on with turns/N.go."""
        programs = turns / "bin"
        programs.mkdir()
        control = programs / supervisor.backend.control.name
        real = supervisor.backend.control.resolve()
        wait = (f"cd {turns} || exit 1; n=1; "
                "while ! (set -C; echo $$ >$n) 2>/dev/null && [[ -e $n ]]; do n=$((n + 1)); done; "
                f"while [[ $n -lt 3 && ! -e $n.go && -d {turns} ]]; do sleep 0.01; done; "
                f"exec {real} -f")
        control.write_text(
            "#!/bin/bash\n"
            f"if [[ ${{1:-}} == -f && $CUDA_MPS_PIPE_DIRECTORY == {supervisor.pipe()} ]]; then\n"
            f"  exec -a {real} bash -f -c '{wait}'\n"
            "fi\n"
            f'exec {real} "$@"\n')
        control.chmod(0o755)
        supervisor.settings["mpsPath"].insert(0, str(programs))

    def begun(self, turn):
        wait_until(lambda: turn.exists() and turn.read_text().endswith("\n"), "a daemon")
        return int(turn.read_text())

    def has_a_lock(self, pid):
        locks = harness.pathlib.Path("/proc/locks").read_text().splitlines()
        return any(line.split()[4] == str(pid) for line in locks)

    def test_a_process_that_poses_as_a_daemon_is_not_adopted(self):
        supervisor = self.supervisor()
        supervisor.run.mkdir()
        folder = supervisor.root / "fake"
        folder.mkdir()
        fake = folder / "nvidia-cuda-mps-control"
        fake.write_bytes(open("/bin/sleep", "rb").read())
        fake.chmod(0o755)
        posing = harness.subprocess.Popen(
            [str(fake), "1000"],
            env={"CUDA_MPS_PIPE_DIRECTORY": str(supervisor.pipe())},
        )
        supervisor.helpers.append(posing)
        supervisor.start()
        self.assertEqual(supervisor.events.of("control_adopted"), [])
        self.assertIsNone(posing.poll())

    def test_a_second_supervisor_is_refused(self):
        supervisor = self.supervisor().start()
        done = harness.subprocess.run(
            [
                str(harness.OPTIONS.build / "bin/mps-supervisor"),
                "--config",
                str(supervisor.root / "supervisor.yaml"),
            ],
            capture_output=True,
            text=True,
            timeout=harness.DEADLINE,
        )
        self.assertEqual(done.returncode, 3)
        self.assertIn(
            f"{supervisor.run} belongs to another mps-supervisor, pid {supervisor.process.pid}",
            done.stderr,
        )
        self.assertEqual(len(control_daemons(supervisor.pipe())), 1)

    def test_every_client_once_however_often_the_supervisor_is_killed(self):
        supervisor = self.supervisor().start()
        pid = self.pids(supervisor)["gpu0.shared"]
        asked = []
        for round_number in range(12 if harness.OPTIONS.full else 4):
            for n in range(self.random.randint(3, 8)):
                probe = supervisor.probe()
                asked.append(probe.pid)
                probe.stdin.close()
                if n == self.random.randint(0, 3):
                    supervisor.kill9()
                    supervisor.start(wait_ready=False)
                probe.wait(timeout=harness.DEADLINE)
            supervisor.kill9()
            # These ask while no supervisor is there; the daemon's log remembers.
            for _ in range(3):
                probe = supervisor.probe()
                asked.append(probe.pid)
                probe.stdin.close()
                probe.wait(timeout=harness.DEADLINE)
            supervisor.start()
        for pid_asked in asked:
            supervisor.events.wait("client_asked")
        wait_until(lambda: len(supervisor.events.of("client_gone")) >= len(asked), "all have gone")
        seen = collections.Counter(e["data"]["pid"] for e in supervisor.events.of("client_asked"))
        wanted = collections.Counter(str(p) for p in asked)
        self.assertEqual(seen, wanted)
        gone = collections.Counter(e["data"]["pid"] for e in supervisor.events.of("client_gone"))
        self.assertEqual(gone, wanted)
        ids = [e["id"] for e in supervisor.events.seen]
        self.assertEqual(ids, sorted(set(ids)))
        self.assertEqual(ids, list(range(ids[0], ids[0] + len(ids))))
        self.assertEqual(self.pids(supervisor)["gpu0.shared"], pid)


if __name__ == "__main__":
    harness.main()
