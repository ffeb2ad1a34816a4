#include "share/checkpoint.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "base/checked_line.h"

using mps::checked_line;
using namespace mps::share;

namespace {

Admission admission(AdmissionId id) {
  return {
      id,         "open",      "/kubepods/pod1/c1:77", "gpu0.shared", "GPU-0", "team-a",
      "/pods/c1", "pod web-0", {12.5, 1024},           "web-0",       "cuda",  "Deployment/web"};
}

Slot slot(SlotId id, AdmissionId of) {
  return {id,          of,           "gpu0.shared",      "GPU-0",      {4242, 987654321012ULL},
          4294967294U, {12.5, 1024}, "python3 train.py", 1780000000123};
}

State sample() {
  State state;
  state.counters = {8, 5, 12};
  state.shares[7] = {7,           "s7",          "gpu0.shared", "team-a",
                     {25, 12288}, 1780000000000, 1790000000000, true};
  state.admissions[4] = admission(4);
  state.slots[9] = slot(9, 4);
  state.slots[11] = slot(11, 0);
  state.slots[11].grant.below_normal = true;
  return state;
}

std::string line(const Change& change) {
  return encode(change);
}

}  // namespace

TEST_CASE("a line is a checksum and one change") {
  CHECK(line(SlotEnded{7}) == "b2fbcc0a {\"slotEnded\":7}\n");
  CHECK(line(Counters{1, 2, 3}).substr(9) ==
        "{\"next\":{\"admission\":2,\"share\":1,\"slot\":3}}\n");
}

TEST_CASE("what is written is what is read") {
  const auto state = sample();
  const auto read = replay(encode(state));
  CHECK(read.state == state);
  CHECK(read.problems.empty());
  CHECK_FALSE(read.torn);
  CHECK(read.changes.size() == 6);
  CHECK(replay("").state == State{});
}

TEST_CASE("records of earlier versions, which say less") {
  const auto read = replay(
      checked_line(R"({"admission":{"id":4,"share":"gpu0.shared/open","instance":"gpu0.shared",)"
                   R"("percentage":20.0}})") +
      checked_line(R"({"slot":{"id":9,"pid":42,"startTicks":7,"uid":0,"percentage":20.0,)"
                   R"("admission":4}})") +
      checked_line(R"({"slotEnded":9})"));
  CHECK(read.damaged_lines == 0);
  CHECK(read.problems.empty());
  CHECK(read.state.admissions.at(4).owner.empty());
  CHECK(read.state.slots.empty());
  CHECK(read.gone.empty());  // nobody knows since when
}

TEST_CASE("who had gone last is told of with when, so many at most") {
  std::string text = line(AdmissionMade{admission(4)});
  for (SlotId id = 1; id <= 300; ++id) {
    text += line(SlotMade{slot(id, 4)}) + line(SlotEnded{id, static_cast<std::int64_t>(id) + 1000});
  }
  text += line(SlotMade{slot(301, 0)}) + line(SlotEnded{301, 5000});
  const auto read = replay(text);
  CHECK(read.problems.empty());
  REQUIRE(read.gone.size() == 256);
  CHECK(read.gone.front().slot.id == 46);
  CHECK(read.gone.front().at == 1046);
  CHECK(read.gone.front().slot.command == "python3 train.py");
  CHECK(read.gone.front().admission == admission(4));
  CHECK_FALSE(read.gone.back().admission);
}

TEST_CASE("when a slot has ended is said so that earlier versions read that it has") {
  const auto begin = line(SlotMade{slot(7, 0)}) + line(SlotMade{slot(9, 0)});
  const auto time =
      checked_line(R"({"next":{"admission":0,"share":0,"slot":0,"slotEnds":{"at":8,"id":7}}})");
  const auto end = checked_line(R"({"slotEnded":7})");
  CHECK(line(SlotEnded{7, 8}) == time + end);
  const auto read = replay(begin + time + end);
  CHECK(read.problems.empty());
  CHECK(read.changes.size() == 3);
  REQUIRE(read.gone.size() == 1);
  CHECK(read.gone.front().at == 8);
  // What remains for one that does not know what the time is: counters, of which none is higher.
  const auto earlier = replay(begin + line(Counters{0, 0, 0}) + end);
  CHECK(earlier.problems.empty());
  CHECK(earlier.state == read.state);
  // Half of it, or another's: the slot goes on, or has gone nobody knows when.
  CHECK(replay(begin + time).state == replay(begin).state);
  CHECK(replay(begin + time).gone.empty());
  CHECK(replay(begin + time + checked_line(R"({"slotEnded":9})")).gone.empty());
  for (const char* ends : {"7", "{}", R"({"id":7})", R"({"id":7,"at":"x"})"}) {
    CAPTURE(ends);
    const auto damaged = replay(checked_line(R"({"next":{"admission":0,"share":0,"slot":0,)"
                                             R"("slotEnds":)" +
                                             std::string(ends) + "}}"));
    CHECK(damaged.problems == std::vector<Problem>{{1, "lacks what it should say"}});
  }
}

