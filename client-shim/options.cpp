#include "options.h"

#include <string.h>

namespace mps::client {

namespace {

class Reader {
 public:
  Reader(int count, char* const* words, Options& options, Text<256>& error)
      : count_(count), words_(words), options_(options), error_(error) {}

  bool read() {
    while (at_ < count_ && words_[at_][0] == '-' && words_[at_][1] != '\0') {
      const char* word = words_[at_++];
      if (equal(word, "--")) break;
      if (!read_one(word)) return false;
    }
    options_.command = words_ + at_;
    if (at_ < count_ || options_.help || options_.version) return true;
    error_.print("no command; see mps-run --help");
    return false;
  }

 private:
  bool read_one(const char* word) {
    const char* text = nullptr;
    if (equal(word, "--guard")) return options_.guard = true;
    if (equal(word, "--help") || equal(word, "-h")) return options_.help = true;
    if (equal(word, "--version")) return options_.version = true;
    if (is_option(word, "--device")) {
      if (!take(word, "--device", options_.device)) return false;
      return options_.device[0] != '\0' || refuse("--device", "is empty");
    }
    if (is_option(word, "--wait")) {
      return take(word, "--wait", text) && take_duration("--wait", text, options_.wait_ms);
    }
    if (is_option(word, "--grace")) {
      return take(word, "--grace", text) && take_duration("--grace", text, options_.grace_ms);
    }
    if (is_option(word, "--on-refusal")) {
      return take(word, "--on-refusal", text) && take_refusal(text);
    }
    error_.print("unknown option %.64s; see mps-run --help", word);
    return false;
  }

  static bool is_option(const char* word, const char* name) {
    const size_t length = strlen(name);
    return strncmp(word, name, length) == 0 && (word[length] == '\0' || word[length] == '=');
  }

  // "--name=value", or the next word.
  bool take(const char* word, const char* name, const char*& value) {
    const size_t length = strlen(name);
    if (word[length] == '=') {
      value = word + length + 1;
      return true;
    }
    if (at_ >= count_) return refuse(name, "needs a value");
    value = words_[at_++];
    return true;
  }

  bool take_duration(const char* name, const char* text, long long& ms) {
    ms = duration_ms(text);
    if (ms >= 0) return true;
    error_.print("%s: must be as 500ms, 30s, 5m or 2h, at most 24h: \"%.64s\"", name, text);
    return false;
  }

  bool take_refusal(const char* text) {
    options_.run_without_mps = equal(text, "run-without-mps");
    if (options_.run_without_mps || equal(text, "fail")) return true;
    error_.print("--on-refusal: must be fail or run-without-mps: \"%.64s\"", text);
    return false;
  }

  bool refuse(const char* name, const char* what) {
    error_.print("%s %s", name, what);
    return false;
  }

  int count_;
  int at_ = 1;
  char* const* words_;
  Options& options_;
  Text<256>& error_;
};

}  // namespace

bool read_options(int count, char* const* words, Options& options, Text<256>& error) {
  return Reader(count, words, options, error).read();
}

}  // namespace mps::client
