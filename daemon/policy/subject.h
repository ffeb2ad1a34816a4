// Names that policies are for, and what follows from them: the policy that stands in for one, the
// domain and the instance of its own. Pure.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace mps::policy {

// An instance's name is part of a socket's path (see runDir): this is all it may have.
inline constexpr std::size_t k_instance_name_limit = 24;

// "team-a", "*", "docker:NAME", "unit:*", …
bool is_subject(std::string_view text);
// "*", "docker:*", "unit:*", "user:*": for those of the kind who have no policy of their own.
bool is_kind_default(std::string_view subject);
bool is_for_pods(std::string_view subject);
// The default for this one: "unit:*" for "unit:cron.service".
std::string kind_default(std::string_view subject);

// As Kubernetes has them.
bool is_label_key(std::string_view text);
bool is_label_value(std::string_view text);

// Of a namespace with `isolation: dedicated`: "ns-team-a".
std::string dedicated_domain(std::string_view subject);
// "gpu0.shared", "gpu0.ns-team-a"; with a hash where it would be too long or has other characters
// than small letters, digits and "-": "gpu0.ns-team-mach-3f9a21".
std::string instance_id(std::string_view device, std::string_view domain);

// The first 12 hex digits of a hash of the text: the same on every node.
std::string short_hash(std::string_view text);

}  // namespace mps::policy
