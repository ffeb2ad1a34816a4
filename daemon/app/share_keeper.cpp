#include "app/share_keeper.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/text.h"

namespace mps::app {

namespace fs = std::filesystem;

namespace {

constexpr std::chrono::milliseconds k_soon{200};
constexpr std::string_view k_aside = ".gone";

std::optional<std::uint64_t> number_of(std::string_view id) {
  if (!id.starts_with('s')) return std::nullopt;
  return parse_number<std::uint64_t>(id.substr(1));
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// One that an earlier supervisor was looking at once more when it ended.
void put_back(const instance::Layout& layout) {
  for (const auto& name : names_in(layout.private_)) {
    if (!name.ends_with(k_aside)) continue;
    const auto id = name.substr(0, name.size() - k_aside.size());
    std::error_code error;
    if (number_of(id)) fs::rename(layout.private_ / name, layout.shares / id, error);
  }
}

}  // namespace

ShareKeeper::ShareKeeper(const boost::asio::any_io_executor& executor, Settings settings,
                         std::shared_ptr<admission::Controller> controller, GatedEntrance::Say say)
    : executor_(executor),
      settings_(std::move(settings)),
      controller_(std::move(controller)),
      say_(std::move(say)),
      looking_(executor),
      alarm_(executor) {}

void ShareKeeper::close() {
  closed_ = true;
  alarm_.cancel();
  looking_.close();
}

std::shared_ptr<GatedEntrance> ShareKeeper::gate_of(const std::string& instance) const {
  const auto found = gates_.find(instance);
  return found == gates_.end() ? nullptr : found->second.lock();
}

void ShareKeeper::attach(const std::shared_ptr<GatedEntrance>& gate) {
  gates_[gate->instance()] = gate;
  put_back(gate->layout());
  const auto add = [this, &gate](const std::string& id) {
    if (auto added = gate->add_share(id, false); !added) {
      say_("share_failed", gate->instance(), "share " + id + ": " + added.error().message);
    }
  };
  for (const auto& [number, share] : controller_->shares()) {
    if (share.instance == gate->instance()) add(share.id);
  }
  for (const auto& name : names_in(gate->layout().shares)) {
    if (number_of(name)) add(name);
  }
  look_soon();
}

// Also beyond those whose records were lost.
std::uint64_t ShareKeeper::next_number() const {
  std::uint64_t next = 1;
  for (const auto& [instance, weak] : gates_) {
    const auto gate = weak.lock();
    if (!gate) continue;
    for (const auto& name : names_in(gate->layout().shares)) {
      next = std::max(next, number_of(name).value_or(0) + 1);
    }
  }
  return next;
}

Result<share::Share> ShareKeeper::create(const admission::ShareWish& wish) {
  const auto gate = gate_of(wish.instance);
  if (!gate) return Error{wish.instance + " has no gate"};
  if (names_in(gate->layout().shares).size() >= settings_.most) {
    return Error{wish.instance + " has " + std::to_string(settings_.most) +
                 " shares, which is the most that it may have"};
  }
  const auto made = controller_->make_share(wish, next_number());
  if (auto added = gate->add_share(made.id, true); !added) {
    controller_->close_share(made.number);
    return Error{"share " + made.id + " cannot be made: " + added.error().message};
  }
  return made;
}

void ShareKeeper::look_soon() {
  set_alarm(k_soon);
}

void ShareKeeper::set_alarm(std::chrono::milliseconds delay) {
  if (closed_) return;
  alarm_.expires_after(delay);
  alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (!error && self && !self->closed_) self->look();
  });
}

std::vector<ShareKeeper::Folder> ShareKeeper::folders_of_the_gone() const {
  std::vector<Folder> folders;
  for (const auto& [instance, weak] : gates_) {
    const auto gate = weak.lock();
    if (!gate) continue;
    const auto& layout = gate->layout();
    for (const auto& name : names_in(layout.shares)) {
      if (!number_of(name) ||
          admission::find_share(controller_->shares(), instance, name) != nullptr)
        continue;
      folders.push_back(
          {instance, name, layout.shares / name, layout.private_ / (name + std::string(k_aside))});
    }
  }
  return folders;
}

void ShareKeeper::look() {
  auto folders = folders_of_the_gone();
  if (folders.empty() || std::exchange(looking_now_, true)) return;
  looking_.run([folders = std::move(folders), mounted = settings_.mounted,
                weak = weak_from_this()]() -> process::SlowWork::Then {
    auto removed = remove_unmounted(folders, mounted);
    return [weak, removed = std::move(removed)] {
      const auto self = weak.lock();
      if (self && !self->closed_) self->dropped(removed);
    };
  });
}

// Looked at twice, the second time where nobody can mount it any more: who did so in between has
// it back.
std::vector<ShareKeeper::Folder> ShareKeeper::remove_unmounted(const std::vector<Folder>& folders,
                                                               const Mounted& mounted) {
  std::vector<fs::path> paths;
  paths.reserve(folders.size());
  for (const auto& folder : folders) paths.push_back(folder.path);
  const auto first = mounted(paths);
  std::vector<Folder> aside;
  paths.clear();
  std::error_code error;
  for (std::size_t i = 0; i < folders.size(); ++i) {
    if (first.at(i) != process::Mounted::no) continue;
    fs::rename(folders[i].path, folders[i].aside, error);
    if (error) continue;
    aside.push_back(folders[i]);
    paths.push_back(folders[i].aside);
  }
  if (aside.empty()) return {};
  const auto second = mounted(paths);
  std::vector<Folder> removed;
  for (std::size_t i = 0; i < aside.size(); ++i) {
    if (second.at(i) != process::Mounted::no) {
      fs::rename(aside[i].aside, aside[i].path, error);
      continue;
    }
    fs::remove_all(aside[i].aside, error);
    if (!error) removed.push_back(aside[i]);
  }
  return removed;
}

void ShareKeeper::dropped(const std::vector<Folder>& removed) {
  looking_now_ = false;
  for (const auto& folder : removed) {
    if (const auto gate = gate_of(folder.instance)) gate->drop_share(folder.id);
    say_("share_removed", folder.instance,
         "share " + folder.id + ": nobody has its folder mounted any more, and it was removed");
  }
  if (!folders_of_the_gone().empty()) set_alarm(settings_.look_every);
}

}  // namespace mps::app
