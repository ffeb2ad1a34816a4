// An instance's entrance with a gate: each program that comes through the share is asked about at
// the desk, and let in to the daemon while that serves.
//
// Threading: the supervisor's executor. Made by make_shared.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "admission/controller.h"
#include "admission/server.h"
#include "app/fd_store.h"
#include "app/newcomers.h"
#include "app/share_programs.h"
#include "gate/link.h"
#include "gate/opening.h"
#include "gate/share_socket.h"
#include "instance/entrance.h"
#include "instance/layout.h"
#include "instance/pipe_place.h"
#include "instance/snapshot.h"

namespace mps::app {

struct GatedEntranceSettings {
  admission::Place place;
  instance::Layout layout;
  std::filesystem::path gate_program;
  std::vector<std::string> gate_environment;
  std::chrono::milliseconds wait{60000};      // for the daemon, once let in; 10 s at least
  std::shared_ptr<FdStore> store{};           // holds the shares' sockets too; none: it does not
  std::shared_ptr<SharePrograms> programs{};  // that containers find in it; none: there are none
  std::string visible_devices{};              // as device_is() has it
};

class GatedEntrance final : public instance::Entrance,
                            public gate::Handler,
                            public std::enable_shared_from_this<GatedEntrance> {
 public:
  using Say = std::function<void(const std::string& kind, const std::string& instance,
                                 const std::string& message)>;

  GatedEntrance(const boost::asio::any_io_executor& executor, GatedEntranceSettings settings,
                std::shared_ptr<admission::Controller> controller,
                std::shared_ptr<admission::AdmissionServer> server, Say say);
  ~GatedEntrance() override { leave(); }

  void start();
  // What a client says first. Until it is known nobody is greeted: they wait.
  void set_opening(const gate::Opening& opening);
  // What the desk is to know of the instance. `why`: of a failed one. `out`: why its device is out
  // of service; empty: it is not.
  void instance_is(instance::State state, const std::string& why, const std::string& out);
  // The device as it is now. `visible`: what its clients' CUDA_VISIBLE_DEVICES has to be.
  void device_is(const policy::DeviceFacts& device, const std::string& visible);
  // A share made on demand, in its folder, which is made where it is not there. `fresh`: nobody has
  // listened there before, not even a gate of an earlier supervisor. A share that is gone stays
  // here too, so that who has its folder mounted is refused.
  Result<void> add_share(const std::string& id, bool fresh);
  // Nobody has its folder mounted any more.
  void drop_share(const std::string& id);
  [[nodiscard]] const std::string& instance() const { return settings_.place.instance; }
  [[nodiscard]] const instance::Layout& layout() const { return settings_.layout; }

  // Each newcomer gets its own limits from the server, in turn. Before start().
  void limit_newcomers(const std::shared_ptr<instance::Actor>& actor);
  // Something changed at the instance.
  void look() {
    if (newcomers_) newcomers_->look();
  }
  // The gate goes on: it holds newcomers until the next supervisor comes.
  void leave();
  // Another one of this instance takes over now, and finds the gate.
  void give_way();
  // There will be none: it refuses them.
  void leave_for_good();

  // instance::Entrance
  void daemon_is_at(std::shared_ptr<const instance::PipePlace> place) override {
    daemon_place_ = std::move(place);
  }
  Result<bool> open(const std::filesystem::path& control) override;
  Result<void> close() override;
  [[nodiscard]] bool leads_to(const std::filesystem::path&) const override { return false; }
  void greeting(std::string) override {}
  [[nodiscard]] bool wants_greeting() const override { return false; }
  [[nodiscard]] instance::GateState gate() const override;

  // gate::Handler
  void gate_stands(pid_t pid, bool adopted) override;
  void gate_lost(const std::string& how) override;
  void is_inside(gate::Peer peer) override;
  void all_listed() override;
  void asks(gate::Peer peer) override;
  void entered(std::uint64_t peer) override;
  void not_entered(std::uint64_t peer, int error) override;
  void gone(std::uint64_t peer) override;
  void left(std::uint64_t peer) override;
  void refused(pid_t pid, uid_t uid, gate::Refusal why, unsigned times) override;

 private:
  struct Guest {  // a program at the gate
    pid_t pid = 0;
    std::optional<admission::RequestId> request{};  // not decided yet
    std::optional<share::SlotId> slot{};
    std::optional<std::chrono::steady_clock::time_point> let_in_since{};  // and not inside yet
  };
  void told(std::uint64_t peer, const admission::Verdict& verdict);
  void forget(std::uint64_t peer);
  void give_up_on(std::uint64_t peer, const std::string& why);
  void tell_desk();
  [[nodiscard]] admission::ServedDevice served_device() const {
    const auto& id = settings_.place.instance;
    return {settings_.place.device.uuid, id.substr(0, id.find('.')), settings_.visible_devices};
  }
  [[nodiscard]] share::Door door() const;
  struct Sockets {  // of a share
    gate::SharePlace control;
    gate::SharePlace admission;
    bool answers = false;  // at admission.sock
  };
  [[nodiscard]] Sockets sockets_of(const std::string& share,
                                   const std::filesystem::path& folder) const;
  Result<bool> keep_listening();
  Result<bool> keep_listening(const std::string& share, Sockets& sockets);
  Result<UniqueFd> socket_for(const std::string& share, const Sockets& sockets);
  void keep_in_store(const std::string& share);
  void keep_programs(const std::string& share, const Sockets& sockets);
  void open_admission_socket(const std::string& share, Sockets& sockets);
  void close_admission_socket(const std::string& share, Sockets& sockets);
  void serve();
  void try_again_soon();
  void let_in_again();

  boost::asio::any_io_executor executor_;
  GatedEntranceSettings settings_;
  std::shared_ptr<admission::Controller> controller_;
  std::shared_ptr<admission::AdmissionServer> server_;
  Say say_;
  std::shared_ptr<gate::Link> link_;
  std::map<std::string, Sockets> shares_;
  boost::asio::steady_timer again_;
  bool again_soon_ = false;
  std::map<std::uint64_t, Guest> guests_;
  std::shared_ptr<const instance::PipePlace> daemon_place_;
  instance::State state_ = instance::State::starting;
  std::string why_;
  std::string device_out_;
  bool open_ = false;
  bool listed_ = false;
  std::optional<gate::Opening> opening_{};
  bool left_ = false;
  std::shared_ptr<Newcomers> newcomers_;  // none: the instance's limits are everybody's
  std::size_t found_inside_ = 0;
  std::uint64_t generation_ = 0;
  admission::Refusals refusals_;
};

}  // namespace mps::app
