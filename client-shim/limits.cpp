#include "limits.h"

#include <string.h>

namespace mps::client {

namespace {

void set(Setting& setting, const char* value) {
  setting.set = copy(setting.value.data, sizeof setting.value.data, value, strlen(value));
}

// Thousandths of a percent, so that nothing is compared in floating point. -1: not a number above 0
// and up to 100 as MPS documents it. ("1e1" and "25%" are taken by the control daemon for 10 and
// 25; for a client nobody says so, and not to understand it means to set our own.)
long long thousandths(const char* text) {
  const size_t digits = strspn(text, "0123456789");
  const long long whole = whole_number(text, digits);
  if (whole < 0 || whole > 100) return -1;
  long long value = whole * 1000;
  if (text[digits] == '.') {
    const char* fraction = text + digits + 1;
    const size_t length = strspn(fraction, "0123456789");
    if (fraction[length] != '\0') return -1;
    long long unit = 100;
    for (size_t i = 0; i < length && unit > 0; ++i, unit /= 10) value += (fraction[i] - '0') * unit;
  } else if (text[digits] != '\0') {
    return -1;
  }
  return value > 0 && value <= 100'000 ? value : -1;
}

void lower_percentage(const Grant& grant, const char* user, Setting& out) {
  if (grant.percentage.empty()) return;
  const long long wanted = user == nullptr ? -1 : thousandths(user);
  if (wanted > 0 && wanted <= thousandths(grant.percentage.data)) return;
  set(out, grant.percentage.data);
}

bool is_uuid(const char* text) {
  return starts_with(text, "GPU-") || starts_with(text, "MIG-");
}

// MiB of "10G", "10GB", "512M", "512MB"; -1: something else.
long long mebibytes(const char* text, size_t length) {
  const size_t digits = strspn(text, "0123456789");
  if (digits >= length) return -1;
  const long long count = whole_number(text, digits);
  const size_t unit = length - digits;
  if (count < 0 || unit > 2 || (unit == 2 && text[digits + 1] != 'B')) return -1;
  if (text[digits] == 'G') return count * 1024;
  return text[digits] == 'M' ? count : -1;
}

// The least of what the user has set for the device: by its ordinal, which is 0 for whoever sees
// one device, or by a UUID. -1: nothing that can be understood.
long long least_of_user(const char* user) {
  long long least = -1;
  while (*user != '\0') {
    const size_t length = strcspn(user, ",");
    const auto* sign = static_cast<const char*>(memchr(user, '=', length));
    if (sign != nullptr && (is_uuid(user) || (sign - user == 1 && *user == '0'))) {
      const auto rest = length - static_cast<size_t>(sign + 1 - user);
      const long long limit = mebibytes(sign + 1, rest);
      if (limit > 0 && (least < 0 || limit < least)) least = limit;
    }
    user += length;
    if (*user == ',') ++user;
  }
  return least;
}

void lower_memory(const Grant& grant, const char* user, Setting& out) {
  if (grant.memory_mib < 0) return;
  const long long least = user == nullptr ? -1 : least_of_user(user);
  const long long limit = least > 0 && least < grant.memory_mib ? least : grant.memory_mib;
  out.set = out.value.print("0=%lldM", limit);
}

enum class Choice { ours, hidden, another };

// Of a user's list of devices. Ordinals are the node's or the container's, and a client of an MPS
// server sees that server's one device as 0: they mean ours. CUDA takes what it cannot read for the
// list's end, so words hide all devices.
Choice choice_of(const char* list, const char* uuid) {
  bool another = false;
  while (*list != '\0') {
    const size_t length = strcspn(list, ",");
    if (whole_number(list, length) >= 0) return Choice::ours;
    if (!is_uuid(list)) break;
    if (length > 4 && starts_with_ignoring_case(uuid, list, length)) return Choice::ours;
    another = true;
    list += length;
    if (*list == ',') ++list;
  }
  return another ? Choice::another : Choice::hidden;
}

void choose_device(const Grant& grant, const char* user, Settings& out) {
  if (grant.visible_devices.empty()) return;
  const Choice choice =
      user == nullptr ? Choice::ours : choice_of(user, grant.visible_devices.data);
  if (choice == Choice::ours) set(out.visible_devices, grant.visible_devices.data);
  out.other_device = choice == Choice::another;
}

}  // namespace

Settings settings_for(const Grant& grant, const UserValues& user) {
  Settings settings;
  lower_percentage(grant, user.percentage, settings.percentage);
  lower_memory(grant, user.memory, settings.memory);
  if (grant.below_normal) set(settings.priority, "1");
  choose_device(grant, user.visible_devices, settings);
  return settings;
}

}  // namespace mps::client
