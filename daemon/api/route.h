// Routes: which method and path is answered by what. The tables made of them are also what
// docs/openapi.yaml is held against.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/http.h"

namespace mps::api {

struct RouteInfo {
  std::string_view method;
  std::string_view path;                     // at most one "{id}", which holds neither '/' nor ':'
  std::vector<std::string_view> parameters;  // of the query; any other is an error
};

// The decoded id, empty where the route has none. No value: another path.
std::optional<std::string> match_path(std::string_view route, std::string_view path);
std::optional<Reply> check_parameters(const RouteInfo& route, const Request& request);
Reply no_route(const Request& request, const std::string& allow);

template <typename T>
struct Route {
  RouteInfo info;
  Answer (T::*call)(const Request& request, const std::string& id);
};

template <typename T, std::size_t N>
Answer dispatch(const std::array<Route<T>, N>& routes, T& target, const Request& request) {
  std::string allow;
  for (const auto& route : routes) {
    const auto id = match_path(route.info.path, request.path);
    if (!id) continue;
    if (route.info.method != request.method) {
      allow += (allow.empty() ? "" : ", ") + std::string(route.info.method);
      continue;
    }
    if (auto bad = check_parameters(route.info, request)) return *std::move(bad);
    return (target.*route.call)(request, *id);
  }
  return no_route(request, allow);
}

}  // namespace mps::api
