#include "control/verdict.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace mps::control {
namespace {

using namespace std::chrono_literals;

const Peer k_shell{4711, "nvidia-cuda-mps", true};
const Peer k_python{4712, "python3", false};
const Peer k_unseen{0, "", false};
const std::string k_cannot_send = "Cannot send command to MPS control daemon process\n";

Evidence ended(int status, std::string output) {
  Evidence evidence;
  evidence.output = std::move(output);
  evidence.exit_code = status;
  evidence.ending = "exited with status " + std::to_string(status);
  evidence.daemon = DaemonState::running;
  evidence.timeout = 3s;
  return evidence;
}

Evidence hung() {
  Evidence evidence;
  evidence.timed_out = true;
  evidence.ending = "was killed by signal 9 (SIGKILL)";
  evidence.daemon = DaemonState::running;
  evidence.timeout = 3s;
  return evidence;
}

Evidence with(Evidence evidence, std::vector<Peer> peers) {
  evidence.peers = std::move(peers);
  return evidence;
}

Evidence with(Evidence evidence, DaemonState state) {
  evidence.daemon = state;
  return evidence;
}

Evidence unlisted(Evidence evidence) {
  evidence.peers_known = false;
  return evidence;
}

Evidence flooded() {
  auto evidence = hung();
  evidence.timed_out = false;
  evidence.flooded = true;
  return evidence;
}

Evidence not_started() {
  Evidence evidence;
  evidence.start_error = "exec /x: No such file or directory";
  return evidence;
}

Evidence killed() {
  auto evidence = ended(0, "");
  evidence.exit_code.reset();
  evidence.ending = "was killed by signal 11 (SIGSEGV)";
  return evidence;
}

Evidence answered(Evidence evidence) {
  evidence.answers = std::vector<Answer>{Reply{{"100.0"}}};
  return evidence;
}

struct Row {
  const char* what;
  Evidence evidence;
  Outcome outcome;
};

TEST_CASE("what came of a batch") {
  const Outcome yes = Answered{{Reply{{"100.0"}}}};
  const std::vector<Row> rows{
      {"answered", answered(ended(0, "x")), yes},
      {"answered, whatever the status", answered(ended(1, "x")), yes},
      {"answered, but did not end", answered(hung()), yes},
      {"answered beside strangers", answered(with(ended(0, "x"), {k_python})), yes},
      {"not started", not_started(), Absent{"exec /x: No such file or directory", true}},
      {"no daemon", ended(1, "Cannot find MPS control daemon process\n"),
       Absent{"Cannot find MPS control daemon process"}},
      {"no daemon, said late",
       with(ended(1, "Cannot find MPS control daemon process\n"), DaemonState::unknown),
       Absent{"Cannot find MPS control daemon process"}},
      {"died meanwhile", with(ended(1, k_cannot_send), DaemonState::gone),
       Absent{"the control daemon has ended"}},
      {"quit was carried out", with(ended(0, ""), DaemonState::gone),
       Absent{"the control daemon has ended"}},
      {"died while it hung", with(hung(), DaemonState::gone),
       Absent{"the control daemon has ended"}},

      {"hung, and who is connected is not known", unlisted(hung()), Blocked{}},
      {"hung, and not all who are connected are known", unlisted(with(hung(), {k_python})),
       Blocked{}},
      {"hung, stopped all the same", unlisted(with(hung(), DaemonState::stopped)), Stopped{}},
      {"turned away by one of those not known", unlisted(with(ended(0, ""), {k_shell})), Busy{}},
      {"cut off by one of those not known", unlisted(ended(0, "Unknown command \"end-of-1\"\n")),
       Busy{}},
      {"turned away", with(ended(1, k_cannot_send), {k_shell}), Busy{4711, "nvidia-cuda-mps"}},
      {"turned away in silence", with(ended(0, ""), {k_shell}), Busy{4711, "nvidia-cuda-mps"}},
      {"turned away in silence, with status 1", with(ended(1, ""), {k_shell}),
       Busy{4711, "nvidia-cuda-mps"}},
      {"turned away, the other words",
       with(ended(1, "Cannot authenticate or connect to MPS control daemon process\n"), {k_python}),
       Busy{4712, "python3"}},
      {"turned away, the holder has gone", ended(0, "\n"), Busy{}},
      {"turned away by somebody unseen", with(ended(0, ""), {k_unseen}), Busy{}},
      {"turned away, daemon unknown", with(ended(0, ""), DaemonState::unknown), Busy{}},
      {"a front-end rather than a client", with(ended(0, ""), {k_shell, k_python}),
       Busy{4711, "nvidia-cuda-mps"}},
      {"a front-end rather than an older client", with(ended(0, ""), {k_python, k_shell}),
       Busy{4711, "nvidia-cuda-mps"}},
      {"a name that is no name", with(ended(0, ""), std::vector<Peer>{{5, "\x1b[2J", false}}),
       Busy{5, "\\x1b[2J"}},
      {"the privileged one of two", with(ended(0, ""), {k_python, {8, "ctl", true}}),
       Busy{8, "ctl"}},
      {"the older of two alike",
       with(ended(0, ""), std::vector<Peer>{{8, "a", false}, {9, "b", false}}), Busy{8, "a"}},
      {"cut off by a session", with(ended(0, "Unknown command \"end-of-1\"\n"), {k_shell}),
       Busy{4711, "nvidia-cuda-mps"}},

      {"stopped", with(hung(), DaemonState::stopped), Stopped{}},
      {"stopped, with strangers", with(with(hung(), DaemonState::stopped), {k_python}), Stopped{}},
      {"behind a silent peer", with(hung(), {k_python}), Blocked{4712, "python3"}},
      {"behind the newest peer", with(hung(), {k_shell, k_python}), Blocked{4712, "python3"}},
      {"behind somebody unseen", with(hung(), {k_unseen}), Blocked{}},
      {"hung for no reason", hung(), Unanswered{"no answer within 3s"}},
      {"hung, daemon unknown", with(hung(), DaemonState::unknown),
       Unanswered{"no answer within 3s"}},

      {"rubbish", ended(0, "hello\x07\n"),
       Unanswered{"the front-end exited with status 0 and said no answer: \"hello\\x07\""}},
      {"rubbish beside a stranger", with(ended(0, "hello"), {k_python}),
       Unanswered{"the front-end exited with status 0 and said no answer: \"hello\""}},
      {"cut off", ended(0, "Unknown command \"end-of-1\"\n"),
       Unanswered{"the front-end exited with status 0 before the last answer: \"Unknown command "
                  "\"end-of-1\"\""}},
      {"another status", ended(127, "libfoo.so: not found\n"),
       Unanswered{"the front-end exited with status 127 and said no answer: \"libfoo.so: not "
                  "found\""}},
      {"another status in silence", with(ended(2, ""), {k_python}),
       Unanswered{"the front-end exited with status 2 and said nothing"}},
      {"crashed", killed(),
       Unanswered{"the front-end was killed by signal 11 (SIGSEGV) and said nothing"}},
      {"flood", flooded(), Unanswered{"the front-end printed more than is ever an answer"}},
  };
  for (const auto& row : rows) {
    CAPTURE(row.what);
    const auto outcome = verdict(row.evidence);
    CHECK(outcome.index() == row.outcome.index());
    CHECK((outcome == row.outcome));
    if (const auto* unanswered = std::get_if<Unanswered>(&outcome)) {
      CHECK(unanswered->why == std::get<Unanswered>(row.outcome).why);
    }
  }
}

}  // namespace
}  // namespace mps::control
