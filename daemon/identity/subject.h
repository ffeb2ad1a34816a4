// The names that policies are for, made of what was found. Pure.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace mps::identity {

// A Kubernetes namespace, as it is; an Error for what is none: "is no namespace".
Result<std::string> pod_subject(std::string_view name_space);

// "docker:web", by the id's first digits where it has no name.
Result<std::string> container_subject(std::string_view name, std::string_view id);
Result<std::string> unit_subject(std::string_view unit);

// "user:alice"; "user:1000" where there is no login, or one that no policy can name.
std::string user_subject(uid_t uid, const std::optional<std::string>& login);

}  // namespace mps::identity
