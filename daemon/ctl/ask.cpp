#include "ctl/ask.h"

#include <utility>

#include "base/text.h"
#include "ctl/views.h"

namespace mps::ctl {

using nlohmann::json;

int fail(const Console& console, int status, const std::string& message) {
  console.err << "mps-ctl: " << message << "\n";
  return status;
}

std::string render(Format format, const json& value, const View& view) {
  if (format == Format::json)
    return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
  if (format == Format::yaml) return to_yaml(value);
  return view(value);
}

std::string error_message(const Response& response) {
  const auto value = json::parse(response.body, nullptr, false);
  try {
    return printable(value.at("error").at("message").get<std::string>(), 1000);
  } catch (const json::exception&) {
    return "the supervisor answered with status " + std::to_string(response.status);
  }
}

Answered ask(const Console& console, const std::string& method, const std::string& target,
             const std::string& body, std::chrono::milliseconds timeout) {
  const auto response = Client(console.socket, timeout).request(method, target, body);
  if (!response) return {nullptr, fail(console, k_unreachable, response.error().message)};
  if (response->status >= 300) return {nullptr, fail(console, k_failed, error_message(*response))};
  auto value = json::parse(response->body, nullptr, false);
  if (value.is_discarded()) {
    return {nullptr, fail(console, k_failed, "the supervisor's answer is not JSON")};
  }
  return {std::move(value), k_done};
}

int show(const Console& console, const std::string& target, const View& view) {
  const auto answered = ask(console, "GET", target);
  if (answered.status != k_done) return answered.status;
  console.out << render(console.format, answered.value, view);
  return k_done;
}

}  // namespace mps::ctl
