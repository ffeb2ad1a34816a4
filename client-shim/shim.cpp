// libmps-shim.so: what mps-run does, by LD_PRELOAD, for a program whose start cannot be changed.
//
// It lives in somebody else's process: it never ends it, and leaves its signals, threads, locale,
// errno, descriptors and working directory as they were. It says nothing unless CUDA will not work.
//   MPS_SHIM=auto   (default) a program that is linked with libcuda.so.1 takes its place now; any
//                   other is told its limits, and takes its place when it starts CUDA
//   MPS_SHIM=ask    takes its place now
//   MPS_SHIM=off    does nothing
//   MPS_SHIM_CHILDREN=keep    children get it, too; else LD_PRELOAD loses it here, and they have
//   the
//                   environment
//   MPS_SHIM_WAIT=30s         waits so long for a place
#include <link.h>
#include <string.h>

#include "apply.h"
#include "ask.h"
#include "environment.h"
#include "place.h"
#include "system.h"

namespace {

using namespace mps::client;

constexpr long long k_patience_ms = 1000;  // of a program that would run without us at once

void say(const char* text) {
  Text<2048> line;
  line.print("libmps-shim: %s\n", text);
  (void)!sys::write(2, line.data, strlen(line.data));
}

const char* text_of(const char* name) {
  const char* value = variable(name);
  return value == nullptr ? "" : value;
}

// What of LD_PRELOAD is not this library, in its place; `names` has one name of it.
void leave_preload(const char* name) {
  Text<4096> rest;
  const char* list = text_of("LD_PRELOAD");
  if (*list == '\0') return;
  size_t used = 0;
  while (*list != '\0') {
    const size_t length = strcspn(list, ": ");
    const bool ours = length == strlen(name) && strncmp(list, name, length) == 0;
    if (!ours && length > 0) {
      if (used + length + 2 > sizeof rest.data) return;
      if (used > 0) rest.data[used++] = ':';
      memcpy(rest.data + used, list, length);
      used += length;
    }
    list += length;
    if (*list != '\0') ++list;
  }
  if (used == 0) {
    unset_variable("LD_PRELOAD");
  } else {
    set_variable("LD_PRELOAD", rest.data);
  }
}

struct Loaded {
  const char* own = nullptr;  // this library's file, as LD_PRELOAD has it
  bool cuda = false;
};

int look_at_library(dl_phdr_info* library, size_t, void* data) {
  auto& loaded = *static_cast<Loaded*>(data);
  const char* slash = strrchr(library->dlpi_name, '/');
  if (slash != nullptr && starts_with(slash, "/libcuda.so")) loaded.cuda = true;
  const auto here = reinterpret_cast<uintptr_t>(&look_at_library);
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& part = library->dlpi_phdr[i];
    const auto start = library->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_LOAD && here >= start && here < start + part.p_memsz) {
      loaded.own = library->dlpi_name;
    }
  }
  return 0;
}

// Whether somebody listens where CUDA will knock: the gate holds who comes while the agent is away.
bool is_held_at(const Place& place) {
  Text<k_path_limit> control;
  control.print("%s/control", place.pipe.data);
  Connection connection;
  const int error = connection.dial(control.data, now_ms());
  return error == 0 || error == ETIMEDOUT;
}

void hide(const char* why) {
  Text<2048> line;
  line.print("%s; this program sees no GPU", why);
  say(line.data);
  apply_no_devices();
}

void act_on(const Answer& answer, const Place& place, Waited waited) {
  Text<1400> line;
  switch (answer.verdict) {
    case Verdict::granted:
    case Verdict::waiting: {
      const auto settings = settings_for(answer.grant, user_values());
      apply(place, settings);
      if (settings.other_device) hide("CUDA_VISIBLE_DEVICES names another device than the share's");
      return;
    }
    case Verdict::refused:
      apply(place, {});
      describe(answer, waited, line);
      return hide(line.data);
    case Verdict::away:
    case Verdict::broken:
      // Out of descriptors or memory, too: whether CUDA may start is then decided at the gate.
      apply(place, {});
      if (is_held_at(place) || answer.error == EMFILE || answer.error == ENFILE ||
          answer.error == ENOMEM || answer.error == ENOBUFS) {
        return;
      }
      describe(answer, waited, line);
      return hide(line.data);
  }
}

bool is_mode(const char* mode) {
  return *mode == '\0' || equal(mode, "auto") || equal(mode, "ask");
}

void start() {
  const char* mode = text_of("MPS_SHIM");
  Loaded loaded;
  ::dl_iterate_phdr(look_at_library, &loaded);
  if (loaded.own == nullptr) return;
  if (!equal(text_of("MPS_SHIM_CHILDREN"), "keep")) leave_preload(loaded.own);
  if (equal(mode, "off")) return;
  if (!is_mode(mode)) say("MPS_SHIM: must be auto, ask or off; going on as with auto");
  Place place;
  if (!find_place(loaded.own, variable(k_pipe_variable), place)) {
    return hide("this library lies in no share's folder, and CUDA_MPS_PIPE_DIRECTORY names none");
  }
  const char* wait = text_of("MPS_SHIM_WAIT");
  const long long wait_ms = duration_ms(wait);
  if (wait_ms < 0 && *wait != '\0') say("MPS_SHIM_WAIT: must be as 500ms, 30s or 5m, at most 24h");
  if (loaded.cuda || equal(mode, "ask")) {
    return act_on(ask(place.socket.data, wait_ms > 0 ? wait_ms : 0, nullptr), place,
                  wait_ms > 0 ? Waited::yes : Waited::cannot);
  }
  act_on(look(place.socket.data, now_ms() + k_patience_ms), place, Waited::cannot);
}

[[gnu::constructor]] void on_load() {
  const int error = errno;
  start();
  errno = error;
}

}  // namespace
