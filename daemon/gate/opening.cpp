#include "gate/opening.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace mps::gate {
namespace {

std::string to_hex(const std::string& bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const char byte : bytes) {
    const auto value = static_cast<unsigned char>(byte);
    text += digits[value >> 4U];
    text += digits[value & 15U];
  }
  return text;
}

Result<std::string> from_hex(const std::string& text) {
  const auto digit = [](char c) -> int {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
  };
  if (text.empty() || text.size() % 2 != 0 || text.size() > 510) return Error{"is damaged"};
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); i += 2) {
    const int high = digit(text[i]);
    const int low = digit(text[i + 1]);
    if (high < 0 || low < 0) return Error{"is damaged"};
    bytes += static_cast<char>(high * 16 + low);
  }
  return bytes;
}

}  // namespace

std::string to_store(const Opening& opening) {
  auto messages = nlohmann::json::array();
  for (const auto& message : opening.messages) messages.push_back(to_hex(message));
  const nlohmann::json store{{"version", 1},
                             {"driver", opening.driver},
                             {"greeting", to_hex(opening.greeting)},
                             {"messages", messages},
                             {"forwardable", opening.forwardable},
                             {"whyNot", opening.why_not}};
  return store.dump(1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

Result<Opening> from_store(const std::string& text) {
  const auto store = nlohmann::json::parse(text, nullptr, false);
  Opening opening;
  try {
    if (store.at("version") != 1) return Error{"is of another version of mps-supervisor"};
    opening.driver = store.at("driver").get<std::string>();
    opening.forwardable = store.at("forwardable").get<bool>();
    opening.why_not = store.at("whyNot").get<std::string>();
    auto greeting = from_hex(store.at("greeting").get<std::string>());
    if (!greeting) return greeting.error();
    opening.greeting = std::move(*greeting);
    for (const auto& entry : store.at("messages")) {
      auto message = from_hex(entry.get<std::string>());
      if (!message) return message.error();
      opening.messages.push_back(std::move(*message));
    }
  } catch (const nlohmann::json::exception&) {
    return Error{"is damaged"};
  }
  if (opening.messages.empty() || opening.messages.size() > k_opening_messages)
    return Error{"is damaged"};
  return opening;
}

}  // namespace mps::gate
