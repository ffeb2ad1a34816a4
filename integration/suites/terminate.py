"""Clients that are terminated through MPS: by operators, and by their own container. With the real
control daemon where there is one, and simulated servers, so that there are clients."""

import json
import os
import select
import subprocess

import harness
from gate_kit import SHARED, GateSuite
from harness import wait_until

TERMINATED = 810


class Client:
    """A program with a context, which it looks at again when it is ended."""

    def __init__(self, supervisor, prefix=()):
        self.process = supervisor.probe(
            "--hold-until-stdin-closes", "--look-at-end", prefix=prefix
        )
        self.found = self.line()
        self.pid = self.found["pid"]

    def line(self):
        if not select.select([self.process.stdout], [], [], harness.DEADLINE)[0]:
            raise AssertionError(f"{self.process.pid} says nothing")
        return json.loads(self.process.stdout.readline())

    def end(self):
        """What its context was good for at last."""
        self.process.stdin.close()
        looked = self.line()["cuMemGetInfo"]
        self.process.wait(timeout=harness.DEADLINE)
        return looked


# Says the first argument over the socket that is the second, and prints what comes.
ASKING = (
    "import socket,sys\n"
    "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n"
    "s.connect(sys.argv[2])\n"
    "s.recv(4096)\n"
    "s.send(sys.argv[1].encode())\n"
    "sys.stdout.write(s.recv(4096).decode())\n"
)

# A launcher: becomes the parent of the program behind its own arguments, and asks (the first) at the
# socket (the second) once something is written to the third; the answer goes to the fourth.
LAUNCHER = (
    "import os,socket,subprocess,sys\n"
    "child=subprocess.Popen(sys.argv[5:])\n"
    "os.read(os.open(sys.argv[3],os.O_RDONLY),1)\n"
    "s=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n"
    "s.connect(sys.argv[2])\n"
    "s.recv(4096)\n"
    "s.send(sys.argv[1].encode())\n"
    "os.write(os.open(sys.argv[4],os.O_WRONLY),s.recv(4096))\n"
    "child.wait()\n"
)


