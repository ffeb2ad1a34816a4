#include "app/policy_keeper.h"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <exception>
#include <utility>

#include "app/policy_directory.h"
#include "base/file.h"
#include "base/text.h"

namespace mps::app {

namespace asio = boost::asio;

namespace {

constexpr std::chrono::seconds k_store_at_the_end{2};

// Empty, or why not. Any thread; may hang.
std::string write_store(const std::filesystem::path& file, const policy::Generation& generation) {
  try {
    const auto text = to_store(generation);
    if (!text) return file.string() + ": " + text.error().message;
    const auto written = replace_file(file, *text);
    return written ? "" : written.error().message;
  } catch (const std::exception& failure) {
    return file.string() + ": " + failure.what();
  }
}

bool same(const std::shared_ptr<const policy::Generation>& a,
          const std::shared_ptr<const policy::Generation>& b) {
  return a && b && a->number == b->number && a->hash == b->hash;
}

}  // namespace

PolicyKeeper::PolicyKeeper(const asio::any_io_executor& executor, Settings settings, Say say)
    : executor_(executor),
      settings_(std::move(settings)),
      say_(std::move(say)),
      reader_(executor),
      writer_(executor),
      first_(executor),
      confirm_(executor),
      slow_(executor),
      store_again_(executor),
      changed_at_(std::chrono::system_clock::now()) {
  reading_.generation = std::make_shared<policy::Generation>();
}

PolicyKeeper::~PolicyKeeper() {
  close();
}

void PolicyKeeper::close() {
  if (std::exchange(closed_, true)) return;
  watch_.reset();
  changed_ = nullptr;
  for (auto* timer : {&first_, &confirm_, &slow_, &store_again_}) timer->cancel();
  reader_.close();
  if (is_to_be_stored() && storing_ != reading_.generation) {
    writer_.run(
        [file = settings_.store, generation = reading_.generation]() -> process::SlowWork::Then {
          static_cast<void>(write_store(file, *generation));
          return [] {};
        });
  }
  static_cast<void>(writer_.finish(k_store_at_the_end));
  writer_.close();
}

// ---- starting ----

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
  stored_ = *stored;
}

asio::awaitable<void> PolicyKeeper::start(std::vector<policy::DeviceFacts> devices,
                                          std::chrono::milliseconds limit) {
  const auto self = shared_from_this();
  devices_ = std::move(devices);
  limit_ = limit;
  load_store();
  const std::weak_ptr<PolicyKeeper> weak = self;
  process::DirectoryWatchSettings watch;
  watch.concerns = may_be_policy;
  watch.elsewhere = [weak](process::DirectoryWatchSettings::Job job) {
    if (const auto keeper = weak.lock()) keeper->look_elsewhere(std::move(job));
  };
  watch_ = process::DirectoryWatch::create(
      executor_, settings_.directory,
      [weak] {
        if (const auto keeper = weak.lock()) keeper->read_again();
      },
      watch);
  first_.expires_at(asio::steady_timer::time_point::max());
  read_again();
  co_await first_.async_wait(asio::as_tuple(asio::use_awaitable));
}

void PolicyKeeper::set_devices(std::vector<policy::DeviceFacts> devices) {
  if (devices == devices_) return;
  devices_ = std::move(devices);
  if (watch_) read_again();
}

// ---- what may hang ----

void PolicyKeeper::look_elsewhere(process::DirectoryWatchSettings::Job job) {
  if (closed_) return;
  begin_slow();
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  reader_.run([weak, job = std::move(job)]() -> process::SlowWork::Then {
    return [weak, then = job()] {
      const auto keeper = weak.lock();
      if (!keeper || keeper->closed_) return;
      // A reading says that it is over.
      if (keeper->end_slow()) keeper->read_again();
      then();
    };
  });
}

void PolicyKeeper::begin_slow() {
  if (looking_++ == 0) limit_slow();
}

void PolicyKeeper::limit_slow() {
  slow_.expires_after(limit_);
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  slow_.async_wait([weak](const boost::system::error_code& error) {
    const auto keeper = weak.lock();
    if (keeper && !error && keeper->looking_ > 0) keeper->too_slow();
  });
}

// True where it was slow, and that was said.
bool PolicyKeeper::end_slow() {
  slow_.cancel();
  if (--looking_ > 0) limit_slow();  // the next one
  return std::exchange(is_slow_, false);
}

