// The folders of shares made on demand: there before anybody can hear of the share, and kept, with
// a listener that refuses, for as long as somebody has a folder of a share that is gone mounted
// (CUDA runs without limits where it finds nothing). Where it cannot be known who has, they stay.
//
// Threading: the supervisor's executor; what may take long is done on a thread of its own.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "admission/controller.h"
#include "app/gated_entrance.h"
#include "base/result.h"
#include "process/mounts.h"
#include "process/slow_work.h"

namespace mps::app {

class ShareKeeper : public std::enable_shared_from_this<ShareKeeper> {
 public:
  using Mounted = std::function<std::vector<process::Mounted>(
      const std::vector<std::filesystem::path>& folders)>;  // on the other thread
  struct Settings {
    std::chrono::milliseconds look_every{10000};
    std::size_t most = 256;  // of an instance, those that are gone and still mounted too
    Mounted mounted;
  };

  ShareKeeper(const boost::asio::any_io_executor& executor, Settings settings,
              std::shared_ptr<admission::Controller> controller, GatedEntrance::Say say);
  ~ShareKeeper() { close(); }
  ShareKeeper(const ShareKeeper&) = delete;
  ShareKeeper& operator=(const ShareKeeper&) = delete;

  // Before the gate starts: it gets the shares of its instance, and the folders that are left.
  void attach(const std::shared_ptr<GatedEntrance>& gate);
  // An Error: there is none, and what was made of it is gone again, or will be.
  Result<share::Share> create(const admission::ShareWish& wish);
  // Soon: a share has ended.
  void look_soon();
  void close();

 private:
  struct Folder {  // of a share that is gone
    std::string instance;
    std::string id;
    std::filesystem::path path;   // in the instance's `shares`
    std::filesystem::path aside;  // where nobody finds it, while it is looked at once more
  };

  [[nodiscard]] std::shared_ptr<GatedEntrance> gate_of(const std::string& instance) const;
  [[nodiscard]] std::vector<Folder> folders_of_the_gone() const;
  [[nodiscard]] std::uint64_t next_number() const;
  void look();
  void set_alarm(std::chrono::milliseconds delay);
  static std::vector<Folder> remove_unmounted(const std::vector<Folder>& folders,
                                              const Mounted& mounted);
  void dropped(const std::vector<Folder>& removed);

  boost::asio::any_io_executor executor_;
  Settings settings_;
  std::shared_ptr<admission::Controller> controller_;
  GatedEntrance::Say say_;
  std::map<std::string, std::weak_ptr<GatedEntrance>> gates_;  // by instance
  process::SlowWork looking_;
  boost::asio::steady_timer alarm_;
  bool looking_now_ = false;
  bool closed_ = false;
};

}  // namespace mps::app
