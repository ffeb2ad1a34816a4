// Without memory: operator new of this test program fails when it is told to.
#include <doctest/doctest.h>

#include <cstdlib>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "gate/gate_kit.h"

using namespace mps;
using namespace mps::gate;
using namespace mps::gate::test;

namespace {

thread_local long allocations_left = -1;  // below 0: as many as there is room for

thread_local long failures = 0;

void* allocate(std::size_t size) {
  if (allocations_left == 0) ++failures;
  if (allocations_left == 0) return nullptr;
  if (allocations_left > 0) --allocations_left;
  return std::malloc(size == 0 ? 1 : size);  // NOLINT(cppcoreguidelines-no-malloc)
}

// The gate's turns with no more than so many allocations. How many failed.
long turn_without_memory(Kit& kit, long allocations) {
  failures = 0;
  allocations_left = allocations;
  for (int i = 0; i < 4; ++i) (void)kit.gate->turn(0ms);
  allocations_left = -1;
  return failures;
}

// So that it is heard when there is no memory.
void tell_gate(Kit& kit, const Message& message, std::vector<int> beside = {}) {
  Buffer buffer;
  const auto bytes = encode(message, buffer);
  REQUIRE(tell(kit.supervisor(), {bytes.data(), bytes.size()}, std::move(beside)));
}

constexpr long k_most = 12;  // enough for each of these steps

}  // namespace

void* operator new(std::size_t size) {
  void* const made = allocate(size);
  if (made == nullptr) throw std::bad_alloc();
  return made;
}
void* operator new[](std::size_t size) {
  return ::operator new(size);
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void* operator new[](std::size_t size, const std::nothrow_t&) noexcept {
  return allocate(size);
}
void operator delete(void* made) noexcept {
  std::free(made);
}
void operator delete[](void* made) noexcept {
  std::free(made);
}
void operator delete(void* made, std::size_t) noexcept {
  std::free(made);
}
void operator delete[](void* made, std::size_t) noexcept {
  std::free(made);
}
void operator delete(void* made, const std::nothrow_t&) noexcept {
  std::free(made);
}
void operator delete[](void* made, const std::nothrow_t&) noexcept {
  std::free(made);
}

TEST_CASE("who comes while there is no memory is held, and let in when there is some again") {
  for (long allocations = 0; allocations <= k_most; ++allocations) {
    CAPTURE(allocations);
    Kit kit;
    kit.system.cgroup = "0::/" + std::string(100, 'c') + "\n";  // no short string
    kit.start();
    const auto peer = connected(kit.folder + "/s");
    const auto failed = turn_without_memory(kit, allocations);
    if (allocations == 0) CHECK(failed > 0);
    if (allocations == k_most) CHECK(failed == 0);
    REQUIRE(is_open(peer));
    auto greeting = heard(peer);
    if (greeting != k_greeting) {
      CHECK(greeting == "(none)");
      kit.advance(100ms);
      greeting = heard(peer);
    }
    CHECK(greeting == k_greeting);
    for (const auto& text : k_opening) tell(peer, text);
    CHECK(turn_without_memory(kit, allocations) == 0);  // who is in a slot needs no more
    REQUIRE(is_open(peer));
    kit.advance(100ms);
    kit.let_through(peer);
    CHECK(kit.is_idle());
  }
}

TEST_CASE("a gate without memory keeps its supervisor, or is found by the next one") {
  for (long allocations = 0; allocations <= k_most; ++allocations) {
    CAPTURE(allocations);
    Kit kit;
    kit.start();
    const auto waiting = kit.open_up();
    kit.listeners["late"] = listening(kit.folder + "/late");
    tell_gate(kit, {.kind = Kind::listen, .share = "late"}, {kit.listeners["late"].get()});
    const auto setup = pack({k_greeting, k_opening[0], k_opening[1]});
    tell_gate(kit, {.kind = Kind::setup, .bytes = setup});
    const auto failed = turn_without_memory(kit, allocations);
    if (allocations == 0) CHECK(failed > 0);
    if (allocations == k_most) CHECK(failed == 0);
    REQUIRE(is_open(waiting));
    kit.advance(100ms);
    CHECK(is_open(waiting));
    if (!kit.is_supervised()) {
      kit.words.clear();
      kit.supervise();
      kit.set_up();
      kit.serve();
    }
    kit.let_through(waiting);
    CHECK(kit.is_idle());
  }
}
