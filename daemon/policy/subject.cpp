#include "policy/subject.h"

#include <algorithm>
#include <array>
#include <boost/uuid/name_generator_sha1.hpp>
#include <boost/uuid/uuid.hpp>

namespace mps::policy {
namespace {

constexpr std::size_t k_label_size = 63;
constexpr std::size_t k_prefix_size = 253;
constexpr std::size_t k_name_size = 128;
constexpr std::size_t k_hash_in_name = 6;
constexpr std::array<std::string_view, 3> k_kinds{"docker:", "unit:", "user:"};

bool is_small(char character) {
  return (character >= 'a' && character <= 'z') || (character >= '0' && character <= '9');
}

bool is_alphanumeric(char character) {
  return is_small(character) || (character >= 'A' && character <= 'Z');
}

// RFC 1123: small letters, digits and "-", not at the ends.
bool is_dns_label(std::string_view text) {
  return !text.empty() && text.size() <= k_label_size && is_small(text.front()) &&
         is_small(text.back()) && std::all_of(text.begin(), text.end(), [](char character) {
           return is_small(character) || character == '-';
         });
}

bool is_dns_name(std::string_view text) {
  if (text.empty() || text.size() > k_prefix_size) return false;
  while (true) {
    const auto dot = text.find('.');
    const auto part = text.substr(0, dot);
    // Kubernetes bounds the whole name, not its parts.
    if (part.empty() || !is_small(part.front()) || !is_small(part.back()) ||
        !std::all_of(part.begin(), part.end(),
                     [](char character) { return is_small(character) || character == '-'; })) {
      return false;
    }
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

bool is_label_name(std::string_view text) {
  return !text.empty() && text.size() <= k_label_size && is_alphanumeric(text.front()) &&
         is_alphanumeric(text.back()) && std::all_of(text.begin(), text.end(), [](char character) {
           return is_alphanumeric(character) || character == '-' || character == '_' ||
                  character == '.';
         });
}

// Of a Docker container, a systemd unit (which may have "\x2d" in it) or a login.
bool is_outside_name(std::string_view text) {
  constexpr std::string_view more = "_.@:\\-";
  return text == "*" || (!text.empty() && text.size() <= k_name_size &&
                         std::all_of(text.begin(), text.end(), [more](char character) {
                           return is_alphanumeric(character) ||
                                  more.find(character) != std::string_view::npos;
                         }));
}

std::string_view kind_of(std::string_view subject) {
  for (const auto kind : k_kinds) {
    if (subject.starts_with(kind)) return kind;
  }
  return {};
}

}  // namespace

bool is_subject(std::string_view text) {
  const auto kind = kind_of(text);
  if (!kind.empty()) return is_outside_name(text.substr(kind.size()));
  return text == "*" || is_dns_label(text);
}

bool is_kind_default(std::string_view subject) {
  return subject.substr(kind_of(subject).size()) == "*";
}

bool is_for_pods(std::string_view subject) {
  return kind_of(subject).empty();
}

std::string kind_default(std::string_view subject) {
  return std::string(kind_of(subject)) + "*";
}

bool is_label_key(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return is_label_name(text);
  return is_dns_name(text.substr(0, slash)) && is_label_name(text.substr(slash + 1));
}

bool is_label_value(std::string_view text) {
  return text.empty() || is_label_name(text);
}

std::string dedicated_domain(std::string_view subject) {
  return "ns-" + std::string(subject);
}

std::string instance_id(std::string_view device, std::string_view domain) {
  auto id = std::string(device) + "." + std::string(domain);
  const bool plain = std::all_of(domain.begin(), domain.end(), [](char character) {
    return is_small(character) || character == '-';
  });
  if (plain && id.size() <= k_instance_name_limit) return id;
  for (auto place = id.begin() + static_cast<std::ptrdiff_t>(device.size()) + 1; place != id.end();
       ++place) {
    if (!is_small(*place)) *place = '-';
  }
  id.resize(std::min(id.size(), k_instance_name_limit - k_hash_in_name - 1));
  while (id.ends_with('-')) id.pop_back();
  return id + "-" + short_hash(domain).substr(0, k_hash_in_name);
}

std::string short_hash(std::string_view text) {
  constexpr std::string_view digits = "0123456789abcdef";
  constexpr std::size_t k_bytes = 6;
  const boost::uuids::uuid nothing{};
  const auto hashed = boost::uuids::name_generator_sha1(nothing)(text.data(), text.size());
  std::string out;
  std::size_t taken = 0;
  for (const auto byte : hashed) {
    if (taken++ == k_bytes) break;
    out += digits[byte >> 4U];
    out += digits[byte & 0xfU];
  }
  return out;
}

}  // namespace mps::policy
