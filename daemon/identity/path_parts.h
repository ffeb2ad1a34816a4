// A path, part by part. Pure.
#pragma once

#include <algorithm>
#include <cstddef>
#include <string_view>
#include <vector>

namespace mps::identity {

struct Component {
  std::string_view name;
  std::size_t end = 0;  // in the path
};

inline std::vector<Component> components(std::string_view path) {
  std::vector<Component> parts;
  std::size_t begin = 0;
  while (begin < path.size()) {
    const auto end = std::min(path.find('/', begin), path.size());
    if (end > begin) parts.push_back({path.substr(begin, end - begin), end});
    begin = end + 1;
  }
  return parts;
}

}  // namespace mps::identity
