"""Shares made on demand: real programs and real control daemons."""

import json
import os
import pathlib
import shutil
import signal
import subprocess

import harness
from gate_kit import REFUSED, SHARED, GateSuite, Program
from harness import policy, wait_until

# The first namespace of processes: only there is it known who has something mounted.
SEES_ALL = os.readlink("/proc/self/ns/pid") == "pid:[4026531836]"
MOUNTED = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'mount --bind "$0" "$1" && mount -o remount,bind,ro "$1" || exit 9\n'
    'export CUDA_MPS_PIPE_DIRECTORY="$1/pipe"\nshift\nexec "$@"',
)


class Shares(GateSuite):
    def create(self, supervisor, *arguments):
        status, out, err = supervisor.ctl(
            "-o", "json", "shares", "create", "--device", "0", *arguments
        )
        self.assertEqual(status, 0, err)
        return json.loads(out)

    @staticmethod
    def through(share):
        return ("env", f"CUDA_MPS_PIPE_DIRECTORY={share['pipeDirectory']}")

    def shares(self, supervisor):
        return {one["id"]: one for one in supervisor.get("/v1/shares")}

    def wait_gone(self, supervisor, share):
        """Its folder goes where it can be known that nobody has it mounted, and stays elsewhere."""
        if SEES_ALL:
            supervisor.events.wait("share_removed")
            self.assertFalse(os.path.exists(share["directory"]))
        else:
            self.assertTrue(os.path.exists(f"{share['pipeDirectory']}/control"))

    def test_limits_of_its_own(self):
        supervisor = self.supervisor({"a.yaml": policy("team-a", percentage=10)}).start()
        self.is_refused(supervisor, "no_policy")
        share = self.create(supervisor, "--threads", "60", "--memory", "12Gi")
        self.assertEqual(share["id"], "s1")
        mark = supervisor.events.last_id()
        self.lets_in(supervisor, prefix=self.through(share))
        admission = supervisor.get("/v1/admissions")[0]
        self.assertEqual(admission["share"], "s1")
        self.assertEqual(
            admission["limits"], {"activeThreadPercentage": 60, "pinnedDeviceMemoryMiB": 12288}
        )
        # The instance may give what the share may have.
        wait_until(
            lambda: supervisor.instance()["limits"]["activeThreadPercentage"] == 60
            and supervisor.instance()["limits"]["confirmed"],
            "the ceiling has risen",
        )
        self.assertEqual(self.shares(supervisor)["s1"]["clients"], 1)
        self.assertEqual([e["kind"] for e in supervisor.events.of("refused") if e["id"] > mark], [])

    def test_another_namespace(self):
        supervisor = self.supervisor().start()
        share = self.create(supervisor, "--namespace", "team-z")
        event = self.is_refused(supervisor, "wrong_pod", prefix=self.through(share))
        self.assertIn("share s1 is for team-z, and this process is of ", event["message"])

    def test_deleted_while_in_use(self):
        supervisor = self.supervisor().start()
        share = self.create(supervisor)
        first = self.lets_in(supervisor, prefix=self.through(share))
        status, _, err = supervisor.ctl("shares", "delete", "s1")
        self.assertEqual(status, 1)
        self.assertIn(f"share s1 has 1 client: pid {first.pid} (", err)
        status, out, _ = supervisor.ctl("shares", "delete", "s1", "--drain")
        self.assertEqual(
            (status, out),
            (0, "share s1: nobody comes in any more; it ends with the last of 1 client\n"),
        )
        self.assertEqual(self.shares(supervisor)["s1"]["state"], "closing")
        self.is_refused(supervisor, "share_deleted", prefix=self.through(share))
        # So it is after a restart of everything but the daemon, too.
        os.kill(supervisor.gate_pid(), signal.SIGKILL)
        supervisor.kill9()
        supervisor.start()
        supervisor.wait_open()
        self.is_refused(supervisor, "share_deleted", prefix=self.through(share))
        first.end()
        supervisor.events.wait("share_deleted")
        self.assertNotIn("s1", self.shares(supervisor))
        self.wait_gone(supervisor, share)
        self.assertEqual(self.create(supervisor)["id"], "s2")

    def test_deleted_while_mounted(self):
        supervisor = self.supervisor().start()
        share = self.create(supervisor)
        there = supervisor.root / "there"
        there.mkdir()
        # A container that has it mounted, and starts programs when it likes.
        holder = subprocess.Popen(
            [*MOUNTED, share["directory"], str(there), "sleep", "3600"], stdin=subprocess.DEVNULL
        )
        supervisor.helpers.append(holder)
        wait_until(
            lambda: pathlib.Path(f"/proc/{holder.pid}/comm").read_text() == "sleep\n", "it is up"
        )
        inside = (
            "nsenter",
            f"--mount=/proc/{holder.pid}/ns/mnt",
            "env",
            f"CUDA_MPS_PIPE_DIRECTORY={there}/pipe",
        )
        self.lets_in(supervisor, prefix=inside).end()
        supervisor.wait_no_slots()
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("shares", "delete", "s1")[0], 0)
        supervisor.events.wait("share_deleted", mark)
        self.is_refused(supervisor, "share_deleted", prefix=inside)
        supervisor.kill9()
        supervisor.start()
        supervisor.wait_open()
        self.is_refused(supervisor, "share_deleted", prefix=inside)
        holder.kill()
        holder.wait()
        self.wait_gone(supervisor, share)

    def test_its_time_is_over(self):
        supervisor = self.supervisor().start()
        share = self.create(supervisor, "--ttl", "1s")
        supervisor.events.wait("share_expired")
        supervisor.events.wait("share_deleted")
        if not SEES_ALL:
            self.is_refused(supervisor, "share_deleted", prefix=self.through(share))

    def test_of_a_namespace_with_an_instance_of_its_own(self):
        files = {"a.yaml": policy("team-a", percentage=10, isolation="dedicated")}
        supervisor = self.supervisor(files).start(wait_ready=("gpu0.ns-team-a",))
        share = self.create(supervisor, "--namespace", "team-a", "--threads", "20")
        self.assertEqual(share["instance"], "gpu0.ns-team-a")
        self.assertTrue(os.path.exists(f"{share['pipeDirectory']}/control"))

    def test_what_cannot_be(self):
        supervisor = self.supervisor().start()
        for arguments, message in (
            (("--device", "7"), 'no device "7"'),
            (("--device", "0", "--memory", "1Ti"), "1024Gi is more than gpu0 has (141Gi)"),
            (("--device", "0", "--threads", "0"), "activeThreadPercentage: must be above 0 and"),
        ):
            status, _, err = supervisor.ctl("shares", "create", *arguments)
            self.assertEqual(status, 1)
            self.assertIn(message, err)
        self.assertEqual(supervisor.ctl("shares", "delete", "s1")[0], 1)


