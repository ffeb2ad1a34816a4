#include "share/refusal.h"

#include <doctest/doctest.h>

using namespace mps::share;
using namespace std::chrono_literals;

TEST_CASE("codes have the names of the contract") {
  CHECK(std::string(to_string(Code::not_ready)) == "not_ready");
  CHECK(std::string(to_string(Code::share_deleted)) == "share_deleted");
  CHECK(std::string(to_string(Code::quota_memory)) == "quota_memory");
  CHECK(std::string(to_string(Code::device_threads)) == "device_threads");
  CHECK(std::string(to_string(Code::unknown_opening)) == "unknown_opening");
  CHECK(std::string(to_string(Code::timeout)) == "timeout");
  CHECK(std::string(to_string(Code::too_many_waiting)) == "too_many_waiting");
}

TEST_CASE("what others find out is said in a sentence") {
  const struct {
    Refusal refusal;
    Code code;
    const char* sentence;
  } cases[] = {
      {not_ready("gpu0.shared", "starting"), Code::not_ready,
       "gpu0.shared is not ready: it is starting"},
      {draining("gpu0.shared"), Code::draining, "gpu0.shared takes no new clients: it is draining"},
      {failed("gpu0.shared", "5 starts within 2m"), Code::failed,
       "gpu0.shared has failed: 5 starts within 2m"},
      {instance_gone("gpu0.shared"), Code::share_deleted, "gpu0.shared is there no longer"},
      {share_deleted("s12"), Code::share_deleted, "share s12 was deleted"},
      {no_policy("no policy is for namespace \"x\", nor for \"*\""), Code::no_policy,
       "no policy is for namespace \"x\", nor for \"*\""},
      {unidentified("its cgroup is in no record"), Code::unidentified,
       "nobody can tell whose process this is: its cgroup is in no record"},
      {wrong_pod("s12", "team-a", "team-b"), Code::wrong_pod,
       "share s12 is for team-a, and this process is of team-b"},
      {wrong_domain("gpu0.ns-team-a", "team-a", "team-b"), Code::wrong_domain,
       "gpu0.ns-team-a is for team-a alone, and this process is of team-b"},
      {device_out("gpu0.shared", "GPU-1 is out of service since noon until it is reset: Xid 46"),
       Code::device_out,
       "gpu0.shared takes no new clients: GPU-1 is out of service since noon until it is reset: "
       "Xid 46"},
      {quarantined("pod web-0 of team-a", 3, 840s), Code::quarantined,
       "pod web-0 of team-a is kept out for another 14m, after 3 faults"},
      {quarantined_by_hand("team-a", "until it is mended", 90500ms), Code::quarantined,
       "team-a is kept out for another 90s by an operator: until it is mended"},
      {quarantined("unit:x.service", 1, 90500ms), Code::quarantined,
       "unit:x.service is kept out for another 90s, after 1 fault"},
      {unknown_opening(), Code::unknown_opening,
       "this is not how a CUDA program of this node's driver begins"},
      {timed_out("finding out whose process this is", 2s), Code::timeout,
       "finding out whose process this is took longer than 2s"},
      {too_many_waiting("team-a", 512, 512), Code::too_many_waiting,
       "team-a has 512 of 512 requests waiting"},
      {too_many_endings("gpu0.shared", "", 4), Code::too_many_waiting,
       "clients of 4 containers are being terminated on gpu0.shared, no more at a time"},
      {too_many_endings("gpu0.shared", "team-a", 2), Code::too_many_waiting,
       "clients of 2 containers of team-a are being terminated on gpu0.shared, no more at a time"},
      {too_many_connections("gpu0.shared", 4242, 256, 256), Code::device_clients,
       "process 4242 has 256 of 256 connections to gpu0.shared"},
  };
  for (const auto& [refusal, code, sentence] : cases) {
    CHECK(refusal.code == code);
    CHECK(refusal.sentence == sentence);
  }
}

TEST_CASE("how long it has waited") {
  const auto waited = [](std::chrono::milliseconds time) {
    return after_waiting(draining("i"), time).sentence;
  };
  CHECK(waited(60s) == "i takes no new clients: it is draining; waited 1m");
  CHECK(waited(1999ms) == "i takes no new clients: it is draining; waited 1s");
  CHECK(waited(250ms) == "i takes no new clients: it is draining; waited 250ms");
  CHECK(waited(-1ms) == "i takes no new clients: it is draining; waited 0s");
}

TEST_CASE("names from outside are made printable") {
  CHECK(share_deleted("a\nb").sentence == "share a\\x0ab was deleted");
}
