"""What the suites about policies share: limits as they are shown and as the daemon has them."""

import json

from harness import Suite, control_daemons, wait_until

SHARED = "gpu0.shared"
TEAM_A = "gpu0.ns-team-a"
SETTINGS = (50, "10Gi")  # what holds where there is no policy
RESET = "; running clients keep what they have"
KEPT = "; what the file said last stays in force"
QUICK = {
    "backoff": {
        "initial": "10ms",
        "max": "50ms",
        "budget": {"failures": 1000, "within": "10m"},
    },
    "probe": {"interval": "200ms", "timeout": "500ms", "failures": 3},
}


def mebibytes(memory):
    if memory is None:
        return None
    return int(memory[:-2]) * {"Mi": 1, "Gi": 1024}[memory[-2:]]


def as_daemon_prints(memory):
    """The daemon's read-back of a memory limit: 2Gi is 2G, and none is nothing."""
    return f"{memory[:-1]}\n" if memory else ""


class PolicySuite(Suite):
    def mark(self, supervisor):
        return supervisor.get("/v1/status")["lastEventId"]

    def check_limits(self, supervisor, percentage, memory, name=SHARED):
        """As shown, confirmed; and then as the daemon itself says, asked by a front-end."""

        def shown():
            limits = supervisor.instance(name)["limits"]
            return limits["confirmed"] and (
                limits["activeThreadPercentage"],
                limits["pinnedDeviceMemoryMiB"],
            ) == (percentage, mebibytes(memory))

        wait_until(shown, f"{name} has {percentage} %, {memory}")
        output = supervisor.answered(
            "get_default_active_thread_percentage",
            "get_default_device_pinned_mem_limit 0",
            pipe=supervisor.pipe(name),
        )
        self.assertEqual(output, f"{percentage:.1f}\n{as_daemon_prints(memory)}")

    def wait_gone(self, supervisor, name):
        wait_until(lambda: name not in supervisor.instance_ids(), f"{name} is gone")
        self.assertEqual(control_daemons(supervisor.pipe(name)), [])

    def policy_status(self, supervisor):
        return supervisor.get("/v1/status")["policies"]

    def wait_stored(self, supervisor):
        """What is in force is on the disk as well, soon after: the next supervisor knows it."""

        def stored():
            try:
                text = (supervisor.state / "policies.json").read_text()
            except FileNotFoundError:
                return False
            return json.loads(text)["generation"] == self.policy_status(supervisor)["generation"]

        wait_until(stored, "policies.json is of this generation")

    def wait_generation(self, supervisor, number):
        wait_until(
            lambda: self.policy_status(supervisor)["generation"] == number, f"generation {number}"
        )
