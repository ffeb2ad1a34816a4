// The front-end's output. The first byte is the number of commands in the batch, the rest is what
// the front-end printed.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "control/commands.h"
#include "targets.h"

namespace mps::fuzz {

namespace {

using namespace mps::control;

bool is_printable(std::string_view text) {
  return std::none_of(text.begin(), text.end(), [](char letter) {
    const auto byte = static_cast<unsigned char>(letter);
    return byte < 0x20 || byte == 0x7f;
  });
}

void check_readings(const Answer& answer) {
  if (const auto value = read_percentage(answer)) {
    require(*value > 0.0 && *value <= 100.0, "a percentage is above 0 and at most 100");
  }
  if (const auto limit = read_pinned_limit(answer)) {
    require(!limit->whole_gibibytes || limit->mebibytes.value_or(1) % 1024 == 0,
            "what is printed in G is whole gibibytes");
    require(prints_as(limit->mebibytes, *limit) || limit->mebibytes == 0U,
            "a limit prints as itself");
  }
  if (const auto priority = read_priority(answer)) require(*priority <= 1, "a priority is 0 or 1");
  if (const auto pids = read_pids(answer)) {
    require(std::all_of(pids->begin(), pids->end(), [](pid_t pid) { return pid >= 0; }),
            "no pid is negative");
  }
}

}  // namespace

void answers(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return;
  const std::vector<Command> batch(data[0] % 8, get_server_list());
  const std::string output(data + 1, data + size);
  const auto parsed = parse_answers(batch, output);
  if (!parsed) return;
  require(parsed->size() == batch.size(), "exactly one answer a command");
  for (const auto& answer : *parsed) {
    check_readings(answer);
    if (const auto* refusal = std::get_if<Refusal>(&answer)) {
      require(!refusal->words.empty() && is_printable(refusal->words),
              "a refusal has printable words");
    }
  }
  static_cast<void>(capabilities(*parsed));
  // One marker more, and it is no answer to this batch.
  const auto more =
      output + "\nUnknown command \"end-of-" + std::to_string(batch.size() + 1) + "\"\n";
  require(!parse_answers(batch, more), "a marker too many is noticed");
}

}  // namespace mps::fuzz
