"""What happened, as the simulator and those who gave the orders know it, held against what the
supervisor says of it: its incidents, its quarantine, and what it did to those who had no part in it.

What is asked of every scenario and every random sequence:

  * every incident is over: it serves again, or was given up;
  * whoever is accused has faulted, and nobody faulted who was not told to;
  * where nobody is accused, who did it is among the suspects, or it is said that nobody knows;
  * who is accused is not listed as having suffered;
  * each fault is in an incident, and there are no more of them than faults;
  * whose instance nothing was done to has no incident, and its processes are the same ones;
  * nobody is kept out whom no policy asks to keep out.
"""

import datetime
import time
import typing

from harness import control_daemons, wait_until

ENDS = ("serving", "given_up", "unconfirmed")
DEATHS = {"server_died", "daemon_died"}
UNKNOWN = ("one_of", "not_a_client", "nobody")
# What an instance says to which something was done.
TROUBLE = (
    "fault",
    "control_exited",
    "server_exited",
    "server_start_failed",
    "wedged",
    "failed",
    "incident_opened",
)
ROUNDING = 0.5  # seconds between the server's word and ours for one moment, on a busy machine


class Fault(typing.NamedTuple):
    at: float
    pid: int
    instance: str


def seconds(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def read_truth(path):
    """The simulated servers' own list of the faults that happened."""
    for line in path.read_text().splitlines() if path.exists() else ():
        at, pid, directory, _kind, *unheard = line.split()
        if not unheard:  # else its server had outlived its daemon, and with it whoever listens
            yield Fault(int(at) / 1000, int(pid), directory.split("/")[-2])


class Wrong(AssertionError):
    def __init__(self, what, incident, faults):
        told = incident if isinstance(incident, list) else [incident]
        super().__init__(f"{what}; faults: {faults}; incidents: {[in_short(one) for one in told]}")


def in_short(incident):
    keys = ("id", "kind", "noticed", "closed", "end", "faults", "rounds", "attribution", "cause")
    short = {key: incident[key] for key in keys}
    for key in ("culprits", "suspects", "victims"):
        short[key] = [one["pid"] for one in incident[key]]
    return {**short, "steps": [step["name"] for step in incident["steps"]]}


class Story:
    """One instance's incidents, the oldest first, and the faults that it had."""

    def __init__(self, incidents, faults, may_miss):
        self.incidents = sorted(incidents, key=lambda one: one["noticed"])
        self.faults = sorted(faults)
        self.may_miss = may_miss

    def check(self):
        for incident in self.incidents:
            self.check_people(incident)
        of_faults = [one for one in self.incidents if self.tells_of_fault(one)]
        if len(of_faults) > len(self.faults):
            raise Wrong("more incidents than faults", of_faults, self.faults)
        since = 0.0
        for incident in of_faults:
            self.check_doers(incident, since)
            since = seconds(incident["noticed"])
        if not self.may_miss:
            self.check_nothing_missed()

    @staticmethod
    def tells_of_fault(incident):
        return incident["faults"] > 0 and incident["end"] != "unconfirmed"

    def check_people(self, incident):
        if incident["end"] not in ENDS or not incident["closed"]:
            raise Wrong("it is not over", incident, self.faults)
        accused = {(one["pid"], one["startTicks"]) for one in incident["culprits"]}
        suffered = {(one["pid"], one["startTicks"]) for one in incident["victims"]}
        if accused & suffered:
            raise Wrong("who is accused is a victim, too", incident, self.faults)
        for culprit in incident["culprits"]:
            latest = seconds(culprit["at"]) + ROUNDING
            if not any(f.pid == culprit["pid"] and f.at <= latest for f in self.faults):
                raise Wrong(f"{culprit['pid']} is accused and did nothing", incident, self.faults)
        if not set(incident["strangers"]) <= {fault.pid for fault in self.faults}:
            raise Wrong("a stranger is accused", incident, self.faults)

    def check_doers(self, incident, since):
        """`since`: when the incident before it was noticed."""
        latest = seconds(incident["closed"]) + ROUNDING
        doers = {f.pid for f in self.faults if since - ROUNDING <= f.at <= latest}
        if not doers:
            raise Wrong("an incident of a fault that did not happen", incident, self.faults)
        if incident["culprits"] or incident["culpritsLeftOut"]:
            return  # who of them did something is looked at above
        if incident["attribution"] not in UNKNOWN:
            raise Wrong("nobody is accused, and it is not said why", incident, self.faults)
        suspects = {one["pid"] for one in incident["suspects"]}
        listed = incident["suspectCount"] == len(suspects)
        if incident["attribution"] == "one_of" and listed and not doers & suspects:
            raise Wrong("who did it is not among the suspects", incident, self.faults)

    def check_nothing_missed(self):
        for fault in self.faults:
            later = (i for i in self.incidents if seconds(i["closed"]) + ROUNDING >= fault.at)
            if not any(self.may_tell_of(incident) for incident in later):
                raise Wrong(f"nobody noticed {fault}", self.incidents, self.faults)

    @staticmethod
    def may_tell_of(incident):
        """A server that dies with its word on its lips dies, and no more is known."""
        kinds = {incident["kind"], *(one["kind"] for one in incident["consequences"])}
        return incident["faults"] > 0 or bool(kinds & DEATHS)


class Truth:
    def __init__(self, stage):
        self.stage = stage
        self.path = stage.supervisor.root / "truth"
        stage.supervisor.environment["MPS_SIM_TRUTH"] = str(self.path)
        self.told = set()  # pids of who was told to fault
        self.orders = []  # these, as faults: all that is known of a GPU's
        self.touched = set()  # instances to which anything was done
        self.daemons = {}  # by instance, as they were at the start
        self.servers = {}  # likewise, when somebody was there
        # A fault may leave no trace: its words were lost, too; or it is only known to be ordered.
        self.may_miss = stage.supervisor.backend.gpu

    def prepare(self):
        """Servers of any uid write to it."""
        self.path.touch()
        self.path.chmod(0o666)

    def begin(self, names):
        self.daemons = {name: self.daemons_of(name) for name in names}

    def is_told(self, pid, name):
        self.told.add(pid)
        self.orders.append(Fault(time.time(), pid, name))

    def clients_are_there(self):
        self.servers = {name: set(self.stage.servers(name)) for name in self.daemons}

    def daemons_of(self, name):
        return control_daemons(self.stage.supervisor.pipe(name))

    def faults(self):
        gpu = self.stage.supervisor.backend.gpu
        return list(self.orders) if gpu else list(read_truth(self.path))

    def incidents(self):
        """Whole, once all of them are over."""

        def over():
            found = self.stage.get("/v1/faults?limit=256")
            return [found] if all(one["closed"] for one in found) else None

        found = wait_until(over, "all incidents are over")[0]
        return [self.stage.get(f"/v1/faults/{one['id']}") for one in found]

    def check(self, kept_out=0):
        incidents, faults = self.incidents(), self.faults()
        untold = {fault.pid for fault in faults} - self.told
        assert not untold, f"faulted without having been told to: {untold}"
        for name in {one["instance"] for one in incidents} | {fault.instance for fault in faults}:
            Story(
                [one for one in incidents if one["instance"] == name],
                [fault for fault in faults if fault.instance == name],
                self.may_miss,
            ).check()
        self.check_untouched(incidents)
        entries = self.stage.get("/v1/quarantine")
        assert len(entries) == kept_out, f"kept out are {entries}"

    def check_untouched(self, incidents):
        for name in set(self.daemons) - self.touched:
            about = [one["id"] for one in incidents if one["instance"] == name]
            assert not about, f"{name} has incidents {about}, and nothing was done to it"
            seen = self.stage.supervisor.events.about(name, TROUBLE)
            assert not seen, f"nothing was done to {name}: {seen}"
            now = self.daemons_of(name)
            assert now == self.daemons[name], f"{name}: {now}, and not {self.daemons[name]}"
            servers = self.servers.get(name, set())
            assert servers <= set(self.stage.servers(name)), f"{name} has lost {servers}"
