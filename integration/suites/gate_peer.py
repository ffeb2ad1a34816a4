"""A peer of a share's socket that is no CUDA program. The suites run this text as any uid.

One JSON object on stdin: {"path", "attempts": […]} says what each attempt says, one connection
each, and is answered by a JSON array of what became of it; {"path", "hold": N, "say": HEX} opens N
connections that take the greeting, say that much and then nothing, until stdin ends; {"path",
"crowd": N, "say": [HEX…]} opens N that say all that at once, whether they are greeted or not.
{"path", "through": N, "say": [HEX…]}: N processes, one after the other, that each say that and take
the answer.
"within": the cgroup to go into first.
"""

import array
import json
import os
import resource
import socket
import struct
import sys
import time

PATIENCE = 30.0  # seconds; only a peer that is held in error sees its end


def connect(path):
    """A full backlog is what a program waits for too."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    peer.settimeout(PATIENCE)
    end = time.monotonic() + PATIENCE
    while True:
        try:
            peer.connect(path)
            return peer
        except BlockingIOError:
            if time.monotonic() > end:
                raise
            time.sleep(0.001)


def send(peer, text, how):
    beside = []
    if how == "descriptor":
        beside.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0])))
    if how == "forged":  # as if another process said it: only root may
        credentials = struct.pack("iII", os.getppid(), os.getuid(), os.getgid())
        beside.append((socket.SOL_SOCKET, socket.SCM_CREDENTIALS, credentials))
    if how == "lent":  # another process says it
        child = os.fork()
        if child == 0:
            peer.sendmsg([text])
            os._exit(0)
        os.waitpid(child, 0)
    else:
        peer.sendmsg([text], beside)


def attempt(path, messages):
    """`messages`: pairs of what is said (hex) and how. What the gate does then."""
    with connect(path) as peer:
        if not peer.recv(512):
            return "not greeted"
        try:
            for text, how in messages:
                send(peer, bytes.fromhex(text), how)
            return "answered" if peer.recv(512) else "closed"
        except (BrokenPipeError, ConnectionResetError):
            return "closed"
        except TimeoutError:
            return "held"


def through(path, count, messages):
    for _ in range(count):
        child = os.fork()
        if child == 0:
            how = attempt(path, [[text, ""] for text in messages])
            os._exit(0 if how == "answered" else 1)
        assert os.waitpid(child, 0)[1] == 0, "let in"
    print(count, flush=True)
    sys.stdin.read()


def make_room(count):
    hard = max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], count + 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def crowd(path, count, messages):
    make_room(count)
    peers = []
    for _ in range(count):
        peers.append(connect(path))
        for text in messages:
            peers[-1].send(bytes.fromhex(text))
    print(len(peers), flush=True)
    sys.stdin.read()


def hold(path, count, text):
    make_room(count)
    peers = []
    for _ in range(count):
        peers.append(connect(path))
        assert peers[-1].recv(512), "greeted"
        if text:
            peers[-1].send(bytes.fromhex(text))
    print(len(peers), flush=True)
    sys.stdin.read()


def main():
    order = json.loads(sys.stdin.readline())
    if "within" in order:
        with open(f"{order['within']}/cgroup.procs", "w", encoding="ascii") as procs:
            procs.write(str(os.getpid()))
    if "through" in order:
        through(order["path"], order["through"], order["say"])
        return
    if "crowd" in order:
        crowd(order["path"], order["crowd"], order["say"])
        return
    if "hold" in order:
        hold(order["path"], order["hold"], order.get("say"))
        return
    print(json.dumps([attempt(order["path"], one) for one in order["attempts"]]), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
