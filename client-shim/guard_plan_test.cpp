#include "guard_plan.h"

#include <doctest/doctest.h>
#include <signal.h>

#include <string>

using namespace mps::client;

namespace {

const char* const k_status =
    "Name:\tpython3\nPid:\t7\nSigQ:\t0/95\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n"
    "SigBlk:\t0000000000010000\nSigIgn:\t0000000001001000\nSigCgt:\t0000000100000002\nCapInh:\t0\n";

Treatment treatment(int signal, bool from_kernel = false, bool leads = false) {
  return treatment_of(signal, from_kernel, leads, read_handled(k_status));
}

}  // namespace

TEST_CASE("what a process does about signals itself") {
  const auto handled = read_handled(k_status);
  REQUIRE(handled.known);
  CHECK(handled.has(SIGINT));   // caught
  CHECK(handled.has(SIGPIPE));  // ignored
  CHECK(handled.has(SIGCHLD));  // blocked
  CHECK(handled.has(33));
  CHECK_FALSE(handled.has(SIGTERM));
  CHECK_FALSE(handled.has(0));
  CHECK_FALSE(handled.has(65));
}

TEST_CASE("of a process of which nothing is known nothing is assumed") {
  for (const char* text :
       {"", "Name:\tx\n", "\nSigBlk:\t1\nSigIgn:\t1\n", "\nSigBlk:\tx\nSigIgn:\t1\nSigCgt:\t1\n",
        "\nSigBlk:\t00000000000000001\nSigIgn:\t1\nSigCgt:\t1\n"}) {
    CAPTURE(text);
    CHECK_FALSE(read_handled(text).known);
    CHECK_FALSE(read_handled(text).has(1));
  }
}

TEST_CASE("before a signal ends the command its CUDA is ended") {
  CHECK(treatment(SIGTERM) == Treatment::hold);
  CHECK(treatment(SIGQUIT) == Treatment::hold);
  CHECK(treatment(SIGUSR1) == Treatment::hold);
  CHECK(treatment(SIGALRM, true) == Treatment::hold);
  CHECK(treatment(64) == Treatment::hold);
  CHECK(treatment_of(SIGINT, false, false, {}) == Treatment::hold);
}

TEST_CASE("a command that handles a signal has it at once") {
  CHECK(treatment(SIGINT) == Treatment::pass);
  CHECK(treatment(SIGPIPE) == Treatment::pass);
  const Handled term{true, 1ULL << (SIGTERM - 1)};
  CHECK(treatment_of(SIGTERM, false, false, term) == Treatment::pass_and_wait);
}

TEST_CASE("signals that end nobody are passed on") {
  for (const int signal : {SIGCHLD, SIGCONT, SIGURG, SIGWINCH, SIGTSTP, SIGTTIN, SIGTTOU}) {
    CAPTURE(signal);
    CHECK(treatment(signal) == Treatment::pass);
  }
}

TEST_CASE("what the terminal sends to all is not sent twice") {
  for (const int signal : {SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU, SIGWINCH, SIGHUP, SIGCONT}) {
    CAPTURE(signal);
    CHECK(treatment(signal, true) == Treatment::drop);
  }
  CHECK(treatment(SIGHUP, true, true) == Treatment::hold);
  CHECK(treatment(SIGCONT, true, true) == Treatment::pass);
}
