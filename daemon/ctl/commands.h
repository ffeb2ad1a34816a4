// What each subcommand does, once its arguments are known. Each returns the exit status.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>

#include "ctl/client.h"

namespace mps::ctl {

enum class Format { table, wide, json, yaml };

enum ExitStatus : int { k_done = 0, k_failed = 1, k_usage = 2, k_unreachable = 3 };

struct Console {
  std::string socket;
  Format format = Format::table;
  std::ostream& out;
  std::ostream& err;
};

struct EventsOptions {
  bool follow = false;
  bool retry = false;
  std::optional<std::uint64_t> since;
  std::string kind;
  std::string instance;
  std::optional<std::uint64_t> limit;
};

struct ClientsOptions {
  std::string instance;
  bool watch = false;
  std::chrono::milliseconds interval{1000};
};

struct AdmissionsOptions {
  std::string subject;  // a namespace
  bool waiting = false;
  bool use = false;
};

struct DoctorPlaces {
  std::string config = "/etc/mps-supervisor/supervisor.yaml";
  bool config_given = false;
};

int show_status(const Console& console);
int show_devices(const Console& console);
int show_instances(const Console& console);
int show_clients(const Console& console, const ClientsOptions& options);
int show_admissions(const Console& console, const AdmissionsOptions& options);
int show_events(const Console& console, const EventsOptions& options);
int carry_out(const Console& console, const std::string& verb, const std::string& instance,
              bool force);
int terminate(const Console& console, const std::string& pid);
int show_version(const Console& console);
int doctor(const Console& console, const DoctorPlaces& places);

}  // namespace mps::ctl
