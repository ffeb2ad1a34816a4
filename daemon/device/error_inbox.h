// What the listening thread has heard and nobody has taken yet. Bounded: errors by a number, the
// rest by the GPUs that are watched. Pure; the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device/error_source.h"

namespace mps::device {

class ErrorInbox {
 public:
  static constexpr std::size_t k_most_errors = 256;

  struct Content {  // in the order in which it is to be told
    std::map<std::string, std::string> listening{};
    std::vector<std::pair<std::string, XidSeen>> errors{};
    std::uint64_t lost = 0;
    std::map<std::string, unsigned> actions{};  // the last one of each
    [[nodiscard]] bool empty() const {
      return listening.empty() && errors.empty() && lost == 0 && actions.empty();
    }
  };

  // What is not watched is not told; who is watched anew is told of anew.
  void watch(std::set<std::string> gpus);
  [[nodiscard]] const std::set<std::string>& watched() const { return watched_; }

  void error(const std::string& gpu, XidSeen xid);
  void action(const std::string& gpu, unsigned action);
  // Kept only where it is not what was last said.
  void listening(const std::string& gpu, const std::string& why_not);

  [[nodiscard]] bool empty() const { return content_.empty(); }
  Content take() { return std::exchange(content_, {}); }

 private:
  std::set<std::string> watched_;
  std::map<std::string, std::string> said_;  // by GPU: why its errors are not told
  Content content_;
};

}  // namespace mps::device
