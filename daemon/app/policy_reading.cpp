#include "app/policy_reading.h"

#include <algorithm>
#include <exception>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "app/policy_directory.h"
#include "base/text.h"

namespace mps::app {

using TimePoint = std::chrono::steady_clock::time_point;

namespace {

constexpr std::size_t k_errors_of_file = 20;  // as events; all of them are in `policy list`

const policy::File* find_file(const policy::Generation& generation, const std::string& name) {
  const auto found = std::lower_bound(
      generation.files.begin(), generation.files.end(), name,
      [](const policy::File& file, const std::string& wanted) { return file.name < wanted; });
  return found != generation.files.end() && found->name == name ? &*found : nullptr;
}

std::string count(std::size_t number, const std::string& what) {
  return std::to_string(number) + " " + what + (number == 1 ? "" : "s");
}

void news_of_file(const policy::File& file, const policy::File* earlier,
                  std::vector<PolicyNews>& news) {
  const std::set<std::string> known(earlier ? earlier->errors.begin() : file.errors.end(),
                                    earlier ? earlier->errors.end() : file.errors.end());
  std::size_t said = 0;
  std::size_t left_out = 0;
  const std::string what = file.state == policy::File::State::last_good
                               ? "; what the file said last stays in force"
                               : "; nobody gets in by it";
  for (const auto& error : file.errors) {
    if (known.contains(error)) continue;
    if (said++ < k_errors_of_file) {
      news.push_back({"policy_error", error + what});
    } else {
      ++left_out;
    }
  }
  if (left_out > 0) {
    news.push_back({"policy_error",
                    printable(file.name, 255) + ": and " + count(left_out, "more error") + what});
  }
  if (earlier != nullptr && !earlier->errors.empty() && file.errors.empty()) {
    news.push_back({"policy_mended", printable(file.name, 255) + " is good again"});
  }
}

// ---- files that are missing ----

// Those of `before` that are missing, and not for good yet.
std::vector<const policy::File*> missing_files(const ReadingOrder& order,
                                               const std::vector<policy::SourceFile>& files,
                                               TimePoint at) {
  std::vector<const policy::File*> missing;
  for (const auto& file : order.before->files) {
    if (!file.accepted) continue;
    const auto there = std::lower_bound(files.begin(), files.end(), file.name,
                                        [](const policy::SourceFile& source,
                                           const std::string& name) { return source.name < name; });
    if (there != files.end() && there->name == file.name) continue;
    const auto since = order.gone->find(file.name);
    if (since != order.gone->end() && at - since->second >= k_gone_for_good) continue;
    missing.push_back(&file);
  }
  return missing;
}

// Whether a file that is there speaks for a namespace of one that is missing.
bool takes_the_place(const policy::Generation& generation,
                     const std::vector<const policy::File*>& missing) {
  std::set<std::string> subjects;
  std::set<std::string> names;
  for (const auto* file : missing) {
    names.insert(file->name);
    for (const auto& policy : file->accepted->policies) subjects.insert(policy.subject);
  }
  return std::any_of(
      generation.files.begin(), generation.files.end(), [&](const policy::File& file) {
        return !names.contains(file.name) &&
               std::any_of(file.claims.begin(), file.claims.end(),
                           [&](const auto& claim) { return subjects.contains(claim.subject); });
      });
}

// They are shown as they were, a bad one with its errors and what it lets nobody in by.
std::shared_ptr<const policy::Generation> keep_as_they_were(
    const policy::Generation& fresh, const policy::Generation& before,
    const std::vector<const policy::File*>& missing) {
  auto kept = std::make_shared<policy::Generation>(fresh);
  for (const auto* file : missing) {
    const auto place = std::find_if(
        kept->files.begin(), kept->files.end(),
        [file](const policy::File& candidate) { return candidate.name == file->name; });
    *place = *file;
    for (const auto& [subject, refused] : before.refused) {
      if (refused.file != file->name || kept->policies.contains(subject)) continue;
      kept->refused.try_emplace(subject, refused);
    }
  }
  return kept;
}

PolicyReading unreadable(const ReadingOrder& order, std::string error) {
  return {.generation = order.before, .error = std::move(error), .kept = {}};
}

}  // namespace

PolicyReading next_reading(const ReadingOrder& order, std::vector<policy::SourceFile> files,
                           bool one_version, TimePoint at) {
  std::vector<const policy::File*> missing;
  if (order.gone && !one_version) missing = missing_files(order, files, at);
  for (const auto* file : missing) files.push_back({file->name, file->accepted->text, ""});
  auto generation = policy::next_generation(*order.before, files, order.devices);
  if (missing.empty()) return {.generation = std::move(generation), .error = "", .kept = {}};
  PolicyReading reading;
  for (const auto* file : missing) reading.kept.push_back(file->name);
  reading.undecided = takes_the_place(*generation, missing);
  reading.generation =
      reading.undecided ? order.before : keep_as_they_were(*generation, *order.before, missing);
  return reading;
}

PolicyReading read_policies(const ReadingOrder& order) {
  try {
    auto listing = list_policy_directory(order.directory);
    if (!listing) return unreadable(order, listing.error().message);
    return next_reading(order, std::move(listing->files), listing->one_version,
                        std::chrono::steady_clock::now());
  } catch (const std::exception& failure) {
    // No memory, above all: what was read is let go, and what is in force stays.
    return unreadable(order, "cannot read the policy directory " + order.directory.string() + ": " +
                                 failure.what());
  }
}

// ---- what is said ----

std::vector<PolicyNews> policy_news(const PolicyReading& before, const PolicyReading& now,
                                    const std::filesystem::path& directory) {
  std::vector<PolicyNews> news;
  if (!now.error.empty() && now.error != before.error) {
    const auto kept = now.generation->policies.empty()
                          ? std::string("; there are no policies")
                          : "; the policies of generation " +
                                std::to_string(now.generation->number) + " stay in force";
    news.push_back({"policies_unreadable", now.error + kept});
  }
  if (now.error.empty() && !before.error.empty()) {
    news.push_back({"policies_readable", directory.string() + " can be read again"});
  }
  for (const auto& file : now.generation->files) {
    news_of_file(file, find_file(*before.generation, file.name), news);
  }
  if (now.generation->number != before.generation->number) {
    news.push_back({"policies_changed",
                    "generation " + std::to_string(now.generation->number) + " (" +
                        now.generation->hash +
                        ") is in force: " + std::to_string(now.generation->policies.size()) +
                        (now.generation->policies.size() == 1 ? " policy" : " policies") + " in " +
                        count(now.generation->files.size(), "file")});
  }
  return news;
}

// ---- over a restart ----

Result<std::string> to_store(const policy::Generation& generation) {
  auto files = nlohmann::json::array();
  for (const auto& file : generation.files) {
    if (!file.accepted) continue;
    files.push_back({{"name", file.name}, {"text", file.accepted->text}});
  }
  const nlohmann::json store{{"version", 1}, {"generation", generation.number}, {"files", files}};
  auto text = store.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (text.size() <= k_store_limit) return text;
  return Error{"what the policy files said last is more than " + std::to_string(k_store_limit) +
               " bytes; mend the bad ones"};
}

Result<std::shared_ptr<const policy::Generation>> from_store(const std::string& text) {
  const auto store = nlohmann::json::parse(text, nullptr, false);
  std::vector<policy::SourceFile> files;
  std::uint64_t number = 0;
  try {
    if (store.at("version") != 1) return Error{"is of another version of mps-supervisor"};
    number = store.at("generation").get<std::uint64_t>();
    for (const auto& file : store.at("files")) {
      files.push_back({file.at("name").get<std::string>(), file.at("text").get<std::string>(), ""});
    }
  } catch (const nlohmann::json::exception&) {
    return Error{"is damaged"};
  }
  // They were checked against the devices of then.
  auto generation = std::make_shared<policy::Generation>(*policy::next_generation({}, files, {}));
  generation->number = number;
  return std::shared_ptr<const policy::Generation>(std::move(generation));
}

}  // namespace mps::app
