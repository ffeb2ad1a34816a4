"""Devices come from NVML (the simulated one), with its failures; compute modes; the CLI on top."""

import json

import harness
from harness import Suite, wait_until
from sim_nvml import SimNvml

TWO_AND_MIG = (
    "driver 550.163.01",
    'gpu GPU-aaaa name="Simulated H200" memory=143771 cc=9.0 sms=132 mode=default',
    "gpu GPU-bbbb mig=on",
    "mig MIG-cccc memory=16384 sms=16",
    "mig MIG-dddd memory=16384 sms=16",
    "gpu GPU-eeee cc=6.1",
)


class Devices(Suite):
    def with_nvml(self, *lines, **settings):
        supervisor = self.supervisor(settings=settings)
        supervisor.nvml = SimNvml(supervisor, *lines)
        return supervisor

    def mode(self, supervisor):
        return [w for w in supervisor.nvml.text().split() if w.startswith("mode=")][0]

    def test_an_instance_for_each_device_that_can(self):
        supervisor = self.with_nvml(*TWO_AND_MIG)
        supervisor.start(wait_ready=["gpu0.shared", "gpu1-mig0.shared", "gpu1-mig1.shared"])
        ids = [i["id"] for i in supervisor.get("/v1/instances")]
        self.assertEqual(ids, ["gpu0.shared", "gpu1-mig0.shared", "gpu1-mig1.shared"])
        shown = {d["uuid"]: d for d in supervisor.get("/v1/devices")}
        self.assertEqual(shown["GPU-aaaa"]["smCount"], 132)
        self.assertEqual(
            shown["GPU-bbbb"]["notCapableBecause"], "MIG is enabled: its MIG devices have instances of their own"
        )
        self.assertEqual(
            shown["GPU-eeee"]["notCapableBecause"],
            "compute capability 6.1: MPS with limits needs 7.0 (Volta) or later",
        )
        environment = harness.pathlib.Path(
            f"/proc/{supervisor.instance('gpu1-mig1.shared')['control']['pid']}/environ"
        ).read_bytes()
        self.assertIn(b"\0CUDA_VISIBLE_DEVICES=MIG-dddd\0", environment)

    def test_a_failing_call_is_an_error_of_that_device(self):
        supervisor = self.with_nvml(
            *TWO_AND_MIG, "fail nvmlDeviceGetMemoryInfo_v2 999 GPU-aaaa"
        )
        supervisor.start(wait_ready=["gpu1-mig0.shared"])
        shown = {d["uuid"]: d for d in supervisor.get("/v1/devices")}
        self.assertIn("nvmlDeviceGetMemoryInfo", shown["GPU-aaaa"]["error"])
        self.assertIsNone(shown["MIG-cccc"]["error"])
        supervisor.events.wait("device_error")

    def test_no_nvml_is_said_and_waited_for(self):
        supervisor = self.with_nvml(*TWO_AND_MIG)
        supervisor.settings["nvmlLibrary"] = "/nowhere/libnvidia-ml.so.1"
        supervisor.start(wait_ready=False)
        said = supervisor.events.wait("devices_unknown")
        self.assertEqual(
            said["message"],
            "NVML: /nowhere/libnvidia-ml.so.1: cannot open shared object file: No such file or "
            "directory; without NVML, devices can be declared in the settings",
        )
        status = supervisor.get("/v1/status")
        self.assertFalse(status["ready"])
        self.assertEqual(supervisor.get("/v1/instances"), [])

    def test_an_nvml_that_hangs_does_not_hang_us(self):
        supervisor = self.with_nvml(*TWO_AND_MIG, "hang nvmlDeviceGetCount_v2")
        supervisor.start(wait_ready=False)
        said = supervisor.events.wait("devices_unknown")
        self.assertIn("did not answer within 30s", said["message"])
        supervisor.nvml.lists(*TWO_AND_MIG)  # lets the stuck call go on

    def test_exclusive_mode_is_set_and_put_back_at_the_end(self):
        supervisor = self.with_nvml(*TWO_AND_MIG, computeMode="exclusive", stopInstances=True)
        supervisor.start(wait_ready=["gpu0.shared"])
        self.assertEqual(self.mode(supervisor), "mode=exclusive-process")
        self.assertEqual(supervisor.terminate(), 0)
        self.assertEqual(self.mode(supervisor), "mode=default")

    def test_exclusive_mode_is_put_back_after_a_crash(self):
        supervisor = self.with_nvml(*TWO_AND_MIG, computeMode="exclusive")
        supervisor.start(wait_ready=["gpu0.shared"])
        supervisor.kill9()
        self.assertEqual(self.mode(supervisor), "mode=exclusive-process")
        supervisor.settings["computeMode"] = "leave"
        supervisor.start(wait_ready=["gpu0.shared"])
        wait_until(lambda: self.mode(supervisor) == "mode=default", "put back")
        ledger = supervisor.state / "compute-modes.json"
        wait_until(lambda: not ledger.exists() or "GPU-aaaa" not in ledger.read_text(), "forgotten")


class Cli(Suite):
    def test_every_view_and_verb(self):
        supervisor = self.supervisor(devices=2).start()
        for view in ("status", "devices", "instances", "clients", "events", "version"):
            for form in ("table", "wide", "json", "yaml"):
                status, output, error = supervisor.ctl(view, "-o", form)
                self.assertEqual((status, error), (0, ""), (view, form))
                if form == "json":
                    json.loads(output)
        status, output, _ = supervisor.ctl("instances", "-o", "json")
        first = json.loads(output)[0]
        self.assertEqual(first["limits"]["activeThreadPercentage"], 50.0)
        self.assertEqual(first["gate"], "direct")
        self.assertEqual(first["bypass"], "open")
        mark = supervisor.events.last_id()
        self.assertEqual(supervisor.ctl("drain", "gpu1.shared")[0], 0)
        supervisor.events.wait("stopped", mark, "gpu1.shared")
        self.assertEqual(supervisor.instance("gpu1.shared")["state"], "stopped")
        self.assertEqual(supervisor.ctl("undrain", "gpu1.shared")[0], 0)
        ready = supervisor.events.wait("ready", mark, "gpu1.shared")
        self.assertEqual(supervisor.ctl("restart", "gpu1.shared")[0], 0)
        supervisor.events.wait("ready", ready["id"], "gpu1.shared")
        status, _, error = supervisor.ctl("drain", "gpu1.sharde")
        self.assertEqual(status, 1)
        self.assertIn('no instance "gpu1.sharde"; did you mean "gpu1.shared"?', error)

    def test_exit_statuses(self):
        supervisor = self.supervisor()
        status, _, error = supervisor.ctl("status", socket_path="/nowhere/supervisor.sock")
        self.assertEqual(status, 3)
        self.assertIn(
            "cannot reach the supervisor at /nowhere/supervisor.sock: No such file or directory",
            error,
        )
        self.assertEqual(supervisor.ctl("frobnicate")[0], 2)

    def test_doctor_works_with_and_without_a_supervisor(self):
        supervisor = self.supervisor().start()
        status, output, _ = supervisor.ctl("doctor", "-o", "json")
        self.assertIn(status, (0, 1))
        findings = json.loads(output)
        self.assertTrue(all(f["check"] and f["message"] for f in findings))
        supervisor.terminate()
        status, output, _ = supervisor.ctl("doctor")
        self.assertIn(status, (0, 1))
        self.assertTrue(output)


if __name__ == "__main__":
    harness.main()
