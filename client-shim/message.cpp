#include "message.h"

#include <string.h>

namespace mps::client {

bool accept(Message& message, size_t size) {
  if (size == 0 || size > k_message_limit) return false;
  message.text[size] = '\0';
  if (strlen(message.text) != size || message.text[size - 1] != '\n') return false;
  const size_t kind = strspn(message.text, "abcdefghijklmnopqrstuvwxyz-");
  return kind > 0 && kind <= 32 && message.text[kind] == '\n';
}

bool is(const Message& message, const char* kind) {
  const size_t length = strlen(kind);
  return strncmp(message.text, kind, length) == 0 && message.text[length] == '\n';
}

bool value(const Message& message, const char* key, char* out, size_t size) {
  out[0] = '\0';
  char wanted[40];
  if (!format(wanted, sizeof wanted, "\n%s=", key)) return false;
  const char* at = strstr(message.text, wanted);
  if (at == nullptr) return false;
  at += strlen(wanted);
  return copy(out, size, at, strcspn(at, "\n"));
}

long long number(const Message& message, const char* key) {
  Text<20> text;
  if (!value(message, key, text)) return -1;
  return whole_number(text.data, strlen(text.data));
}

namespace {

bool has(const Message& message, const char* key) {
  char wanted[40];
  return format(wanted, sizeof wanted, "\n%s=", key) && strstr(message.text, wanted) != nullptr;
}

// "25.0": up to three digits, a point and one digit, above 0.
bool is_percentage(const char* text) {
  const size_t digits = strspn(text, "0123456789");
  if (digits == 0 || digits > 3 || text[digits] != '.') return false;
  const char* tenth = text + digits + 1;
  if (strspn(tenth, "0123456789") != 1 || tenth[1] != '\0') return false;
  return strspn(text, "0.") != strlen(text);
}

}  // namespace

bool read_grant(const Message& message, Grant& grant) {
  grant = Grant{};
  if (!value(message, "active-thread-percentage", grant.percentage) ||
      !is_percentage(grant.percentage.data)) {
    return false;
  }
  if (equal(grant.percentage.data, "100.0")) grant.percentage = {};
  if (has(message, "pinned-memory-mib")) {
    grant.memory_mib = number(message, "pinned-memory-mib");
    if (grant.memory_mib <= 0) return false;
  }
  grant.below_normal = number(message, "client-priority") == 1;
  return !has(message, "visible-devices") ||
         value(message, "visible-devices", grant.visible_devices);
}

}  // namespace mps::client
