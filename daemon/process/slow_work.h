// Work that may hang (files on a network, a disk that fails): one job after the other, in order, on
// a thread of its own. Nobody waits for that thread without a limit: closed while a job hangs, it
// is left behind with what the job holds, and ends when the job does or with the process.
//
// Threading: all calls on the executor's thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <chrono>
#include <functional>
#include <memory>

namespace mps::process {

class SlowWork {
 public:
  using Then = std::function<void()>;
  // Runs on the other thread, so it touches only what it holds, and does not throw. What it returns
  // runs on the executor, unless close() came first.
  using Job = std::function<Then()>;

  explicit SlowWork(const boost::asio::any_io_executor& executor);
  ~SlowWork();  // as close()
  SlowWork(const SlowWork&) = delete;
  SlowWork& operator=(const SlowWork&) = delete;

  void run(Job job);
  // Waits here and now until every job has been done; false if that takes longer.
  bool finish(std::chrono::milliseconds limit);
  // Jobs that have not begun are dropped, and nothing runs on the executor any more.
  void close();

 private:
  struct Shared;
  static void work(const std::shared_ptr<Shared>& shared);

  std::shared_ptr<Shared> shared_;
  bool has_thread_ = false;
};

}  // namespace mps::process
