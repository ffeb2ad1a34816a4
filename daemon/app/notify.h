// systemd's readiness protocol (sd_notify(3)): a datagram to the socket named by NOTIFY_SOCKET.
// Written out, since libsystemd would be a dependency for ten lines. Without the variable nothing
// happens. Threading: any.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

namespace mps::app {

// E.g. "READY=1\nSTATUS=3 instances", with a descriptor beside it where there is one (>= 0). Never
// blocks; false where there is no manager, or it has too much to read just now.
bool notify(std::string_view state, int descriptor = -1);

// How often to send "WATCHDOG=1": a quarter of WATCHDOG_USEC, where WATCHDOG_PID is ours.
std::optional<std::chrono::microseconds> watchdog_interval();

}  // namespace mps::app