class Terminate(GateSuite):
    def client(self, supervisor, prefix=()):
        client = Client(supervisor, prefix)
        self.assertEqual((client.found["cuInit"], client.found["cuCtxCreate"]), (0, 0))
        wait_until(lambda: client.pid in self.connected(supervisor), "it is connected")
        return client

    def connected(self, supervisor):
        return {c["pid"] for c in supervisor.get("/v1/clients") if c["connected"]}

    def test_by_an_operator(self):
        supervisor = self.supervisor().start()
        client, other = self.client(supervisor), self.client(supervisor)
        mark = supervisor.events.last_id()
        status, out, err = supervisor.ctl("terminate", str(client.pid))
        self.assertEqual((status, err), (0, ""))
        self.assertEqual(
            out,
            f"client {client.pid} of {SHARED} was terminated: MPS has ended its work on the GPU; "
            "its process was not killed\n",
        )
        event = supervisor.events.wait("client_terminated", mark, SHARED)
        self.assertRegex(
            event["message"],
            rf"^client {client.pid} \(mps-probe\) of \S+ was terminated through MPS$",
        )
        self.assertEqual(event["data"]["pid"], str(client.pid))
        self.assertEqual(event["data"]["command"], "mps-probe")
        self.assertIn(event["data"]["namespace"], event["message"])
        # Once more is no harm, and said once.
        self.assertEqual(supervisor.post(f"/v1/clients/{client.pid}:terminate")[0], 200)
        self.assertEqual(client.end(), TERMINATED)
        self.assertEqual(other.end(), 0)
        self.assertEqual(len(supervisor.events.of("client_terminated")), 1)

    def test_of_an_instance_without_a_gate(self):
        supervisor = self.supervisor(gate="off")
        supervisor.wait_open = lambda name=SHARED: harness.Supervisor.wait_open(supervisor, name)
        supervisor.start()
        client, other = self.client(supervisor), self.client(supervisor)
        self.assertEqual(supervisor.ctl("terminate", str(client.pid))[0], 0)
        event = supervisor.events.wait("client_terminated")
        self.assertEqual(
            event["message"], f"client {client.pid} (mps-probe) was terminated through MPS"
        )
        self.assertEqual((client.end(), other.end()), (TERMINATED, 0))

    def test_who_is_no_client_is_not(self):
        supervisor = self.supervisor().start()
        client = self.client(supervisor)
        control = supervisor.instance()["control"]["pid"]
        status, out, err = supervisor.ctl("terminate", str(control))
        self.assertEqual((status, out), (1, ""))
        self.assertEqual(err, f"mps-ctl: process {control} is not a client of any instance\n")
        pid = client.pid
        self.assertEqual(client.end(), 0)
        status, answer = supervisor.post(f"/v1/clients/{pid}:terminate")
        self.assertEqual((status, answer["error"]["code"]), (404, "not_found"))
        self.assertEqual(supervisor.events.of("client_terminated"), [])

    def test_who_has_been_let_in_and_is_no_client_yet(self):
        supervisor = self.supervisor().start()
        asking = self.asking(supervisor, "ask\n", stay=True)
        granted = self.answer(asking)
        self.assertTrue(granted.startswith("granted\n"), granted)
        status, answer = supervisor.post(f"/v1/clients/{asking.pid}:terminate")
        self.assertEqual((status, answer["error"]["code"]), (409, "conflict"))
        self.assertEqual(
            answer["error"]["message"],
            f"process {asking.pid} is not a client of a server of {SHARED}: none has it yet, or "
            "none any more",
        )

    def test_while_the_command_session_is_held(self):
        supervisor = self.supervisor().start()
        client = self.client(supervisor)
        session = supervisor.hold_session()
        status, answer = supervisor.post(f"/v1/clients/{client.pid}:terminate")
        self.assertEqual((status, answer["error"]["code"]), (504, "not_answered"), answer)
        self.assertIn(f"what came of client {client.pid} of {SHARED} is not known", str(answer))
        session.stdin.close()
        session.wait(timeout=harness.DEADLINE)
        path = f"/v1/clients/{client.pid}:terminate"
        wait_until(lambda: supervisor.post(path)[0] == 200, "the session is free again")
        self.assertEqual(client.end(), TERMINATED)

    # -- by its own container --

    def asking(self, supervisor, question, prefix=(), stay=False):
        code = ASKING + ("sys.stdout.flush()\nsys.stdin.read()\n" if stay else "")
        path = str(supervisor.run / SHARED / "open/admission.sock")
        started = subprocess.Popen(
            [*prefix, harness.PYTHON, "-c", code, question, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        supervisor.helpers.append(started)
        return started

    def answer(self, asking):
        if not select.select([asking.stdout], [], [], harness.DEADLINE)[0]:
            raise AssertionError("no answer")
        return asking.stdout.buffer.raw.read(4096).decode()

    def test_own_and_nobody_elses(self):
        groups = self.cgroups()
        known = {}
        ours, theirs, empty = (groups.container(f"team-{x}", known) for x in "abc")
        supervisor = self.supervisor()
        self.identities(supervisor, known)
        supervisor.start()
        mine = [self.client(supervisor, groups.inside(ours)) for _ in range(2)]
        other = self.client(supervisor, groups.inside(theirs))
        nobody = self.asking(supervisor, "terminate-own\n", groups.inside(empty))
        self.assertEqual(self.answer(nobody), "terminated\nasked=0\npids=\nfailed=0\n")
        asking = self.asking(supervisor, "terminate-own\n", groups.inside(ours))
        pids = " ".join(str(client.pid) for client in mine)
        self.assertEqual(self.answer(asking), f"terminated\nasked=2\npids={pids}\nfailed=0\n")
        supervisor.events.wait("client_terminated", count=2)
        told = supervisor.events.of("client_terminated")
        self.assertEqual({event["data"]["namespace"] for event in told}, {"team-a"})
        self.assertEqual([client.end() for client in mine], [TERMINATED, TERMINATED])
        self.assertEqual(other.end(), 0)

    def test_descendants_and_none_of_the_neighbours(self):
        groups = self.cgroups()
        known = {}
        ours = groups.container("team-a", known)
        supervisor = self.supervisor()
        self.identities(supervisor, known)
        supervisor.start()
        neighbour = self.client(supervisor, groups.inside(ours))
        go, told = (supervisor.root / name for name in ("go", "told"))
        ends = []
        for fifo in (go, told):
            os.mkfifo(fifo)
            ends.append(os.open(fifo, os.O_RDWR))
            self.addCleanup(os.close, ends[-1])
        launcher = (
            *(harness.PYTHON, "-c", LAUNCHER, "terminate-own\nscope=descendants\n"),
            str(supervisor.run / SHARED / "open/admission.sock"),
            *(str(go), str(told)),
        )
        child = self.client(supervisor, (*groups.inside(ours), *launcher))
        os.write(ends[0], b"x")
        self.assertTrue(select.select([ends[1]], [], [], harness.DEADLINE)[0])
        answer = os.read(ends[1], 4096).decode()
        self.assertEqual(answer, f"terminated\nasked=1\npids={child.pid}\nfailed=0\n")
        self.assertEqual(child.end(), TERMINATED)
        self.assertEqual(neighbour.end(), 0)


if __name__ == "__main__":
    harness.main()
