"""A container that is stopped while it computes, with simulated servers, so that there are clients:
its CUDA is ended in order before its programs are."""

import json

from gate_kit import for_everybody
from harness import wait_until
from podman_kit import LAUNCHER, PodmanSuite, main


class Stopped(PodmanSuite):
    def client(self, supervisor, *before):
        options = self.with_cuda(supervisor)
        words = [*before, "/probe", "--hold-until-stdin-closes", "--look-at-end"]
        started = self.start_in(["gpu0.shared"], *words, options=options)
        found = json.loads(self.line(started))
        self.assertEqual((found["cuInit"], found["cuCtxCreate"]), (0, 0))
        return started

    def connected(self, supervisor):
        """The pid of each container's client."""
        clients = supervisor.get("/v1/clients")
        return {one["namespace"]: one["pid"] for one in clients if one["connected"]}

    def test_by_podman_stop(self):
        supervisor = self.supervisor(for_everybody()).start()
        self.podman(supervisor)
        guarded = self.client(supervisor, LAUNCHER.format("gpu0.shared"), "--guard", "--")
        neighbour = self.client(supervisor)
        both = {f"docker:{one.name}" for one in (guarded, neighbour)}
        wait_until(lambda: set(self.connected(supervisor)) == both, "both are connected")
        pid = self.connected(supervisor)[f"docker:{guarded.name}"]
        mark = supervisor.events.last_id()
        status, _, err = self.engine.do("stop", "--time", "50", guarded.name)
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(self.finish(guarded)[0], 143)
        ended = supervisor.events.wait("client_terminated", mark)
        gone = supervisor.events.wait("client_gone", mark)
        self.assertGreater(gone["id"], ended["id"])
        self.assertEqual([one["data"]["pid"] for one in (ended, gone)], [str(pid)] * 2)
        neighbour.stdin.close()
        self.assertEqual(json.loads(self.line(neighbour))["cuMemGetInfo"], 0)
        self.assertEqual(self.finish(neighbour)[0], 0)
        self.assertEqual(len(supervisor.events.of("client_terminated")), 1)


if __name__ == "__main__":
    main()
