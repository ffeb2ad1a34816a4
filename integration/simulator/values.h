// The real programs' way with numbers, bad habits included. Pure.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wire.h"

namespace mps::sim {

using PinnedLimits = std::array<std::uint64_t, k_limited_devices>;  // bytes, 0 means no limit

// Blanks separate; the newline that ends a command is one of them.
std::vector<std::string> words(std::string_view line);

// As strtod reads it ("25%" is 25, "1e1" is 10); nullopt when not above 0 and at most 100.
std::optional<double> read_percentage(const std::string& word);
std::string print_percentage(double percentage);  // "33.4"

// As "%lld%c" reads it: "12345" and "2X" are megabytes, "1.5G" is 1 MB, "1GB" is 1 GB; bytes.
std::uint64_t read_pinned_limit(const std::string& word);
std::string print_pinned_limit(std::uint64_t bytes);  // "1G" also for 1536 MB

// "0=1G,1=512M" over what is there; entries that cannot be read change nothing.
PinnedLimits read_limit_list(const std::string& text, PinnedLimits limits);

// What a client gets: its own limits only ever lower the server's.
double lower_percentage(double server, const std::string& environment);
PinnedLimits lower_limits(const PinnedLimits& server, const PinnedLimits& client);
unsigned multiprocessors(unsigned all, double percentage);

}  // namespace mps::sim
