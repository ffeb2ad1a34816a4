"""Shares as CDI devices: the files that docker and podman read, on a running supervisor."""

import json
import os
import pathlib
import socket

import harness
from gate_kit import SHARED, GateSuite
from harness import wait_until


def file_of(name):
    return f"mps-supervisor.dev-share-{name}.json"


def spec(name, folder, *environment):
    return {
        "cdiVersion": "0.3.0",
        "kind": "mps-supervisor.dev/share",
        "devices": [
            {
                "name": name,
                "containerEdits": {
                    "env": [f"CUDA_MPS_PIPE_DIRECTORY=/run/mps-share/{name}/pipe", *environment],
                    "mounts": [
                        {
                            "hostPath": str(folder),
                            "containerPath": f"/run/mps-share/{name}",
                            "options": ["rbind", "ro", "nosuid", "nodev"],
                        }
                    ],
                },
            }
        ],
    }


class Cdi(GateSuite):
    def folder(self, supervisor):
        return pathlib.Path(supervisor.settings["cdiDir"])

    def files(self, supervisor):
        folder = self.folder(supervisor)
        return sorted(os.listdir(folder)) if folder.exists() else []

    def read(self, supervisor, name):
        return json.loads((self.folder(supervisor) / file_of(name)).read_text())

    def create(self, supervisor, *arguments, output="json"):
        status, out, err = supervisor.ctl(
            "-o", output, "shares", "create", "--device", "0", *arguments
        )
        self.assertEqual(status, 0, err)
        return json.loads(out) if output == "json" else out

    def share_of(self, supervisor, name):
        return next(one for one in supervisor.get("/v1/shares") if one["id"] == name)

    def test_a_share_is_a_device_as_long_as_it_takes_newcomers(self):
        supervisor = self.supervisor().start()
        share = self.create(supervisor, "--threads", "25", "--memory", "12Gi")
        self.assertEqual(share["cdiDevice"], "mps-supervisor.dev/share=s1")
        self.assertEqual(
            self.read(supervisor, "s1"),
            spec(
                "s1",
                supervisor.run / SHARED / "shares/s1",
                "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25.0",
                "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=12288M",
            ),
        )
        self.assertEqual(
            (self.folder(supervisor) / file_of("s1")).stat().st_mode & 0o7777, 0o644
        )
        self.assertEqual(self.files(supervisor), [file_of(SHARED), file_of("s1")])
        client = self.lets_in(
            supervisor, prefix=("env", f"CUDA_MPS_PIPE_DIRECTORY={share['pipeDirectory']}")
        )
        self.assertEqual(supervisor.ctl("shares", "delete", "s1", "--drain")[0], 0)
        self.assertEqual(self.files(supervisor), [file_of(SHARED)])
        self.assertIsNone(self.share_of(supervisor, "s1")["cdiDevice"])
        client.end()

    def test_gone_before_its_end_is_told(self):
        supervisor = self.supervisor().start()
        self.create(supervisor)
        self.assertEqual(supervisor.ctl("shares", "delete", "s1")[0], 0)
        self.assertEqual(self.files(supervisor), [file_of(SHARED)])
        self.create(supervisor, "--ttl", "1s")
        supervisor.events.wait("share_expired")
        self.assertEqual(self.files(supervisor), [file_of(SHARED)])

    def test_what_is_printed(self):
        supervisor = self.supervisor().start()
        out = self.create(supervisor, output="table")
        line = "--device mps-supervisor.dev/share=s1 IMAGE /run/mps-share/s1/bin/mps-run -- COMMAND"
        self.assertTrue(
            out.endswith(
                "/pipe behind it\nor take it as the CDI device mps-supervisor.dev/share=s1, beside "
                f"the GPU itself:\n  docker run {line}\n  podman run {line}\n"
            ),
            out,
        )

    def test_off(self):
        supervisor = self.supervisor(cdiDir="").start()
        out = self.create(supervisor, output="table")
        self.assertTrue(out.endswith("\nno CDI device: CDI is off (cdiDir)\n"), out)
        self.assertEqual(self.share_of(supervisor, "s1")["noCdiDevice"], "CDI is off (cdiDir)")
        self.assertFalse((supervisor.root / "cdi").exists())

    def test_open_shares(self):
        supervisor = self.supervisor().start()
        self.assertEqual(
            self.read(supervisor, SHARED), spec(SHARED, supervisor.run / SHARED / "open")
        )
        share = self.share_of(supervisor, "open")
        self.assertEqual(share["cdiDevice"], f"mps-supervisor.dev/share={SHARED}")

    def test_of_an_instance_without_a_gate(self):
        supervisor = self.supervisor(gate="off")
        supervisor.wait_open = lambda name=SHARED: harness.Supervisor.wait_open(supervisor, name)
        supervisor.start()
        self.assertEqual(self.files(supervisor), [file_of(SHARED)])

    def test_several_devices(self):
        supervisor = self.supervisor()
        first = supervisor.settings["devices"][0]
        second = {**first, "uuid": "GPU-00000000-0000-0000-0000-000000000001", "index": 1}
        supervisor.settings["devices"] = [first, second]
        supervisor.start()
        folder = supervisor.run / SHARED / "open"
        visible = f"CUDA_VISIBLE_DEVICES={first['uuid']}"
        self.assertEqual(self.read(supervisor, SHARED), spec(SHARED, folder, visible))
        # A launcher is told the same.
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.settimeout(harness.DEADLINE)
            agent.connect(str(folder / "admission.sock"))
            hello = agent.recv(4096).decode().splitlines()
            self.assertIn(f"device={first['uuid']}", hello)
            self.assertIn("device-name=gpu0", hello)
            agent.send(b"standing\n")
            standing = agent.recv(4096).decode().splitlines()
            self.assertIn("instance-state=ready", standing)
            self.assertIn(f"visible-devices={first['uuid']}", standing)
            self.assertIn("next=granted", standing)

    def test_over_restarts(self):
        supervisor = self.supervisor().start()
        self.create(supervisor)
        self.create(supervisor)
        folder = self.folder(supervisor)
        before = (folder / file_of("s2")).stat().st_ino
        other = supervisor.root / "other/gpu0.shared/open"
        supervisor.kill9()
        # What another one left of a share of ours that is gone, and another supervisor's.
        stale = json.dumps(spec("s77", supervisor.run / SHARED / "shares/s77"))
        (folder / file_of("s77")).write_text(stale)
        (folder / f".{file_of('s78')}.tmp").write_text("half")
        (folder / file_of("gpu9.shared")).write_text(json.dumps(spec("gpu9.shared", other)))
        (folder / file_of("s1")).unlink()
        supervisor.start()
        kept = [SHARED, "gpu9.shared", "s1", "s2"]
        self.assertEqual(self.files(supervisor), [file_of(name) for name in kept])
        self.assertEqual((folder / file_of("s2")).stat().st_ino, before)
        # One that ends and leaves its instances running leaves them, too.
        self.assertEqual(supervisor.terminate(), 0)
        self.assertEqual(self.files(supervisor), [file_of(name) for name in kept])
        supervisor.start(flags=("--stop-instances",))
        self.assertEqual(supervisor.terminate(), 0)
        self.assertEqual(self.files(supervisor), [file_of("gpu9.shared")])

    def test_what_cannot_be_written(self):
        supervisor = self.supervisor()
        folder = self.folder(supervisor)
        folder.write_text("a file in its place")
        supervisor.start()
        event = supervisor.events.wait("cdi_failed")
        self.assertEqual(event["message"], f"{folder}: Not a directory")
        share = self.create(supervisor)
        self.assertIsNone(share["cdiDevice"])
        self.assertEqual(share["noCdiDevice"], f"{folder}: Not a directory")
        self.assertEqual(len(supervisor.events.of("cdi_failed")), 1)
        folder.unlink()
        self.create(supervisor)
        self.assertEqual(self.files(supervisor), [file_of(x) for x in (SHARED, "s1", "s2")])

    def test_one_that_somebody_removed_comes_back(self):
        supervisor = self.supervisor().start()
        (self.folder(supervisor) / file_of(SHARED)).unlink()
        supervisor.policies.put("more.yaml", harness.policy("team-z", percentage=5))
        wait_until(lambda: self.files(supervisor) == [file_of(SHARED)], "it is there again")


if __name__ == "__main__":
    harness.main()
