#include "environment.h"

#include <string.h>

#include "system.h"

namespace mps::client {

namespace {

constexpr size_t k_room = 16;  // for variables that are new
char texts[8192];              // what was set; lives as long as the environment does
size_t texts_used = 0;
char** grown = nullptr;  // our own array, once a variable was new
size_t grown_left = 0;

const char* value_in(const char* entry, const char* name, size_t length) {
  return strncmp(entry, name, length) == 0 && entry[length] == '=' ? entry + length + 1 : nullptr;
}

size_t count() {
  size_t entries = 0;
  while (environ != nullptr && environ[entries] != nullptr) ++entries;
  return entries;
}

bool make_room(size_t entries) {
  if (environ == grown && grown_left > 0) return true;
  const size_t size = (entries + k_room + 1) * sizeof(char*);
  auto** array = static_cast<char**>(sys::memory(size));
  if (array == nullptr) return false;
  if (entries > 0) memcpy(array, environ, entries * sizeof(char*));
  environ = grown = array;
  grown_left = k_room;
  return true;
}

char* compose(const char* name, const char* value) {
  const size_t left = sizeof texts - texts_used;
  char* entry = texts + texts_used;
  if (!format(entry, left, "%s=%s", name, value)) return nullptr;
  texts_used += strlen(entry) + 1;
  return entry;
}

// Of the entries with this name from `at` on.
void remove_from(size_t at, const char* name) {
  const size_t length = strlen(name);
  size_t kept = at;
  for (size_t i = at; environ[i] != nullptr; ++i) {
    if (value_in(environ[i], name, length) == nullptr) environ[kept++] = environ[i];
  }
  environ[kept] = nullptr;
}

}  // namespace

const char* variable(const char* name) {
  const size_t length = strlen(name);
  for (size_t i = 0; environ != nullptr && environ[i] != nullptr; ++i) {
    const char* value = value_in(environ[i], name, length);
    if (value != nullptr) return value;
  }
  return nullptr;
}

int set_variable(const char* name, const char* value) {
  const size_t entries = count();
  const size_t length = strlen(name);
  size_t at = 0;
  while (at < entries && value_in(environ[at], name, length) == nullptr) ++at;
  if (at == entries && !make_room(entries)) return ENOMEM;
  char* entry = compose(name, value);
  if (entry == nullptr) return ENOMEM;
  environ[at] = entry;
  if (at == entries) {
    environ[at + 1] = nullptr;
    --grown_left;
  } else {
    remove_from(at + 1, name);
  }
  return 0;
}

void unset_variable(const char* name) {
  if (environ != nullptr) remove_from(0, name);
}

}  // namespace mps::client
