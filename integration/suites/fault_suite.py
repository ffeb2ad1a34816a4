"""What the suites of faults share: a node with a policy for everybody, clients that fault on order,
and the incidents that come of it."""

from gate_kit import SHARED, GateSuite, for_everybody
from harness import OPTIONS, wait_until
from sim_kit import Lines


class FaultSuite(GateSuite):
    def node(self, policies=None, **settings):
        supervisor = self.supervisor(policies or for_everybody(), **settings)
        supervisor.environment["MPS_SIM_SERVER_READY_MS"] = "5"
        return supervisor.start()

    def program(self, supervisor, prefix=(), name=SHARED):
        """A probe that does what it is told, once it has said whether it is in."""
        probe = Lines(
            [*prefix, OPTIONS.build / "bin/mps-probe", "--commands"],
            supervisor.backend.environment(supervisor.open_pipe(name)),
        )
        supervisor.helpers.append(probe.process)
        return probe

    def client(self, supervisor, prefix=(), name=SHARED):
        """One that is in, with a context."""
        probe = self.program(supervisor, prefix, name)
        first = probe.said()
        self.assertEqual((first["cuInit"], first["cuCtxCreate"]), (0, 0))
        wait_until(lambda: probe.pid in self.connected(supervisor), "it is connected")
        return probe

    def connected(self, supervisor):
        return {c["pid"] for c in supervisor.get("/v1/clients") if c["connected"]}

    def nobody_is_there(self, supervisor):
        """Programs have ended; the supervisor hears of it a little later."""
        wait_until(lambda: not supervisor.get("/v1/clients"), "all clients have gone")

    def server(self, supervisor, other_than=None):
        """Its pid, once the supervisor knows of it."""

        def known():
            server = supervisor.instance()["server"]
            return server and server["pid"] != other_than and server["pid"]

        return wait_until(known, f"a server other than {other_than}")

    def state(self, supervisor):
        return supervisor.instance()["state"]

    def serves_again(self, supervisor, mark):
        supervisor.events.wait("fault_over", mark, SHARED)
        self.assertEqual(self.state(supervisor), "ready")
        newcomer = self.client(supervisor)
        self.assertEqual(newcomer.ask("launch 1")["result"], 0)
        return newcomer


class IncidentSuite(FaultSuite):
    def incidents(self, supervisor):
        return supervisor.get("/v1/faults")

    def closed(self, supervisor):
        """The one incident, when it is over."""

        def over():
            found = self.incidents(supervisor)
            return found[0] if found and found[0]["closed"] else None

        incident = wait_until(over, "the incident is closed")
        self.assertEqual(len(self.incidents(supervisor)), 1)
        return supervisor.get(f"/v1/faults/{incident['id']}")

    def pids(self, clients):
        return {client["pid"] for client in clients}
