#include "device/error_inbox.h"

namespace mps::device {

void ErrorInbox::watch(std::set<std::string> gpus) {
  watched_ = std::move(gpus);
  const auto is_gone = [this](const auto& entry) { return !watched_.contains(entry.first); };
  std::erase_if(said_, is_gone);
  std::erase_if(content_.listening, is_gone);
  std::erase_if(content_.actions, is_gone);
  std::erase_if(content_.errors, is_gone);
}

void ErrorInbox::error(const std::string& gpu, XidSeen xid) {
  if (!watched_.contains(gpu)) return;
  if (content_.errors.size() < k_most_errors) {
    content_.errors.emplace_back(gpu, std::move(xid));
  } else {
    ++content_.lost;
  }
}

void ErrorInbox::action(const std::string& gpu, unsigned action) {
  if (watched_.contains(gpu)) content_.actions[gpu] = action;
}

void ErrorInbox::listening(const std::string& gpu, const std::string& why_not) {
  if (!watched_.contains(gpu)) return;
  const auto said = said_.find(gpu);
  if (said != said_.end() && said->second == why_not) return;
  said_[gpu] = why_not;
  content_.listening[gpu] = why_not;
}

}  // namespace mps::device
