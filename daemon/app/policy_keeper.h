// Keeps the policies: watches their directory, reads it again when something changed, and keeps
// what was last good over restarts (in the state directory). What follows for instances is not its
// business.
//
// Threading: the executor given; files are read and parsed on a thread of its own.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "policy/generation.h"
#include "process/directory_watch.h"

namespace mps::app {

// What one reading of the directory came to.
struct PolicyReading {
  std::shared_ptr<const policy::Generation> generation;  // never null
  std::string error;  // the directory could not be read; then the generation is the one before
};

// Reads the directory. Pure but for the reading; any thread.
PolicyReading read_policies(const std::filesystem::path& directory,
                            const std::shared_ptr<const policy::Generation>& before,
                            const std::vector<policy::DeviceFacts>& devices);

// What changed from one reading to the next, as events: kind and message.
struct PolicyNews {
  std::string kind;
  std::string message;
  bool operator==(const PolicyNews&) const = default;
};
std::vector<PolicyNews> policy_news(const PolicyReading& before, const PolicyReading& now,
                                    const std::filesystem::path& directory);

// The last good texts, and the generation's number: enough to go on from after a restart.
std::string to_store(const policy::Generation& generation);
Result<std::shared_ptr<const policy::Generation>> from_store(const std::string& text);

class PolicyKeeper : public std::enable_shared_from_this<PolicyKeeper> {
 public:
  struct Settings {
    std::filesystem::path directory;
    std::filesystem::path store;  // a file
  };
  using Say = std::function<void(const std::string& kind, const std::string& message)>;
  using OnChange = std::function<void()>;  // another generation is in force

  PolicyKeeper(const boost::asio::any_io_executor& executor, Settings settings, Say say);
  ~PolicyKeeper();
  PolicyKeeper(const PolicyKeeper&) = delete;
  PolicyKeeper& operator=(const PolicyKeeper&) = delete;

  // Takes up what was stored, then reads the directory for the first time, waits for that at most
  // `limit`, and watches from then on.
  boost::asio::awaitable<void> start(std::vector<policy::DeviceFacts> devices,
                                     std::chrono::milliseconds limit);
  void on_change(OnChange listener) { changed_ = std::move(listener); }
  // Devices are what policies are checked against: where they changed, all is checked again.
  void set_devices(std::vector<policy::DeviceFacts> devices);
  void close();

  [[nodiscard]] const PolicyReading& reading() const { return reading_; }
  [[nodiscard]] std::chrono::system_clock::time_point changed_at() const { return changed_at_; }

 private:
  struct Done {
    PolicyReading reading;
    std::string store_trouble;
  };

  void load_store();
  void read_again();
  void take(Done done);
  void confirm_later();
  [[nodiscard]] bool lost_files(const policy::Generation& fresh) const;

  boost::asio::any_io_executor executor_;
  Settings settings_;
  Say say_;
  OnChange changed_;
  std::unique_ptr<boost::asio::thread_pool> worker_;
  std::unique_ptr<process::DirectoryWatch> watch_;
  boost::asio::steady_timer first_;    // cancelled by the first reading
  boost::asio::steady_timer confirm_;  // a file that is gone is looked for once more
  PolicyReading reading_;
  std::chrono::system_clock::time_point changed_at_;
  std::vector<policy::DeviceFacts> devices_;
  std::string watch_trouble_;
  std::string store_trouble_;
  bool read_once_ = false;
  bool reading_now_ = false;
  bool again_ = false;
  bool confirming_ = false;
  bool closed_ = false;
};

}  // namespace mps::app
