#include "app/fd_store.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

using namespace mps;
using namespace mps::app;

namespace {

// Notes what the manager is told.
struct Manager {
  std::vector<std::string> told;
  bool listens = true;

  FdStore::Tell tell() {
    return [this](std::string_view state, int descriptor) {
      if (!listens) return false;
      told.push_back(std::string(state) + (descriptor < 0 ? "" : " +"));
      return true;
    };
  }
  std::vector<std::string> take() { return std::exchange(told, {}); }
};

UniqueFd a_socket() {
  return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

FdStore::Stored passed(const std::string& instance, const std::string& share, int& number) {
  auto socket = a_socket();
  number = socket.get();
  return {{instance, share}, std::move(socket)};
}

std::vector<FdStore::Stored> list(FdStore::Stored one) {
  std::vector<FdStore::Stored> stored;
  stored.push_back(std::move(one));
  return stored;
}

bool is_open(int descriptor) {
  return ::fcntl(descriptor, F_GETFD) >= 0;
}

const auto k_any = [](int) { return true; };
const std::string k_put = "FDSTORE=1\nFDNAME=gate/gpu0.shared/open +";
const std::string k_removed = "FDSTOREREMOVE=1\nFDNAME=gate/gpu0.shared/open";

}  // namespace

TEST_CASE("a stored socket's name says its instance and share, as systemd takes it") {
  CHECK(stored_name({"gpu0-mig3.ns-team-a", "s12"}) == "gate/gpu0-mig3.ns-team-a/s12");
  CHECK(parse_stored_name("gate/gpu0-mig3.ns-team-a/s12") ==
        StoredName{"gpu0-mig3.ns-team-a", "s12"});
  for (const auto* bad : {"", "stored", "gate/", "gate/a", "gate//s1", "gate/a/", "gate/a/b/c",
                          "door/a/b", "gate/a/b:c", "gate/a/b\n", "gate/a/\xc3\xa9"}) {
    CAPTURE(bad);
    CHECK_FALSE(parse_stored_name(bad));
  }
  CHECK_FALSE(stored_name({"a/b", "c"}));
  CHECK_FALSE(stored_name({"a:b", "c"}));
  const std::string longest(k_longest_stored_name - std::string("gate//s1").size(), 'x');
  CHECK(stored_name({longest, "s1"}).value_or("").size() == k_longest_stored_name);
  CHECK_FALSE(stored_name({longest + "x", "s1"}));
  // As many as there may be fit into one variable of the environment.
  CHECK(k_most_stored * (k_longest_stored_name + 1) < 128 * 1024 - 64);
}

TEST_CASE("what was passed is read as systemd says it, and only by whom it was meant for") {
  using Names = std::vector<std::string>;
  CHECK(*parse_passed({"7", "2", "gate/a/b:other"}, 7) == Names{"gate/a/b", "other"});
  CHECK(parse_passed({"7", "2", "gate/a/b:other"}, 8)->empty());
  CHECK(parse_passed({}, 7)->empty());
  CHECK(parse_passed({nullptr, "2", "a:b"}, 7)->empty());
  CHECK(parse_passed({"7", nullptr, "a:b"}, 7)->empty());
  CHECK(parse_passed({"7", "0", nullptr}, 7)->empty());
  const auto error = [](const char* pid, const char* count, const char* names) {
    return parse_passed({pid, count, names}, 7).error().message;
  };
  CHECK(error("seven", "1", "a") == "LISTEN_PID is no process: \"seven\"");
  CHECK(error("7", "-1", "a") == "LISTEN_FDS is no number up to 4096: \"-1\"");
  CHECK(error("7", "1x", "a") == "LISTEN_FDS is no number up to 4096: \"1x\"");
  CHECK(error("7", "4097", "a") == "LISTEN_FDS is no number up to 4096: \"4097\"");
  CHECK(error("7", "2", "a") == "LISTEN_FDNAMES has 1 names for 2 descriptors");
  CHECK(error("7", "2", nullptr) == "LISTEN_FDNAMES has 1 names for 2 descriptors");
}

TEST_CASE("a socket is stored once, and another one in its place") {
  Manager manager;
  FdStore store({}, manager.tell());
  const auto first = a_socket();
  CHECK(store.keep("gpu0.shared", "open", first.get()));
  CHECK(manager.take() == std::vector{k_removed, k_put});
  CHECK(store.keep("gpu0.shared", "open", first.get()));
  CHECK(manager.take().empty());
  const auto second = a_socket();
  CHECK(store.keep("gpu0.shared", "open", second.get()));
  CHECK(manager.take() == std::vector{k_removed, k_put});
  store.drop("gpu0.shared", "open");
  store.drop("gpu0.shared", "open");
  CHECK(manager.take() == std::vector{k_removed});
  CHECK_FALSE(store.keep("gpu0.shared", "open", -1));
  CHECK_FALSE(store.keep("a:b", "open", first.get()));
  CHECK(manager.take().empty());
}

TEST_CASE("a manager that has too much to read is told later") {
  Manager manager;
  FdStore store({}, manager.tell());
  const auto first = a_socket();
  manager.listens = false;
  CHECK_FALSE(store.keep("gpu0.shared", "open", first.get()));
  manager.listens = true;
  CHECK(store.keep("gpu0.shared", "open", first.get()));
  const auto second = a_socket();
  manager.listens = false;
  CHECK_FALSE(store.keep("gpu0.shared", "open", second.get()));
  manager.listens = true;
  manager.take();
  CHECK(store.keep("gpu0.shared", "open", second.get()));
  CHECK(manager.take() == std::vector{k_removed, k_put});
}

TEST_CASE("what was passed is taken, and need not be stored again") {
  Manager manager;
  int number = -1;
  FdStore store(list(passed("gpu0.shared", "open", number)), manager.tell());
  CHECK_FALSE(store.take("gpu1.shared", "open", k_any));
  CHECK_FALSE(store.take("gpu0.shared", "s1", k_any));
  const auto taken = store.take("gpu0.shared", "open", k_any);
  CHECK(taken.get() == number);
  CHECK_FALSE(store.take("gpu0.shared", "open", k_any));
  CHECK(store.keep("gpu0.shared", "open", taken.get()));
  CHECK(manager.take().empty());
}

TEST_CASE("what was passed and does not fit is closed and removed") {
  Manager manager;
  int number = -1;
  FdStore store(list(passed("gpu0.shared", "open", number)), manager.tell());
  CHECK_FALSE(store.take("gpu0.shared", "open", [](int) { return false; }));
  CHECK_FALSE(is_open(number));
  CHECK(manager.take() == std::vector{k_removed});
  const auto fresh = a_socket();
  CHECK(store.keep("gpu0.shared", "open", fresh.get()));
  CHECK(manager.take() == std::vector{k_removed, k_put});
}

TEST_CASE("of several with one name the one that fits is taken, and is alone then") {
  Manager manager;
  int first = -1;
  int second = -1;
  auto both = list(passed("gpu0.shared", "open", first));
  both.push_back(passed("gpu0.shared", "open", second));
  FdStore store(std::move(both), manager.tell());
  const auto taken =
      store.take("gpu0.shared", "open", [second](int descriptor) { return descriptor == second; });
  CHECK(taken.get() == second);
  CHECK_FALSE(is_open(first));
  CHECK(store.keep("gpu0.shared", "open", taken.get()));
  CHECK(manager.take() == std::vector{k_removed, k_put});
}

TEST_CASE("one that a living gate has too is only closed here") {
  Manager manager;
  int number = -1;
  FdStore store(list(passed("gpu0.shared", "open", number)), manager.tell());
  const UniqueFd of_the_gate(::fcntl(number, F_DUPFD_CLOEXEC, 0));
  CHECK(store.keep("gpu0.shared", "open", of_the_gate.get()));
  CHECK_FALSE(is_open(number));
  CHECK(manager.take().empty());
}

TEST_CASE("what nobody claims goes, unless it may still be wanted") {
  Manager manager;
  int gone = -1;
  int wanted = -1;
  auto both = list(passed("gpu0.shared", "open", gone));
  both.push_back(passed("gpu1.shared", "open", wanted));
  FdStore store(std::move(both), manager.tell());
  store.drop_unclaimed_unless(
      [](const std::string& instance, const std::string&) { return instance == "gpu1.shared"; });
  CHECK(manager.take() == std::vector{k_removed});
  CHECK_FALSE(is_open(gone));
  CHECK(is_open(wanted));
}

TEST_CASE("no more are stored than can come back") {
  Manager manager;
  FdStore store({}, manager.tell());
  const auto socket = a_socket();
  for (std::size_t i = 0; i < k_most_stored; ++i) {
    REQUIRE(store.keep("gpu0.shared", "s" + std::to_string(i), socket.get()));
  }
  CHECK_FALSE(store.keep("gpu0.shared", "more", socket.get()));
  store.drop("gpu0.shared", "s7");
  CHECK(store.keep("gpu0.shared", "more", socket.get()));
}
