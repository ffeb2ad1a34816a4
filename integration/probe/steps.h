// What the probe does once it is a client: steps, each reported as a line of JSON
// {"step": ..., "call": the last function called, "result": its result, "name": the result's name}.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cuda.h"

namespace mps::probe {

struct Step {
  // Also how it is written, with its words: "launch 5", "fault trap", "loop 0 5".
  enum class Kind {
    k_launch,       // launch MS: a kernel of that length, awaited
    k_start,        // start MS: the same, not awaited
    k_await,        // await
    k_fault,        // fault bad-address|trap
    k_hang,         // hang: one line when it runs, another when it has ended
    k_exit_badly,   // exit-badly: with a kernel running
    k_loop,         // loop COUNT [MS]: says when the result changes; 0: until there is input
    k_until_error,  // until-error [MS]: the same, to the first error
    k_allocate,     // alloc MIB
    k_memory        // memory
  };
  Kind kind = Kind::k_memory;
  std::int64_t number = 0;
  std::int64_t milliseconds = 1;
  bool traps = false;
};

std::optional<Step> parse_step(std::string_view line);

class Prober {
 public:
  // `input_ends_loops`: a loop ends when there is something to read on stdin.
  Prober(const Cuda& cuda, bool input_ends_loops)
      : cuda_(cuda), input_ends_loops_(input_ends_loops) {}
  void run(const Step& step);

 private:
  struct Outcome {
    const char* call = "";
    int result = 0;
  };
  Outcome launch(const char* kernel, std::chrono::nanoseconds how_long);
  Outcome synchronize();
  Outcome launch_and_wait(const char* kernel, std::chrono::nanoseconds how_long);
  void loop(const Step& step);
  void allocate(const Step& step);
  void tell_memory();
  void report(const char* step, const Outcome& outcome) const;

  const Cuda& cuda_;
  bool input_ends_loops_;
  void* module_ = nullptr;
};

}  // namespace mps::probe
