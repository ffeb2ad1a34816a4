#include "api/route.h"

#include <algorithm>

#include "base/text.h"

namespace mps::api {

std::optional<std::string> match_path(std::string_view route, std::string_view path) {
  constexpr std::string_view k_id = "{id}";
  const auto place = route.find(k_id);
  if (place == std::string_view::npos)
    return route == path ? std::optional<std::string>("") : std::nullopt;
  const auto head = route.substr(0, place);
  const auto tail = route.substr(place + k_id.size());
  if (path.size() <= head.size() + tail.size()) return std::nullopt;
  if (!path.starts_with(head) || !path.ends_with(tail)) return std::nullopt;
  const auto id = path.substr(head.size(), path.size() - head.size() - tail.size());
  if (id.find_first_of("/:") != std::string_view::npos) return std::nullopt;
  return percent_decode(id);
}

std::optional<Reply> check_parameters(const RouteInfo& route, const Request& request) {
  for (const auto& [name, value] : request.query) {
    const auto& known = route.parameters;
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    auto message = "unknown parameter \"" + printable(name, 64) + "\"";
    if (const auto meant = did_you_mean(name, known)) {
      message += "; did you mean \"" + std::string(*meant) + "\"?";
    }
    return error_reply(400, "bad_request", message);
  }
  return std::nullopt;
}

Reply no_route(const Request& request, const std::string& allow) {
  const auto path = printable(request.path);
  if (allow.empty()) return error_reply(404, "not_found", "there is nothing at " + path);
  auto reply =
      error_reply(405, "method_not_allowed",
                  printable(request.method, 32) + " is not for " + path + ", use " + allow);
  reply.allow = allow;
  return reply;
}

}  // namespace mps::api