class Programs(GateSuite):
    """What a container finds in its share to start: here stand-ins, beside a copy of ours."""

    def with_stand_ins(self):
        supervisor = self.supervisor(probe={"interval": "200ms"})
        self.ours = supervisor.root / "ours"
        (self.ours / "bin").mkdir(parents=True)
        (self.ours / "lib").mkdir()
        for name in ("mps-supervisor", "mps-gate", "mps-cuinit"):
            shutil.copy(harness.OPTIONS.build / "bin" / name, self.ours / "bin" / name)
        supervisor.program = self.ours / "bin/mps-supervisor"
        self.put("bin/mps-run", "#!/bin/sh\necho first\n")
        self.put("lib/libmps-shim.so", "a library")
        return supervisor

    def put(self, name, text):
        fresh = self.ours / (name + ".new")
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.rename(self.ours / name)

    def says(self, folder):
        """What the launcher in that share prints."""
        done = subprocess.run([folder / "bin/mps-run"], capture_output=True, text=True, timeout=60)
        return done.stdout.strip()

    def test_in_each_share(self):
        supervisor = self.with_stand_ins().start()
        supervisor.ctl("shares", "create", "--device", "0")
        shares = [supervisor.run / SHARED / path for path in ("open", "shares/s1")]
        for share in shares:
            self.assertEqual(self.says(share), "first")
            self.assertEqual((share / "lib/libmps-shim.so").read_text(), "a library")
        one, other = ((share / "bin/mps-run").stat() for share in shares)
        self.assertNotEqual(one.st_ino, other.st_ino)
        self.assertEqual((one.st_nlink, other.st_nlink), (1, 1))
        self.assertEqual(supervisor.events.of("share_program_missing"), [])
        # Somebody with a writable mount.
        (shares[1] / "bin/mps-run").write_text("#!/bin/sh\necho mine\n")
        event = supervisor.events.wait("share_program_replaced", instance=SHARED)
        self.assertEqual(
            event["message"],
            f"{shares[1]}/bin/mps-run was not this agent's, but an earlier version's or what "
            "somebody made of it; it was replaced",
        )
        self.assertEqual([self.says(share) for share in shares], ["first", "first"])

    def test_over_an_upgrade(self):
        supervisor = self.with_stand_ins().start()
        share = supervisor.run / SHARED / "open"
        supervisor.kill9()
        self.put("bin/mps-run", "#!/bin/sh\necho second\n")
        mark = supervisor.events.last_id()
        supervisor.start()
        event = supervisor.events.wait("share_program_replaced", mark)
        self.assertIn(f"{share}/bin/mps-run", event["message"])
        self.assertEqual(self.says(share), "second")

    def test_where_there_are_none(self):
        supervisor = self.with_stand_ins()
        (self.ours / "bin/mps-run").unlink()
        supervisor.start()
        event = supervisor.events.wait("share_program_missing")
        self.assertEqual(
            event["message"],
            f"no mps-run in {self.ours}/bin or {self.ours}/libexec/mps-supervisor; shares go "
            "without",
        )
        share = supervisor.run / SHARED / "open"
        self.assertFalse((share / "bin").exists())
        self.assertTrue((share / "lib/libmps-shim.so").exists())

    def test_on_a_file_system_that_is_noexec(self):
        supervisor = self.with_stand_ins()
        mount = 'mount -t tmpfs -o noexec,mode=0755 tmpfs "$0" || exit 9; exec "$@"'
        supervisor.run.mkdir()
        supervisor.start(
            wait_ready=False, prefix=("unshare", "--mount", "sh", "-c", mount, str(supervisor.run))
        )
        journal = supervisor.state / "journal.jsonl"
        found = wait_until(
            lambda: journal.exists()
            and [line for line in journal.read_text().splitlines() if "share_noexec" in line],
            "it is said",
        )
        self.assertEqual(
            json.loads(found[0])["message"],
            f"{supervisor.run}/{SHARED}/open is on a file system that is mounted noexec: nobody "
            "can start mps-run from a share; mount it without noexec, or set runDir to one that "
            "is not",
        )


if __name__ == "__main__":
    harness.main()
