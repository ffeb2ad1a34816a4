"""Peers that want more than their own: many connections, and a pid that was another's."""

import json
import os
import pathlib
import select
import signal
import socket
import sys

import harness
from gate_kit import GateSuite, for_everybody
from harness import policy, wait_until

SO_PEERPIDFD = 77
LAST_PID = pathlib.Path("/proc/sys/kernel/ns_last_pid")
THOUSANDS = 10000


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def room_in(gate):
    """How many it can hold; fewer than it is meant to where it may not have the descriptors."""
    for line in pathlib.Path(f"/proc/{gate}/limits").read_text().splitlines():
        if line.startswith("Max open files"):
            return (int(line.split()[3]) - 384 - 1024) // 3
    raise AssertionError("no limits")


def opening_of(supervisor):
    messages = json.loads((supervisor.state / "opening.json").read_text())["messages"]
    return [bytes.fromhex(text) for text in messages]


class Child:
    """A fork of ours that does what `body` says, writes what that returns, and stays."""

    def __init__(self, body):
        self.answers, writes = os.pipe()
        stay, self.stays = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.stays)
            try:
                os.write(writes, json.dumps(body()).encode() + b"\n")
                os.read(stay, 1)
            finally:
                os._exit(0)
        os.close(writes)
        os.close(stay)

    def answer(self):
        if not select.select([self.answers], [], [], harness.DEADLINE)[0]:
            raise AssertionError(f"nothing from {self.pid}")
        return json.loads(os.read(self.answers, 65536))

    def end(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            os.close(self.answers)
            os.close(self.stays)
        self.pid = 0


class Crowds(GateSuite):
    def test_ten_thousand_connections_of_one_container_beside_one_of_another(self):
        groups = self.cgroups()
        quotas = {"a.yaml": policy("team-a", quota={"clients": 1}), "b.yaml": policy("team-b")}
        supervisor = self.supervisor(quotas)
        known = {}
        mine, other = groups.container("team-a", known), groups.container("team-b", known)
        self.identities(supervisor, known)
        supervisor.start()
        first = self.lets_in(supervisor, prefix=groups.inside(mine))
        gate = supervisor.gate_pid()
        before = descriptors(gate)
        # Half of them say all that a program says, and there is no room for any of them.
        count = min(THOUSANDS, room_in(gate) * 3 // 4)
        if count < THOUSANDS:
            print(f"{count} here: the gate has descriptors for {room_in(gate)}", file=sys.stderr)
        whole = [message.hex() for message in opening_of(supervisor)]
        crowds = [
            supervisor.peer(within=str(mine), crowd=count // 2, say=said) for said in (whole, [])
        ]
        for crowd in crowds:
            self.assertEqual(crowd.stdout.readline(), f"{count // 2}\n")
        for _ in range(3):
            self.lets_in(supervisor, prefix=groups.inside(other)).end()
            percentage = supervisor.ask_daemon("get_default_active_thread_percentage")
            self.assertEqual(percentage, "100.0\n")
            self.assertEqual(supervisor.ctl("status")[0], 0)
        for crowd in crowds:
            self.assertNotIn(crowd.pid, supervisor.log.pids())
            crowd.stdin.close()
        first.end()
        wait_until(lambda: supervisor.at_the_share() == 0, "all have left")
        wait_until(lambda: descriptors(gate) <= before, "their descriptors are closed")
        self.assertEqual(supervisor.gates(), [gate])
        self.lets_in(supervisor, prefix=groups.inside(mine))


class PidAgain(GateSuite):
    """Who connects ends, and hands its socket to a process that gets its pid, before anybody has
    looked: the pid is the same, and the process is not."""

    def setUp(self):
        super().setUp()
        self.children = []
        self.addCleanup(lambda: [child.end() for child in self.children])
        if not os.access(LAST_PID, os.W_OK):
            self.cannot("pids can't be chosen here")

    def cannot(self, why):
        print(f"NOT TESTED HERE: {self.id()}: {why}", file=sys.stderr, flush=True)
        self.skipTest(why)

    def child(self, body):
        self.children.append(Child(body))
        return self.children[-1]

    def child_with(self, pid, body):
        """Others get pids too, so it is tried until nobody came between."""
        for _ in range(1000):
            LAST_PID.write_text(str(pid - 1))
            child = self.child(lambda: body() if os.getpid() == pid else None)
            if child.pid == pid:
                return child
            child.end()
            self.children.pop()
        self.cannot(f"somebody else has pid {pid}")

    def connected_by_the_dead(self, path):
        """A socket, and the pid of who connected it, which is free again."""
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(harness.DEADLINE)
        maker = self.child(lambda: peer.connect(path))
        pid = maker.pid
        self.assertIsNone(maker.answer())
        maker.end()
        self.children.pop()
        return peer, pid

    def kernel_knows(self, supervisor):
        """Whether it can still tell who connected, once that process is gone."""
        path = str(supervisor.root / "listener")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            self.connected_by_the_dead(path)[0].close()
            accepted = listener.accept()[0]
            try:
                os.close(accepted.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD))
                return True
            except OSError:
                return False

    @staticmethod
    def says(peer, messages, early):
        """What it is told, until the end."""
        told = [] if early else [peer.recv(4096).decode("latin1")]
        for text in messages:
            peer.send(text)
        while True:
            try:
                text = peer.recv(4096)
            except ConnectionResetError:
                text = b""
            if not text:
                return told
            told.append(text.decode("latin1"))

    def try_at(self, supervisor, path, looks, messages, early):
        """`looks`: the process that is to look at who connected. What the second one is told."""
        os.kill(looks, signal.SIGSTOP)
        try:
            peer, pid = self.connected_by_the_dead(path)
            second = self.child_with(pid, lambda: self.says(peer, messages, early))
        finally:
            os.kill(looks, signal.SIGCONT)
        told = second.answer()
        self.assertNotIn(pid, supervisor.admitted_pids())
        second.end()
        peer.close()
        return told

    def ways(self, supervisor):
        """Whether it speaks before anybody can have looked. Where the kernel does not know any more
        who connected, one that speaks later is taken for who it is."""
        return (True, False) if self.kernel_knows(supervisor) else (True,)

    def test_at_the_gate(self):
        supervisor = self.supervisor().start()
        opening = opening_of(supervisor)
        for early in self.ways(supervisor):
            told = self.try_at(
                supervisor, supervisor.share(), supervisor.gate_pid(), opening, early
            )
            self.assertEqual(len(told), 1)  # the greeting
        # What the daemon heard before this it has heard by now.
        supervisor.ask_daemon("get_default_active_thread_percentage")
        self.assertEqual(supervisor.log.pids(), [])
        self.lets_in(supervisor)

    def test_at_the_desk(self):
        supervisor = self.supervisor(for_everybody()).start()
        path = str(supervisor.open_pipe().parent / "admission.sock")
        for early in self.ways(supervisor):
            told = self.try_at(supervisor, path, supervisor.process.pid, [b"ask\n"], early)
            self.assertFalse([text for text in told if text.startswith("granted")], told)
        # One who connects itself is let in.
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.settimeout(harness.DEADLINE)

        def asks():
            peer.connect(path)
            peer.recv(4096)
            peer.send(b"ask\n")
            return peer.recv(4096).decode()

        child = self.child(asks)
        self.assertTrue(child.answer().startswith("granted\n"))
        self.assertIn(child.pid, supervisor.admitted_pids())
        child.end()
        peer.close()
        supervisor.wait_no_slots()


if __name__ == "__main__":
    harness.main()
