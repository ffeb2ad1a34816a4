// The one thread that calls NVML. A call that outlives its deadline is given up, not interrupted
// (nothing can); until it returns, every later call is turned away at once, so that no more than
// this one thread is ever stuck.
//
// Threading: everything here is called on the executor; only the work runs on the thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "base/result.h"
#include "base/text.h"
#include "device/nvml_library.h"

namespace mps::device {

class NvmlWorker : public std::enable_shared_from_this<NvmlWorker> {
 public:
  using Completion = std::function<void()>;
  using Work = std::function<Completion(nvml::Library&)>;
  using Id = std::uint64_t;

  explicit NvmlWorker(boost::asio::any_io_executor executor) : executor_(std::move(executor)) {}

  // The work runs on the thread, what it returns on the executor. nullopt: a call is stuck, or too
  // many wait, or there is no thread to be had.
  std::optional<Id> submit(Work work);
  // The caller waits no longer: what has not begun never will, what has begun is stuck.
  void give_up(Id id);
  // Nothing reaches the executor after this. A thread that is in NVML is left to itself.
  void close();

 private:
  struct Job {
    Id id = 0;
    Work work;
  };

  bool start_thread();
  void run();

  std::mutex mutex_;  // for all below but thread_
  std::condition_variable wake_;
  std::condition_variable ended_changed_;
  std::optional<boost::asio::any_io_executor> executor_;  // none after close()
  std::deque<Job> queue_;
  Id last_id_ = 0;
  bool running_ = false;
  bool stuck_ = false;
  bool ended_ = false;
  nvml::Library library_;  // the thread's alone
  std::thread thread_;
};

// Runs `work` on the thread and waits for its answer, for `timeout` at most.
template <typename T>
boost::asio::awaitable<Result<T>> call_nvml(std::shared_ptr<NvmlWorker> worker,
                                            std::chrono::milliseconds timeout,
                                            std::function<Result<T>(nvml::Library&)> work,
                                            Error no_answer) {
  struct Call {
    boost::asio::steady_timer deadline;
    std::optional<Result<T>> answer;
  };
  const auto executor = co_await boost::asio::this_coro::executor;
  auto call = std::make_shared<Call>(Call{boost::asio::steady_timer(executor, timeout), {}});
  // The thread may outlive the executor, and so must never own the timer: hence weak.
  NvmlWorker::Work job = [weak = std::weak_ptr<Call>(call),
                          work](nvml::Library& library) -> NvmlWorker::Completion {
    std::optional<Result<T>> answer;
    try {
      answer = work(library);
    } catch (const std::exception& error) {
      answer = Result<T>(Error{error.what()});
    }
    return [weak, answer] {
      if (const auto waiting = weak.lock()) {
        waiting->answer = answer;
        waiting->deadline.cancel();
      }
    };
  };
  const auto id = worker->submit(std::move(job));
  if (!id) co_return no_answer;
  co_await call->deadline.async_wait(boost::asio::as_tuple(boost::asio::use_awaitable));
  if (call->answer) co_return *call->answer;
  worker->give_up(*id);
  co_return no_answer;
}

}  // namespace mps::device
