// mps-run: asks the agent for a place on the GPU, sets what it was granted, and becomes the
// command.
#include <errno.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "apply.h"
#include "ask.h"
#include "device_search.h"
#include "environment.h"
#include "guard.h"
#include "options.h"
#include "place.h"
#include "system.h"

namespace {

using namespace mps::client;

constexpr int k_not_started = 125;
constexpr int k_not_executable = 126;
constexpr int k_not_found = 127;
constexpr long long k_device_pause_ms = 200;
constexpr size_t k_most_words = 4096;  // of a script's command line

// In one write, so that it stays one line among those of others.
void say_list(const char* pattern, va_list values) {
  Text<2048> text;
  Text<2080> line;
  format_list(text.data, sizeof text.data, pattern, values);
  line.print("mps-run: %s\n", text.data);
  (void)!sys::write(2, line.data, strlen(line.data));
}

[[gnu::format(printf, 1, 2)]] void say(const char* pattern, ...) {
  va_list values;
  va_start(values, pattern);
  say_list(pattern, values);
  va_end(values);
}

[[gnu::format(printf, 1, 2)]] int fail(const char* pattern, ...) {
  va_list values;
  va_start(values, pattern);
  say_list(pattern, values);
  va_end(values);
  return k_not_started;
}

// Once each, also where the agent was away in between.
void say_waiting(const char* sentence) {
  static Text<1025> said;
  if (equal(said.data, sentence)) return;
  said.print("%s", sentence);
  say("waiting: %s", sentence);
}

const char* reason(int error) {
  return ::strerror(error);  // NOLINT(concurrency-mt-unsafe): one thread
}

// This program's own file; without /proc, as whoever started it named it.
const char* own_file(Text<4096>& path) {
  const ssize_t size = ::readlink("/proc/self/exe", path.data, sizeof path.data - 1);
  if (size > 0) return path.data;
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the kernel's word for a text
  return reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
}

// The agent tells which share is of which device; while it is away it is waited for.
bool find_share_of(const Place& own, const Options& options, Place& place) {
  const long long until = now_ms() + options.wait_ms;
  Text<512> why;
  for (;;) {
    if (find_device(own, options.device, now_ms() + k_answer_ms, place, why)) return true;
    const long long left = until - now_ms();
    if (left <= 0) break;
    sleep_ms(left < k_device_pause_ms ? left : k_device_pause_ms);
  }
  say("%s", why.data);
  return false;
}

bool find(const Options& options, Place& place) {
  Text<4096> path;
  Place own;
  const char* file = own_file(path);
  if (!find_place(file, variable(k_pipe_variable), own)) {
    say("%s lies in no share's folder, and CUDA_MPS_PIPE_DIRECTORY names none: start the mps-run "
        "of the share, as /run/mps-share/NAME/bin/mps-run",
        file != nullptr ? file : "this program");
    return false;
  }
  place = own;
  return options.device == nullptr || find_share_of(own, options, place);
}

// 0: the environment is as it is to be.
int prepare(const Options& options, const Place& place) {
  const auto answer = ask(place.socket.data, options.wait_ms, say_waiting);
  Text<1400> line;
  if (answer.verdict == Verdict::granted) {
    auto user = user_values();
    // What another share in this container has set, or the user for another program.
    if (options.device != nullptr) user.visible_devices = nullptr;
    const auto settings = settings_for(answer.grant, user);
    if (!settings.other_device) {
      const int error = apply(place, settings);
      return error == 0 ? 0 : fail("cannot set the environment: %s", reason(error));
    }
    line.print(
        "CUDA_VISIBLE_DEVICES names another device than the share's %s: unset it, or use a "
        "share of that device",
        answer.grant.visible_devices.data);
  } else {
    describe(answer, options.wait_ms > 0 ? Waited::yes : Waited::no, line);
  }
  if (!options.run_without_mps) return fail("%s", line.data);
  say("%s; starting without MPS", line.data);
  const int error = apply_no_mps();
  return error == 0 ? 0 : fail("cannot set the environment: %s", reason(error));
}

// A script without a first line that says of what is one for the shell, to `env` as well.
void become_script(const char* file, char* const* command) {
  char* words[k_most_words + 3];
  static char shell[] = "sh";
  size_t count = 0;
  while (command[count] != nullptr) ++count;
  if (count > k_most_words) return;
  words[0] = shell;
  words[1] = const_cast<char*>(file);
  for (size_t i = 1; i <= count; ++i) words[i + 1] = command[i];
  ::execv("/bin/sh", words);
}

// Where execvp() has found it: the first that may be executed.
bool find_in_path(const char* name, Text<4096>& file) {
  if (strchr(name, '/') != nullptr) return file.print("%s", name);
  const char* folders = variable("PATH");
  while (folders != nullptr && *folders != '\0') {
    const size_t length = strcspn(folders, ":");
    if (file.print("%.*s%s%s", static_cast<int>(length), folders, length == 0 ? "" : "/", name) &&
        ::access(file.data, X_OK) == 0) {
      return true;
    }
    folders += length;
    if (*folders == ':') ++folders;
  }
  return false;
}

int become(char* const* command) {
  ::execvp(command[0], command);
  int error = errno;
  Text<4096> file;
  if (error == ENOEXEC && find_in_path(command[0], file)) {
    become_script(file.data, command);
    error = ENOEXEC;
  }
  say("%s: %s", command[0], reason(error));
  return error == ENOENT ? k_not_found : k_not_executable;
}

}  // namespace

int main(int count, char** words) {
  Options options;
  Text<256> error;
  if (!read_options(count, words, options, error)) return fail("%s", error.data);
  if (options.help || options.version) {
    const char* text = options.help ? k_usage : "mps-run " MPS_VERSION "\n";
    return sys::write(1, text, strlen(text)) < 0 ? 1 : 0;
  }
  Place place;
  if (!find(options, place)) return k_not_started;
  if (options.guard) {
    const int failed = stay_as_guard(place, options.grace_ms);
    if (failed != 0) return fail("cannot fork: %s", reason(failed));
  }
  const int failed = prepare(options, place);
  return failed != 0 ? failed : become(options.command);
}
