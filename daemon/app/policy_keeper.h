// Keeps the policies: watches their directory, reads it again when something changed, and keeps
// what was last good over restarts (in the state directory). What follows for instances is not its
// business.
//
// A file that is gone is only taken for removed when it has stayed away for a moment: editors move
// the old one away before they write the new one. Until then it says what it said.
//
// Threading: the executor given; files are looked at, read and parsed on one thread of its own, and
// stored on another. Neither is ever waited for without a limit.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "app/policy_reading.h"
#include "base/result.h"
#include "policy/generation.h"
#include "process/directory_watch.h"
#include "process/slow_work.h"

namespace mps::app {

class PolicyKeeper : public std::enable_shared_from_this<PolicyKeeper> {
 public:
  struct Settings {
    std::filesystem::path directory;
    std::filesystem::path store;                                       // a file
    std::chrono::milliseconds store_again = std::chrono::seconds(60);  // after it failed
    std::function<PolicyReading(const ReadingOrder&)> read = read_policies;
  };
  using Say = std::function<void(const std::string& kind, const std::string& message)>;
  using OnChange = std::function<void()>;  // another generation is in force

  PolicyKeeper(const boost::asio::any_io_executor& executor, Settings settings, Say say);
  ~PolicyKeeper();
  PolicyKeeper(const PolicyKeeper&) = delete;
  PolicyKeeper& operator=(const PolicyKeeper&) = delete;

  // Takes up what was stored, then reads the directory for the first time, waits for that at most
  // `limit`, and watches from then on. From then on, too, what takes longer than `limit` is said.
  boost::asio::awaitable<void> start(std::vector<policy::DeviceFacts> devices,
                                     std::chrono::milliseconds limit);
  void on_change(OnChange listener) { changed_ = std::move(listener); }
  // Devices are what policies are checked against: where they changed, all is checked again.
  void set_devices(std::vector<policy::DeviceFacts> devices);
  // Waits a moment for what is being stored.
  void close();

  [[nodiscard]] const PolicyReading& reading() const { return reading_; }
  [[nodiscard]] std::chrono::system_clock::time_point changed_at() const { return changed_at_; }

 private:
  void load_store();
  void read_again();
  void take(PolicyReading fresh);
  void take_gone(const PolicyReading& fresh);
  void look_elsewhere(process::DirectoryWatchSettings::Job job);
  void begin_slow();
  void limit_slow();
  bool end_slow();
  void too_slow();
  [[nodiscard]] bool is_to_be_stored() const;
  void store();
  void stored(const std::shared_ptr<const policy::Generation>& generation,
              const std::string& trouble);

  boost::asio::any_io_executor executor_;
  Settings settings_;
  Say say_;
  OnChange changed_;
  process::SlowWork reader_;
  process::SlowWork writer_;
  std::unique_ptr<process::DirectoryWatch> watch_;
  boost::asio::steady_timer first_;        // cancelled by the first reading, or when that is slow
  boost::asio::steady_timer confirm_;      // files that are gone are looked for once more
  boost::asio::steady_timer slow_;         // what is being done on the reader's thread takes long
  boost::asio::steady_timer store_again_;  // after it failed
  std::chrono::milliseconds limit_{};
  PolicyReading reading_;
  std::chrono::system_clock::time_point changed_at_;
  std::vector<policy::DeviceFacts> devices_;
  GoneFiles gone_;  // what is missing, since when; in force still
  // What the store is known to hold; nothing: not known.
  std::shared_ptr<const policy::Generation> stored_;
  std::shared_ptr<const policy::Generation> storing_;  // nothing: nothing is being stored
  std::string watch_trouble_;
  std::string store_trouble_;
  std::size_t looking_ = 0;  // jobs on the reader's thread
  bool is_slow_ = false;     // and that was said
  bool read_once_ = false;
  bool reading_now_ = false;
  bool again_ = false;
  bool closed_ = false;
};

}  // namespace mps::app
