#include "process/slow_work.h"

#include <boost/asio/post.hpp>
#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

namespace mps::process {

struct SlowWork::Shared {
  explicit Shared(boost::asio::any_io_executor given) : executor(std::move(given)) {}

  boost::asio::any_io_executor executor;  // may be gone once it is closed
  std::mutex mutex;                       // of what follows
  std::condition_variable changed;
  std::deque<Job> jobs;
  bool busy = false;
  bool closed = false;
};

SlowWork::SlowWork(const boost::asio::any_io_executor& executor)
    : shared_(std::make_shared<Shared>(executor)) {}

SlowWork::~SlowWork() {
  close();
}

void SlowWork::work(const std::shared_ptr<Shared>& shared) {
  std::unique_lock lock(shared->mutex);
  while (true) {
    shared->changed.wait(lock, [&shared] { return shared->closed || !shared->jobs.empty(); });
    if (shared->closed) return;
    auto job = std::move(shared->jobs.front());
    shared->jobs.pop_front();
    shared->busy = true;
    lock.unlock();
    auto then = job();
    job = nullptr;
    lock.lock();
    shared->busy = false;
    // Under the lock: whoever closes may end the executor next.
    if (!shared->closed) boost::asio::post(shared->executor, std::move(then));
    shared->changed.notify_all();
  }
}

void SlowWork::run(Job job) {
  {
    const std::lock_guard lock(shared_->mutex);
    if (shared_->closed) return;
    shared_->jobs.push_back(std::move(job));
  }
  shared_->changed.notify_all();
  if (std::exchange(has_thread_, true)) return;
  // Signals are for the other thread.
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  std::thread([shared = shared_] { work(shared); }).detach();
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

bool SlowWork::finish(std::chrono::milliseconds limit) {
  std::unique_lock lock(shared_->mutex);
  return shared_->changed.wait_for(lock, limit,
                                   [this] { return shared_->jobs.empty() && !shared_->busy; });
}

void SlowWork::close() {
  const std::lock_guard lock(shared_->mutex);
  shared_->closed = true;
  shared_->jobs.clear();
  shared_->changed.notify_all();
}

}  // namespace mps::process