TEST_CASE("changes add up, and ids are not used twice") {
  std::string text;
  text += line(ShareMade{{3, "s3", "gpu0.shared"}});
  text += line(AdmissionMade{admission(1)});
  text += line(SlotMade{slot(1, 1)});
  text += line(SlotMade{slot(2, 1)});
  text += line(SlotEnded{2});
  text += line(SlotEnded{1});
  text += line(AdmissionEnded{1});
  text += line(ShareEnded{3});
  const auto read = replay(text);
  CHECK(read.problems.empty());
  CHECK(read.state == State{{4, 2, 3}, {}, {}, {}});
}

TEST_CASE("any bytes in a path come back") {
  State state;
  state.admissions[1] = admission(1);
  state.admissions[1].container = std::string("/a\xff\x01\n\"\\", 7);
  state.counters = {1, 2, 1};
  const auto text = encode(state);
  CHECK(std::count(text.begin(), text.end(), '\n') == 3);
  CHECK(replay(text).state == state);
}

TEST_CASE("half a line at the end was told to nobody") {
  const auto whole = line(AdmissionMade{admission(1)});
  const auto text = whole + line(SlotMade{slot(1, 1)});
  for (auto size = whole.size() + 1; size < text.size(); ++size) {
    const auto read = replay(std::string_view(text).substr(0, size));
    REQUIRE(read.torn);
    REQUIRE(read.good_bytes == whole.size());
    REQUIRE(read.state.slots.empty());
    REQUIRE(read.problems.empty());
    REQUIRE(read.state.counters == Counters{1, 2, 1});
  }
}

TEST_CASE("a damaged line is named, the rest counts, and ids go far ahead") {
  const auto first = line(AdmissionMade{admission(1)});
  auto second = line(SlotMade{slot(1, 1)});
  second[20] ^= 1;
  const auto read = replay(first + second + line(SlotMade{slot(2, 1)}) + line(SlotEnded{1}));
  CHECK(read.problems ==
        std::vector<Problem>{{2, "is damaged"}, {4, "slot 1 ended and was not there"}});
  CHECK(read.damaged_lines == 1);
  CHECK(read.state.slots.size() == 1);
  CHECK(read.state.counters == Counters{1 + 1048576, 2 + 1048576, 3 + 1048576});
}

TEST_CASE("any flipped bit of a line is found") {
  const auto good = line(SlotMade{slot(1, 0)});
  for (std::size_t at = 0; at + 1 < good.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      auto bad = good;
      bad[at] = static_cast<char>(static_cast<unsigned char>(bad[at]) ^ (1U << bit));
      REQUIRE(replay(bad).damaged_lines != 0);
    }
  }
}

TEST_CASE("lines that no supervisor of this version writes") {
  const struct {
    const char* json;
    const char* reason;
  } cases[] = {
      {"[]", "is not a change"},
      {"{}", "is not a change"},
      {"{\"a\":1,\"b\":2}", "is not a change"},
      {"{\"slotEnded\":", "is not a change"},
      {"{\"slotEnded\":\"7\"}", "lacks what it should say"},
      {"{\"slotEnded\":1.5}", "lacks what it should say"},
      {"{\"slot\":7}", "lacks what it should say"},
      {"{\"slot\":{\"id\":1}}", "lacks what it should say"},
      {"{\"hologram\":{}}", "is a change of an unknown kind"},
  };
  for (const auto& row : cases) {
    CAPTURE(row.json);
    const auto& [json, reason] = row;
    CHECK(replay(checked_line(json)).problems == std::vector<Problem>{{1, reason}});
  }
  CHECK(replay(checked_line(std::string(70000, ' '))).problems ==
        std::vector<Problem>{{1, "is too long"}});
  CHECK(replay("\n").problems == std::vector<Problem>{{1, "is damaged"}});
  CHECK(replay(line(SlotMade{slot(1, 3)})).problems ==
        std::vector<Problem>{{1, "slot 1 is of admission 3, which is not there"}});
}

TEST_CASE("problems are bounded, and still counted") {
  const auto read = replay(std::string(1000, '\n'));
  CHECK(read.problems.size() == 100);
  CHECK(read.damaged_lines == 1000);
}
