#include "device/nvml_listener.h"

#include <algorithm>
#include <utility>

namespace mps::device {

namespace {

using std::chrono::milliseconds;

constexpr milliseconds k_first_pause{1000};
constexpr milliseconds k_longest_pause{60000};
constexpr unsigned k_most_at_once = 64;  // events, before actions are looked at
constexpr milliseconds k_no_wait{1};
constexpr unsigned k_none = 0;  // the recovery action

}  // namespace

milliseconds pause_after(unsigned failures) {
  const unsigned doublings = std::min(std::max(failures, 1U) - 1, 6U);
  return std::min(k_first_pause * (1U << doublings), k_longest_pause);
}

milliseconds NvmlListener::step(const Orders& orders) {
  const auto& gpus = orders.gpus;
  if (orders.anew) {
    close();
    actions_.clear();
  }
  if (gpus.empty()) return settings_.wait;
  if (!session_ && !open(gpus)) return pause_after(failures_);
  add_missing(gpus);
  if (session_->gpus().empty()) {
    tell_listening(gpus);
    close();
    return pause_after(++failures_);
  }
  // After a failure it is first to be seen whether it works.
  if (failures_ == 0) tell_listening(gpus);
  if (orders.look_again) look_at_pending_actions();
  return listen(gpus);
}

milliseconds NvmlListener::listen(const std::set<std::string>& gpus) {
  const auto until = Clock::now() + settings_.wait;
  auto event = session_->wait(settings_.wait);
  // A single failure is no news: the driver may be back at once.
  if (!event) return failed(gpus, event.error().message, failures_ > 0);
  failures_ = 0;
  tell_listening(gpus);
  if (*event) {
    take(std::move(**event));
    return milliseconds(0);
  }
  // NVML may return early, and must not keep us busy by that.
  return std::max(std::chrono::ceil<milliseconds>(until - Clock::now()), milliseconds(0));
}

void NvmlListener::close() {
  session_.reset();
  refused_.clear();
  refusals_ = 0;
}

bool NvmlListener::open(const std::set<std::string>& gpus) {
  auto opened = nvml::EventSession::open(library_, settings_.library);
  if (!opened) {
    failed(gpus, opened.error().message, true);
    return false;
  }
  session_.emplace(std::move(*opened));
  return true;
}

milliseconds NvmlListener::failed(const std::set<std::string>& gpus, const std::string& why,
                                  bool say) {
  close();
  if (say) {
    for (const auto& gpu : gpus) sink_.listening(gpu, why);
  }
  return pause_after(++failures_);
}

void NvmlListener::add_missing(const std::set<std::string>& gpus) {
  const bool again = Clock::now() >= ask_again_;
  bool refused = false;
  for (const auto& gpu : gpus) {
    if (session_->gpus().contains(gpu) || (refused_.contains(gpu) && !again)) continue;
    if (const auto added = session_->add(gpu); !added) {
      refused_[gpu] = added.error().message;
      refused = true;
      continue;
    }
    refused_.erase(gpu);
    look_at_action(gpu, false);
  }
  if (refused) ask_again_ = Clock::now() + pause_after(++refusals_);
}

void NvmlListener::tell_listening(const std::set<std::string>& gpus) {
  for (const auto& gpu : gpus) {
    const auto refused = refused_.find(gpu);
    sink_.listening(gpu, refused == refused_.end() ? std::string() : refused->second);
  }
}

void NvmlListener::take(nvml::Event event) {
  std::set<std::string> concerned;
  std::optional<nvml::Event> next(std::move(event));
  for (unsigned taken = 0; next && taken < k_most_at_once; ++taken) {
    concerned.insert(next->gpu);
    // At once: asking a GPU in trouble for its action may take its time.
    if (next->xid) sink_.error(next->gpu, *next->xid);
    auto waited = session_->wait(k_no_wait);
    // Should it have failed for good, the next step meets that too.
    next = waited ? std::move(*waited) : std::nullopt;
  }
  if (next && next->xid) sink_.error(next->gpu, *next->xid);
  if (next) concerned.insert(next->gpu);
  for (const auto& gpu : concerned) look_at_action(gpu, true);
}

void NvmlListener::look_at_pending_actions() {
  for (const auto& [gpu, handle] : session_->gpus()) {
    const auto told = actions_.find(gpu);
    if (told == actions_.end() || told->second != k_none) look_at_action(gpu, false);
  }
}

void NvmlListener::look_at_action(const std::string& gpu, bool always) {
  const auto action = session_->action(gpu);
  // What it was is not known to hold any more: whatever it is then is news, also where it is
  // "none", since meanwhile that may have been the sign of a reset.
  if (!action) {
    actions_.erase(gpu);
    return;
  }
  const auto [told, is_first] = actions_.try_emplace(gpu, *action);
  const bool is_news = std::exchange(told->second, *action) != *action || is_first;
  if (!is_news && !always) return;
  sink_.action(gpu, *action);
}

}  // namespace mps::device
