#include "identity/subject.h"

#include <algorithm>

#include "base/text.h"

namespace mps::identity {
namespace {

// What a policy's metadata.namespace may have.
constexpr std::size_t k_name_size = 128;
constexpr std::size_t k_label_size = 63;
constexpr std::size_t k_short_id = 12;

bool is_small(char character) {
  return (character >= 'a' && character <= 'z') || (character >= '0' && character <= '9');
}

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= k_name_size &&
         std::all_of(text.begin(), text.end(), [](char character) {
           return is_small(character) || (character >= 'A' && character <= 'Z') ||
                  std::string_view("_.@:\\-").find(character) != std::string_view::npos;
         });
}

Result<std::string> outside(std::string_view kind, std::string_view name) {
  if (!is_name(name)) return Error{"\"" + printable(name) + "\" is no name that a policy can have"};
  return std::string(kind) + std::string(name);
}

}  // namespace

Result<std::string> pod_subject(std::string_view name_space) {
  const bool label = !name_space.empty() && name_space.size() <= k_label_size &&
                     is_small(name_space.front()) && is_small(name_space.back()) &&
                     std::all_of(name_space.begin(), name_space.end(), [](char character) {
                       return is_small(character) || character == '-';
                     });
  if (!label) return Error{"\"" + printable(name_space) + "\" is no namespace"};
  return std::string(name_space);
}

Result<std::string> container_subject(std::string_view name, std::string_view id) {
  return outside("docker:", name.empty() ? id.substr(0, k_short_id) : name);
}

Result<std::string> unit_subject(std::string_view unit) {
  return outside("unit:", unit);
}

std::string user_subject(uid_t uid, const std::optional<std::string>& login) {
  // A login of digits would be another user's number.
  if (login && is_name(*login) && !parse_number<uid_t>(*login)) return "user:" + *login;
  return "user:" + std::to_string(uid);
}

}  // namespace mps::identity
