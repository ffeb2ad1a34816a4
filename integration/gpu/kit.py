"""What the questions share: the table of them, a control daemon by itself, a supervisor with a gate,
and facts that are kept as they come, so that a question that ends badly still tells what it saw."""

import contextlib
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "suites"))
import gate_kit  # noqa: E402
import sim_kit  # noqa: E402
from harness import OPTIONS, wait_until  # noqa: E402

PATIENCE = 20.0  # seconds for one thing; a question has a few of them
QUESTIONS = []


def question(text):
    """Puts a function into the table: it is given a Facts, and says there what it finds."""

    def put(ask):
        QUESTIONS.append((text, ask))
        return ask

    return put


class Facts:
    def __init__(self):
        self.found = []  # (what, value), in order
        self.stack = contextlib.ExitStack()

    def note(self, what, value):
        self.found.append((what, value))
        print(f"  {what}: {value}", flush=True)

    def node(self):
        """A control daemon by itself."""
        node = sim_kit.Node()
        self.stack.callback(node.close)
        return node.start()

    def gated(self):
        """A supervisor with a gate, and a policy for everybody."""
        supervisor = gate_kit.GatedSupervisor()
        self.stack.callback(supervisor.close)
        for name, text in gate_kit.for_everybody().items():
            supervisor.policies.put(name, text)
        return supervisor.start(wait_ready=[gate_kit.SHARED])

    def through_share(self, supervisor, *arguments):
        """A program that comes in through the gate."""
        environment = supervisor.backend.environment(supervisor.open_pipe())
        probe = sim_kit.Lines(
            [OPTIONS.build / "bin/mps-probe", "--commands", *arguments], environment
        )
        supervisor.helpers.append(probe.process)
        return probe


def said(probe, deadline=PATIENCE):
    """What it says next, or that it says nothing."""
    try:
        return probe.said(deadline)
    except AssertionError as error:
        status = probe.process.poll()
        return {"nothing": "it hangs" if status is None else f"it ended with {status}"} | (
            {} if status is None else {"error": str(error)}
        )


def ask(probe, line, deadline=PATIENCE):
    try:
        probe.tell(line)
    except OSError:
        return {"nothing": f"it ended with {probe.process.wait()}"}
    return said(probe, deadline)


def brief(answer):
    """A result for people: "0", "700 (CUDA_ERROR_ILLEGAL_ADDRESS)", "it hangs"."""
    if "nothing" in answer:
        return answer["nothing"]
    result = answer.get("result", answer.get("cuInit"))
    name = answer.get("name") or answer.get("cuInitName") or ""
    return f"{result} ({name})" if result else "0"


def timed(condition, what, deadline=PATIENCE):
    """Milliseconds until it holds, in words."""
    begun = time.monotonic()
    try:
        wait_until(condition, what, deadline)
    except AssertionError:
        return f"not within {deadline:.0f} s"
    return f"{(time.monotonic() - begun) * 1000:.1f} ms"


def one(node, line):
    """A command's whole answer as it is printed, or that there is none."""
    answer = node.commands(line, deadline=PATIENCE)
    return "no answer" if answer is None else "\n".join(answer)
