#include "values.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

namespace mps::sim {
namespace {

constexpr std::uint64_t k_megabyte = 1024ULL * 1024ULL;
constexpr std::uint64_t k_gigabyte = 1024ULL * k_megabyte;

}  // namespace

std::vector<std::string> words(std::string_view line) {
  std::istringstream stream{std::string(line)};
  std::vector<std::string> result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

std::optional<double> read_percentage(const std::string& word) {
  const double value = std::strtod(word.c_str(), nullptr);
  if (!(value > 0.0) || value > 100.0) return std::nullopt;
  return value;
}

std::string print_percentage(double percentage) {
  std::array<char, 400> text{};
  const int size = std::snprintf(text.data(), text.size(), "%.1f", percentage);
  return {text.data(), static_cast<std::size_t>(std::max(size, 0))};
}

std::uint64_t read_pinned_limit(const std::string& word) {
  char* rest = nullptr;
  const auto number = static_cast<std::uint64_t>(std::strtoll(word.c_str(), &rest, 10));
  if (rest == word.c_str()) return 0;
  const bool is_gigabytes = std::toupper(static_cast<unsigned char>(*rest)) == 'G';
  return number * (is_gigabytes ? k_gigabyte : k_megabyte);
}

std::string print_pinned_limit(std::uint64_t bytes) {
  if (bytes >= k_gigabyte) return std::to_string(bytes / k_gigabyte) + "G";
  return std::to_string(bytes / k_megabyte) + "M";
}

PinnedLimits read_limit_list(const std::string& text, PinnedLimits limits) {
  std::istringstream entries(text);
  for (std::string entry; std::getline(entries, entry, ',');) {
    const auto equals = entry.find('=');
    if (equals == std::string::npos) continue;
    char* rest = nullptr;
    const unsigned long device = std::strtoul(entry.c_str(), &rest, 10);
    const std::uint64_t bytes = read_pinned_limit(entry.substr(equals + 1));
    const bool is_ordinal = rest != entry.c_str() && *rest == '=' && device < limits.size();
    if (is_ordinal && bytes != 0) limits[device] = bytes;
  }
  return limits;
}

double lower_percentage(double server, const std::string& environment) {
  return std::min(server, read_percentage(environment).value_or(server));
}

PinnedLimits lower_limits(const PinnedLimits& server, const PinnedLimits& client) {
  PinnedLimits result = server;
  for (std::size_t device = 0; device < result.size(); ++device) {
    if (client[device] == 0) continue;
    if (result[device] == 0 || client[device] < result[device]) result[device] = client[device];
  }
  return result;
}

unsigned multiprocessors(unsigned all, double percentage) {
  const auto part = static_cast<unsigned>(std::floor(all * percentage / 100.0));
  return std::max(2U, part - part % 2);
}

}  // namespace mps::sim
