// A thread that no signal is ever delivered to: those are the reactor's.
#pragma once

#include <functional>
#include <thread>

namespace mps::device {

// Not joinable: there is no thread to be had now.
std::thread start_quiet_thread(std::function<void()> run);

}  // namespace mps::device
