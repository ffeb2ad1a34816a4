#include "app/policy_keeper.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "app/policy_directory.h"
#include "base/file.h"
#include "base/text.h"

namespace mps::app {

namespace asio = boost::asio;

namespace {

constexpr std::size_t k_store_limit = std::size_t{64} * 1024 * 1024;
constexpr std::size_t k_errors_of_file = 20;  // as events; all of them are in `policy list`
// An editor may move the old file away before it writes the new one.
constexpr std::chrono::milliseconds k_gone_for_good{100};

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

}  // namespace

PolicyReading read_policies(const std::filesystem::path& directory,
                            const std::shared_ptr<const policy::Generation>& before,
                            const std::vector<policy::DeviceFacts>& devices) {
  const auto files = read_policy_directory(directory);
  if (!files) return {before, files.error().message};
  return {policy::next_generation(*before, *files, devices), ""};
}

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

std::string to_store(const policy::Generation& generation) {
  auto files = nlohmann::json::array();
  for (const auto& file : generation.files) {
    if (!file.accepted) continue;
    files.push_back({{"name", file.name}, {"text", file.accepted->text}});
  }
  const nlohmann::json store{{"version", 1}, {"generation", generation.number}, {"files", files}};
  return store.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
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

// ---- the keeper ----

PolicyKeeper::PolicyKeeper(const asio::any_io_executor& executor, Settings settings, Say say)
    : executor_(executor),
      settings_(std::move(settings)),
      say_(std::move(say)),
      worker_(std::make_unique<asio::thread_pool>(1)),
      first_(executor),
      confirm_(executor),
      reading_{std::make_shared<policy::Generation>(), ""},
      changed_at_(std::chrono::system_clock::now()) {}

PolicyKeeper::~PolicyKeeper() {
  close();
}

void PolicyKeeper::close() {
  if (std::exchange(closed_, true)) return;
  watch_.reset();
  changed_ = nullptr;
  first_.cancel();
  confirm_.cancel();
  worker_->stop();
  worker_->join();
}

void PolicyKeeper::load_store() {
  const auto text = read_file(settings_.store, k_store_limit);
  const auto trouble = [this](const std::string& why) {
    say_("policies_forgotten",
         settings_.store.string() + ": " + why + "; what bad policy files said last is not known");
  };
  if (!text) return trouble(text.error().message);
  if (text->empty()) return;
  auto stored = from_store(*text);
  if (!stored) return trouble(stored.error().message);
  reading_.generation = *stored;
}

asio::awaitable<void> PolicyKeeper::start(std::vector<policy::DeviceFacts> devices,
                                          std::chrono::milliseconds limit) {
  const auto self = shared_from_this();
  devices_ = std::move(devices);
  load_store();
  const std::weak_ptr<PolicyKeeper> weak = self;
  watch_ = process::DirectoryWatch::create(executor_, settings_.directory, [weak] {
    if (const auto keeper = weak.lock()) keeper->read_again();
  });
  first_.expires_after(limit);
  read_again();
  co_await first_.async_wait(asio::as_tuple(asio::use_awaitable));
  if (read_once_ || closed_) co_return;
  say_("policies_unreadable", "reading " + settings_.directory.string() + " takes longer than " +
                                  format_duration(limit) +
                                  "; what was known before is in force until it is read");
}

void PolicyKeeper::set_devices(std::vector<policy::DeviceFacts> devices) {
  if (devices == devices_) return;
  devices_ = std::move(devices);
  if (watch_) read_again();
}

// One reading at a time; what changes meanwhile is read after it.
void PolicyKeeper::read_again() {
  if (closed_) return;
  if (std::exchange(reading_now_, true)) {
    again_ = true;
    return;
  }
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  asio::post(*worker_, [weak, executor = executor_, settings = settings_, devices = devices_,
                        before = reading_.generation] {
    auto done = std::make_shared<Done>();
    done->reading = read_policies(settings.directory, before, devices);
    const auto& now = *done->reading.generation;
    if (now.number != before->number) {
      if (auto stored = replace_file(settings.store, to_store(now)); !stored) {
        done->store_trouble = stored.error().message;
      }
    }
    asio::post(executor, [weak, done] {
      if (const auto keeper = weak.lock()) keeper->take(std::move(*done));
    });
  });
}

bool PolicyKeeper::lost_files(const policy::Generation& fresh) const {
  const auto& before = reading_.generation->files;
  return std::any_of(before.begin(), before.end(), [&fresh](const policy::File& file) {
    return file.accepted && find_file(fresh, file.name) == nullptr;
  });
}

void PolicyKeeper::confirm_later() {
  confirming_ = true;
  confirm_.expires_after(k_gone_for_good);
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  confirm_.async_wait([weak](const boost::system::error_code& error) {
    const auto keeper = weak.lock();
    if (keeper && !error) keeper->read_again();
  });
}

void PolicyKeeper::take(Done done) {
  if (closed_) return;
  reading_now_ = false;
  const bool first = !std::exchange(read_once_, true);
  if (first) first_.cancel();
  if (!first && !confirming_ && lost_files(*done.reading.generation)) {
    again_ = false;
    return confirm_later();
  }
  confirming_ = false;
  const auto news = policy_news(reading_, done.reading, settings_.directory);
  const bool changed = done.reading.generation->number != reading_.generation->number;
  reading_ = std::move(done.reading);
  if (changed) changed_at_ = std::chrono::system_clock::now();
  for (const auto& [kind, message] : news) say_(kind, message);
  if (!done.store_trouble.empty() && done.store_trouble != store_trouble_) {
    say_("policies_not_stored", done.store_trouble +
                                    "; after a restart, what bad policy files said last is not "
                                    "known");
  }
  if (changed) store_trouble_ = done.store_trouble;
  const auto trouble = watch_ ? watch_->trouble() : std::string();
  if (trouble != watch_trouble_ && !trouble.empty()) say_("policies_watch", trouble);
  watch_trouble_ = trouble;
  if ((changed || first) && changed_) changed_();
  if (std::exchange(again_, false)) read_again();
}

}  // namespace mps::app
