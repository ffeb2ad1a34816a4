#include <algorithm>
#include <boost/asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "base/text.h"
#include "device/error_inbox.h"
#include "device/error_source.h"
#include "device/nvml_listener.h"
#include "device/quiet_thread.h"

namespace mps::device {

namespace {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;

// As NvmlWorker's: whoever is in NVML's wait for longer is left to itself.
constexpr std::chrono::milliseconds k_end_patience{250};

// The thread and what it shares with the executor. The thread owns it too, and may outlive
// everything else.
class Listening : public std::enable_shared_from_this<Listening> {
 public:
  Listening(asio::any_io_executor executor, ErrorSettings settings,
            const std::shared_ptr<const ErrorCallbacks>& callbacks)
      : settings_(std::move(settings)), callbacks_(callbacks), executor_(std::move(executor)) {}

  void watch(std::set<std::string> gpus);
  void close();

 private:
  void run();
  ErrorSink sink();
  void rest(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds time);
  void post_telling();
  void tell();
  void say_if_stuck();

  const ErrorSettings settings_;
  // The executor's alone. Weak: what callbacks hold must not end on the thread.
  std::weak_ptr<const ErrorCallbacks> callbacks_;
  bool open_ = true;
  std::thread thread_;

  std::mutex mutex_;  // for all below
  std::condition_variable wake_;
  std::condition_variable ended_changed_;
  std::optional<asio::any_io_executor> executor_;  // none after close()
  ErrorInbox inbox_;
  bool telling_ = false;  // is posted
  NvmlListener::Orders orders_;
  bool changed_ = false;  // what is watched
  bool ended_ = false;
  std::optional<Clock::time_point> in_nvml_since_;
};

void Listening::watch(std::set<std::string> gpus) {
  const std::lock_guard lock(mutex_);
  if (!executor_) return;
  if (gpus != inbox_.watched()) {
    orders_.anew = orders_.anew || !std::ranges::includes(gpus, inbox_.watched());
    orders_.gpus = gpus;
    inbox_.watch(std::move(gpus));
    changed_ = true;
    wake_.notify_one();
  }
  orders_.look_again = true;
  if (inbox_.watched().empty()) return;
  if (!thread_.joinable()) {
    thread_ = start_quiet_thread([self = shared_from_this()] { self->run(); });
  }
  if (!thread_.joinable()) {
    for (const auto& gpu : inbox_.watched()) {
      inbox_.listening(gpu, "there is no thread to listen on");
    }
  }
  say_if_stuck();
  post_telling();
}

void Listening::say_if_stuck() {
  if (!in_nvml_since_ || Clock::now() - *in_nvml_since_ < settings_.patience) return;
  for (const auto& gpu : inbox_.watched()) {
    inbox_.listening(gpu, "NVML did not answer within " + format_duration(settings_.patience));
  }
}

void Listening::close() {
  open_ = false;
  std::unique_lock lock(mutex_);
  executor_.reset();
  wake_.notify_one();
  if (!thread_.joinable()) return;
  ended_changed_.wait_for(lock, k_end_patience, [this] { return ended_; });
  const bool ended = ended_;
  lock.unlock();
  ended ? thread_.join() : thread_.detach();
}

void Listening::run() {
  NvmlListener listener(settings_, sink());
  std::unique_lock lock(mutex_);
  while (executor_) {
    const auto orders = std::exchange(orders_, {.gpus = orders_.gpus});
    changed_ = false;
    in_nvml_since_ = Clock::now();
    lock.unlock();
    const auto pause = listener.step(orders);
    lock.lock();
    in_nvml_since_.reset();
    rest(lock, pause);
  }
  lock.unlock();
  listener.close();
  lock.lock();
  ended_ = true;
  ended_changed_.notify_all();
}

void Listening::rest(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds time) {
  const auto is_over = [this] { return !executor_ || changed_; };
  if (inbox_.watched().empty()) {
    wake_.wait(lock, is_over);
  } else {
    wake_.wait_for(lock, time, is_over);
  }
}

ErrorSink Listening::sink() {
  // `this` outlives the thread, which holds a share in it.
  return {.error =
              [this](const std::string& gpu, XidSeen xid) {
                const std::lock_guard lock(mutex_);
                inbox_.error(gpu, std::move(xid));
                post_telling();
              },
          .action =
              [this](const std::string& gpu, unsigned action) {
                const std::lock_guard lock(mutex_);
                inbox_.action(gpu, action);
                post_telling();
              },
          .listening =
              [this](const std::string& gpu, const std::string& why_not) {
                const std::lock_guard lock(mutex_);
                // Under orders that are over: the next step tells, which may first have to
                // listen anew.
                if (changed_) return;
                inbox_.listening(gpu, why_not);
                post_telling();
              }};
}

// One is enough, however much is to be told. Under the lock, so that nothing is posted after
// close().
void Listening::post_telling() {
  if (!executor_ || telling_ || inbox_.empty()) return;
  telling_ = true;
  asio::post(*executor_, [self = shared_from_this()] { self->tell(); });
}

void Listening::tell() {
  const auto callbacks = callbacks_.lock();
  std::unique_lock lock(mutex_);
  telling_ = false;
  const auto content = inbox_.take();
  lock.unlock();
  if (!callbacks) return;
  // A callback may be what closes us.
  for (const auto& [gpu, why_not] : content.listening) {
    if (open_) callbacks->on_listening(gpu, why_not);
  }
  for (const auto& [gpu, xid] : content.errors) {
    if (open_) callbacks->on_error(gpu, xid);
  }
  if (open_ && content.lost > 0) callbacks->on_lost(content.lost);
  for (const auto& [gpu, action] : content.actions) {
    if (open_) callbacks->on_action(gpu, action);
  }
}

class NvmlErrorSource : public ErrorSource {
 public:
  NvmlErrorSource(const asio::any_io_executor& executor, ErrorSettings settings,
                  ErrorCallbacks callbacks)
      : callbacks_(std::make_shared<const ErrorCallbacks>(std::move(callbacks))),
        listening_(std::make_shared<Listening>(executor, std::move(settings), callbacks_)) {}
  ~NvmlErrorSource() override { listening_->close(); }
  NvmlErrorSource(const NvmlErrorSource&) = delete;
  NvmlErrorSource& operator=(const NvmlErrorSource&) = delete;

  void watch(std::set<std::string> gpus) override { listening_->watch(std::move(gpus)); }

 private:
  std::shared_ptr<const ErrorCallbacks> callbacks_;
  std::shared_ptr<Listening> listening_;
};

}  // namespace

std::unique_ptr<ErrorSource> make_nvml_error_source(const asio::any_io_executor& executor,
                                                    ErrorSettings settings,
                                                    ErrorCallbacks callbacks) {
  return std::make_unique<NvmlErrorSource>(executor, std::move(settings), std::move(callbacks));
}

}  // namespace mps::device