void PolicyKeeper::too_slow() {
  if (closed_ || std::exchange(is_slow_, true)) return;
  reading_.error =
      "reading " + settings_.directory.string() + " takes longer than " + format_duration(limit_);
  say_("policies_unreadable",
       reading_.error + "; what was known before is in force until it is read");
  first_.cancel();
}

// ---- reading ----

// One reading at a time; what changes meanwhile is read after it.
void PolicyKeeper::read_again() {
  if (closed_) return;
  if (std::exchange(reading_now_, true)) {
    again_ = true;
    return;
  }
  ReadingOrder order{.directory = settings_.directory,
                     .before = reading_.generation,
                     .devices = devices_,
                     .gone = std::nullopt};
  if (read_once_) order.gone = gone_;
  begin_slow();
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  reader_.run([weak, order = std::move(order), read = settings_.read]() -> process::SlowWork::Then {
    auto fresh = std::make_shared<PolicyReading>(read(order));
    return [weak, fresh] {
      if (const auto keeper = weak.lock()) keeper->take(std::move(*fresh));
    };
  });
}

// When files that are missing now were first missed, and when to look again.
void PolicyKeeper::take_gone(const PolicyReading& fresh) {
  const auto now = std::chrono::steady_clock::now();
  GoneFiles gone;
  auto first = now;
  for (const auto& name : fresh.kept) {
    const auto known = gone_.find(name);
    const auto since = known == gone_.end() ? now : known->second;
    gone.emplace(name, since);
    first = std::min(first, since);
  }
  gone_ = std::move(gone);
  confirm_.cancel();
  if (gone_.empty()) return;
  confirm_.expires_at(first + k_gone_for_good);
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  confirm_.async_wait([weak](const boost::system::error_code& error) {
    const auto keeper = weak.lock();
    if (keeper && !error) keeper->read_again();
  });
}

void PolicyKeeper::take(PolicyReading fresh) {
  if (closed_) return;
  reading_now_ = false;
  static_cast<void>(end_slow());
  take_gone(fresh);
  const bool first = !std::exchange(read_once_, true);
  if (first) first_.cancel();
  const auto trouble = watch_ ? watch_->trouble() : std::string();
  if (trouble != watch_trouble_ && !trouble.empty()) say_("policies_watch", trouble);
  watch_trouble_ = trouble;
  if (!fresh.undecided) {
    const auto news = policy_news(reading_, fresh, settings_.directory);
    const bool changed = fresh.generation->number != reading_.generation->number;
    reading_ = std::move(fresh);
    if (changed) changed_at_ = std::chrono::system_clock::now();
    for (const auto& [kind, message] : news) say_(kind, message);
    store();
    if ((changed || first) && changed_) changed_();
  }
  if (std::exchange(again_, false)) read_again();
}

// ---- storing ----

bool PolicyKeeper::is_to_be_stored() const {
  return reading_.generation->number > 0 && !same(stored_, reading_.generation);
}

// Only what is in force, and until it is known to be on the disk.
void PolicyKeeper::store() {
  if (closed_ || storing_ || !is_to_be_stored()) return;
  storing_ = reading_.generation;
  store_again_.cancel();
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  writer_.run([weak, generation = storing_, file = settings_.store]() -> process::SlowWork::Then {
    const auto trouble = write_store(file, *generation);
    return [weak, generation, trouble] {
      if (const auto keeper = weak.lock()) keeper->stored(generation, trouble);
    };
  });
}

void PolicyKeeper::stored(const std::shared_ptr<const policy::Generation>& generation,
                          const std::string& trouble) {
  if (closed_) return;
  storing_.reset();
  if (!trouble.empty() && trouble != store_trouble_) {
    say_("policies_not_stored",
         trouble + "; after a restart, what bad policy files said last is not known");
  }
  store_trouble_ = trouble;
  // A store that could not be written may have been cut off: it is not known what it holds.
  stored_ = trouble.empty() ? generation : nullptr;
  if (trouble.empty()) return store();  // of what has come meanwhile
  store_again_.expires_after(settings_.store_again);
  const std::weak_ptr<PolicyKeeper> weak = weak_from_this();
  store_again_.async_wait([weak](const boost::system::error_code& error) {
    const auto keeper = weak.lock();
    if (keeper && !error) keeper->store();
  });
}

}  // namespace mps::app
