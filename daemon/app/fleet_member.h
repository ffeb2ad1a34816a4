// One instance as the fleet sees it: so little that a test can be one.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "app/gated_entrance.h"
#include "instance/actor.h"

namespace mps::app {

class FleetMember {
 public:
  virtual ~FleetMember() = default;

  // As the Actor's own.
  virtual void start(const std::optional<instance::FoundDaemon>& found) = 0;
  virtual void drain(const instance::FoundDaemon& found) = 0;
  virtual std::optional<instance::VerbRefused> ask(const instance::Input& verb) = 0;
  virtual void terminate(std::vector<instance::ClientProcess> clients, instance::Behalf behalf,
                         instance::Actor::Terminated told) = 0;
  [[nodiscard]] virtual instance::Snapshot snapshot() const = 0;
  [[nodiscard]] virtual instance::State state() const = 0;
  [[nodiscard]] virtual bool daemon_runs() const = 0;
  [[nodiscard]] virtual bool waits_for(pid_t client) const = 0;
  virtual void on_change(std::function<void()> listener) = 0;
  // Lets go of everything but the listener that refuses, which goes with the last who holds it.
  virtual void close() = 0;
  // Another instance takes over its directory now.
  virtual void give_way() {}
};

class ActorMember final : public FleetMember {
 public:
  // `gate`: its entrance, where it has one.
  explicit ActorMember(std::shared_ptr<instance::Actor> actor,
                       std::shared_ptr<GatedEntrance> gate = nullptr)
      : actor_(std::move(actor)), gate_(std::move(gate)) {
    on_change({});
  }

  void start(const std::optional<instance::FoundDaemon>& found) override {
    if (gate_) gate_->start();
    actor_->start(found);
  }
  void drain(const instance::FoundDaemon& found) override {
    if (gate_) gate_->start();
    actor_->drain(found);
  }
  std::optional<instance::VerbRefused> ask(const instance::Input& verb) override {
    return actor_->ask(verb);
  }
  void terminate(std::vector<instance::ClientProcess> clients, instance::Behalf behalf,
                 instance::Actor::Terminated told) override {
    actor_->terminate(std::move(clients), behalf, std::move(told));
  }
  [[nodiscard]] instance::Snapshot snapshot() const override { return actor_->snapshot(); }
  [[nodiscard]] instance::State state() const override { return actor_->state(); }
  [[nodiscard]] bool daemon_runs() const override { return actor_->daemon_runs(); }
  [[nodiscard]] bool waits_for(pid_t client) const override { return actor_->waits_for(client); }
  void on_change(std::function<void()> listener) override {
    // Not to be kept alive by what it calls.
    actor_->on_change(
        [actor = std::weak_ptr(actor_), gate = gate_, listener = std::move(listener)] {
          const auto alive = actor.lock();
          if (gate && alive) {
            gate->instance_is(alive->state(), alive->last_error(), alive->device_out());
          }
          if (gate) gate->look();
          if (listener) listener();
        });
  }
  void close() override { actor_->close(); }
  void give_way() override {
    if (gate_) gate_->give_way();
  }

 private:
  std::shared_ptr<instance::Actor> actor_;
  std::shared_ptr<GatedEntrance> gate_;
};

}  // namespace mps::app
