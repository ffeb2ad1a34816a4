#include "app/gated_entrance.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/text.h"

namespace mps::app {

using instance::State;
using std::chrono::steady_clock;

namespace {

constexpr std::chrono::milliseconds k_again{50};
// For a daemon that is busy: it takes one at a time.
constexpr std::chrono::milliseconds k_least_patience{10000};
const char* const k_open = "open";

// No client says this: whoever has a gate with it is refused, in the daemon's own words.
gate::Opening nobody(gate::Opening opening) {
  opening.messages = {std::string("\0nobody", 7)};
  return opening;
}

std::string opening_words(gate::Refusal why) {
  return std::string("a process that is no CUDA program of this node's driver was refused: ") +
         to_string(why);
}

}  // namespace

GatedEntrance::GatedEntrance(const boost::asio::any_io_executor& executor,
                             GatedEntranceSettings settings,
                             std::shared_ptr<admission::Controller> controller,
                             std::shared_ptr<admission::AdmissionServer> server, Say say)
    : executor_(executor),
      settings_(std::move(settings)),
      controller_(std::move(controller)),
      server_(std::move(server)),
      say_(std::move(say)),
      again_(executor) {
  shares_.emplace(k_open, sockets_of(k_open, settings_.layout.open));
}

GatedEntrance::Sockets GatedEntrance::sockets_of(const std::string& share,
                                                 const std::filesystem::path& folder) const {
  const auto& keep = settings_.layout.private_;
  return {{folder / "pipe", keep / (share + ".socket")},
          {folder, keep / (share + ".admission"), "admission.sock"}};
}

void GatedEntrance::start() {
  link_ = std::make_shared<gate::Link>(
      executor_,
      gate::Link::Settings{settings_.place.instance, settings_.gate_program,
                           settings_.layout.private_ / "gate.sock", settings_.gate_environment},
      *this);
  tell_desk();
  // Its directory is to be there before its socket is.
  if (const auto made = settings_.layout.make(); !made) {
    say_("gate_failed", settings_.place.instance, made.error().message);
  }
  if (opening_) link_->set_up(opening_->greeting, opening_->messages);
  link_->start();
  for (auto& [share, sockets] : shares_) {
    open_admission_socket(share, sockets);
    keep_programs(share, sockets);
  }
}

// Made anew by each supervisor: while there is none, whoever asks finds nobody, and tries again.
void GatedEntrance::open_admission_socket(const std::string& share, Sockets& sockets) {
  auto socket = gate::listen_in(sockets.admission);
  auto added = socket ? server_->add_listener(settings_.place.instance, share, std::move(*socket),
                                              served_device())
                      : Result<void>(socket.error());
  sockets.answers = added.has_value();
  if (!added && refusals_.count("admission.sock of " + share, steady_clock::now())) {
    say_("admission_socket_failed", settings_.place.instance,
         "programs cannot ask at admission.sock: " + added.error().message);
  }
}

void GatedEntrance::close_admission_socket(const std::string& share, Sockets& sockets) {
  if (std::exchange(sockets.answers, false)) {
    server_->remove_listener(settings_.place.instance, share);
  }
}

Result<void> GatedEntrance::add_share(const std::string& id, bool fresh) {
  if (left_ || shares_.contains(id)) return {};
  if (auto made = settings_.layout.make_share(id); !made) return made;
  auto sockets = sockets_of(id, settings_.layout.shares / id);
  if (fresh && link_) {
    // Now, and not when the gate stands: whoever comes before that is to wait.
    auto socket = gate::listen_in(sockets.control);
    if (!socket) return socket.error();
    link_->listen(id, std::move(*socket));
    keep_in_store(id);
  }
  auto& kept = shares_.emplace(id, std::move(sockets)).first->second;
  if (!link_) return {};
  keep_programs(id, kept);
  open_admission_socket(id, kept);
  auto listening = keep_listening(id, kept);
  return listening ? Result<void>() : listening.error();
}

void GatedEntrance::drop_share(const std::string& id) {
  const auto share = shares_.find(id);
  if (share == shares_.end()) return;
  close_admission_socket(id, share->second);
  if (link_) link_->unlisten(id);
  if (settings_.store) settings_.store->drop(settings_.place.instance, id);
  for (const auto& place : {share->second.control, share->second.admission}) {
    ::unlink(place.keep.c_str());
  }
  if (settings_.programs) settings_.programs->forget(share->second.admission.directory);
  shares_.erase(share);
}

void GatedEntrance::set_opening(const gate::Opening& opening) {
  opening_ = opening;
  if (link_) link_->set_up(opening.greeting, opening.messages);
}

void GatedEntrance::leave() {
  if (std::exchange(left_, true)) return;
  again_.cancel();
  if (newcomers_) newcomers_->close();
  if (link_) link_->close();
}

void GatedEntrance::give_way() {
  if (!left_) {
    for (auto& [share, sockets] : shares_) close_admission_socket(share, sockets);
  }
  leave();
}

void GatedEntrance::leave_for_good() {
  if (left_ || !link_) return leave();
  if (opening_) link_->set_up(opening_->greeting, nobody(*opening_).messages);
  leave();
}

// ---- what the desk knows ----

share::Door GatedEntrance::door() const {
  const auto& id = settings_.place.instance;
  const bool drains = state_ == State::draining;
  if (!device_out_.empty()) return share::Closed{share::device_out(id, device_out_), drains};
  switch (state_) {
    case State::ready:
      if (listed_) return share::Serving{};
      return share::NotReady{"starting"};
    case State::draining:
    case State::stopped:
      return share::Closed{share::draining(id), drains};
    case State::failed:
      return share::Closed{share::failed(id, why_), false};
    default:
      return share::NotReady{to_string(state_)};
  }
}

void GatedEntrance::tell_desk() {
  if (left_) return;
  const auto& device = settings_.place.device;
  share::InstanceFacts facts;
  facts.id = settings_.place.instance;
  facts.device = device.uuid;
  facts.device_name = device.name;
  facts.door = door();
  facts.max_clients = device.max_clients;
  facts.memory_mebibytes = device.memory_mebibytes;
  // No driver that we know of has its servers serve several users at a time by default.
  facts.single_uid = true;
  facts.generation = ++generation_;
  controller_->instance_changed(settings_.place, facts);
}

void GatedEntrance::instance_is(State state, const std::string& why, const std::string& out) {
  const bool same_why = state != State::failed || why == why_;
  if (state == state_ && same_why && out == device_out_) return;
  state_ = state;
  why_ = why;
  device_out_ = out;
  serve();
  tell_desk();
}

void GatedEntrance::device_is(const policy::DeviceFacts& device, const std::string& visible) {
  auto& known = settings_.place.device;
  if (device.uuid != known.uuid) return;
  if (device == known && visible == settings_.visible_devices) return;
  const bool news = device != known;
  known = device;
  settings_.visible_devices = visible;
  if (!link_) return;
  server_->set_device(settings_.place.instance, served_device());
  if (news) tell_desk();
}

// ---- the daemon behind it ----

// While it drains, programs that have a slot may still open connections.
void GatedEntrance::serve() {
  if (left_ || !link_) return;
  if (!open_ && state_ != State::draining) return link_->hold();
  if (!daemon_place_) return link_->hold();
  auto directory = daemon_place_->directory();
  if (!directory) return link_->hold();
  link_->serve(std::move(*directory));
  let_in_again();
}

// A share without them still serves.
void GatedEntrance::keep_programs(const std::string& share, const Sockets& sockets) {
  if (!settings_.programs) return;
  const auto& folder = sockets.admission.directory;
  const auto looked = settings_.programs->keep(folder);
  for (const auto& path : looked.replaced) {
    auto which = path;
    which.append(" of ").append(share);
    if (!refusals_.count(which, steady_clock::now())) continue;
    say_("share_program_replaced", settings_.place.instance,
         (folder / path).string() +
             " was not this agent's, but an earlier version's or what somebody made of it; it was "
             "replaced");
  }
  if (looked.trouble && refusals_.count("programs of " + share, steady_clock::now())) {
    say_("share_program_failed", settings_.place.instance, looked.trouble->message);
  }
  if (looked.noexec && refusals_.count("noexec", steady_clock::now())) {
    say_("share_noexec", settings_.place.instance,
         folder.string() +
             " is on a file system that is mounted noexec: nobody can start mps-run from a share; "
             "mount it without noexec, or set runDir to one that is not");
  }
}

// The socket that is there, or a new one where somebody took it away.
Result<bool> GatedEntrance::keep_listening(const std::string& share, Sockets& sockets) {
  if (!listed_) return false;  // a gate that is found has it already
  std::error_code ignored;
  const auto& folder = sockets.admission.directory;
  if (!std::filesystem::exists(folder, ignored)) return false;  // put aside
  // They may have taken one or both, or the folder of one with it.
  if (!std::filesystem::exists(sockets.control.directory, ignored)) {
    const auto& layout = settings_.layout;
    if (auto made = share == k_open ? layout.make() : layout.make_share(share); !made) {
      return made.error();
    }
  }
  keep_programs(share, sockets);
  if (!sockets.answers || !gate::is_in_place(sockets.admission)) {
    close_admission_socket(share, sockets);
    open_admission_socket(share, sockets);
  }
  const bool was_there = link_->listens(share);
  if (was_there && gate::is_in_place(sockets.control)) {
    keep_in_store(share);
    return false;
  }
  auto socket = socket_for(share, sockets);
  if (!socket) return socket.error();
  if (was_there) link_->unlisten(share);
  link_->listen(share, std::move(*socket));
  keep_in_store(share);
  return was_there;
}

// In the backlog of the one from the store are those who came while gate and supervisor were dead.
// Were it closed, they would run without MPS.
Result<UniqueFd> GatedEntrance::socket_for(const std::string& share, const Sockets& sockets) {
  if (settings_.store) {
    auto stored = settings_.store->take(
        settings_.place.instance, share,
        [&sockets](int descriptor) { return gate::listens_for(sockets.control, descriptor); });
    // Who waits there counts: one that cannot be put back is replaced at the next probe.
    if (stored && !gate::is_in_place(sockets.control)) (void)gate::put_in_place(sockets.control);
    if (stored) return stored;
  }
  return gate::listen_in(sockets.control);
}

// Tried again at the next probe where the manager has too much to read.
void GatedEntrance::keep_in_store(const std::string& share) {
  if (!settings_.store) return;
  settings_.store->keep(settings_.place.instance, share, link_->listener(share));
}

// One that fails keeps nobody from the others.
Result<bool> GatedEntrance::keep_listening() {
  bool mended = false;
  std::optional<Error> trouble;
  for (auto& [share, sockets] : shares_) {
    const auto kept = keep_listening(share, sockets);
    if (!kept && !trouble) trouble = kept.error();
    mended = mended || (kept && *kept);
  }
  if (trouble) return *trouble;
  return mended;
}

Result<bool> GatedEntrance::open(const std::filesystem::path& /*control*/) {
  const bool news = !std::exchange(open_, true);
  auto mended = keep_listening();
  if (!mended) return mended;
  if (news) serve();
  return *mended || news;
}

Result<void> GatedEntrance::close() {
  open_ = false;
  const auto kept = keep_listening();
  if (!kept) return kept.error();
  return {};
}

instance::GateState GatedEntrance::gate() const {
  return listed_ && opening_ ? instance::GateState::standing : instance::GateState::down;
}

// ---- the gate ----

void GatedEntrance::gate_stands(pid_t /*pid*/, bool /*adopted*/) {
  found_inside_ = 0;
}

void GatedEntrance::gate_lost(const std::string& how) {
  const bool stood = std::exchange(listed_, false);
  while (!guests_.empty()) forget(guests_.begin()->first);
  if (newcomers_) newcomers_->all_left();
  tell_desk();
  const auto again = refusals_.count("gate " + how, steady_clock::now());
  if (!again) return;
  const auto& instance = settings_.place.instance;
  const auto message = "the gate: " + how + "; newcomers wait until it stands again";
  if (stood) {
    say_("gate_lost", instance, message);
  } else {
    say_("gate_failed", instance, message);
  }
}

void GatedEntrance::all_listed() {
  listed_ = true;
  if (const auto kept = keep_listening(); !kept) {
    say_("gate_failed", settings_.place.instance, kept.error().message);
  }
  if (settings_.store) {
    settings_.store->drop_unclaimed_unless([this](const std::string& id, const std::string& share) {
      return id != settings_.place.instance || shares_.contains(share);
    });
  }
  if (found_inside_ > 0) {
    say_("gate_adopted", settings_.place.instance,
         "found the gate of an earlier supervisor, with " + std::to_string(found_inside_) +
             (found_inside_ == 1 ? " program" : " programs") + " inside");
  }
  serve();
  tell_desk();
}

void GatedEntrance::is_inside(gate::Peer peer) {
  const auto slot = controller_->found_inside(settings_.place.instance, peer.pid, peer.uid);
  if (slot) guests_[peer.id].slot = slot;
  ++found_inside_;
}

void GatedEntrance::asks(gate::Peer peer) {
  const auto id = peer.id;
  auto& guest = guests_[id];
  guest.pid = peer.pid;
  guest.request = controller_->ask(
      {settings_.place.instance, peer.share, peer.pid, peer.uid, peer.gid, std::move(peer.pidfd)},
      {}, [weak = weak_from_this(), id](const admission::Verdict& verdict) {
        if (const auto self = weak.lock()) self->told(id, verdict);
      });
}

void GatedEntrance::told(std::uint64_t peer, const admission::Verdict& verdict) {
  const auto place = guests_.find(peer);
  if (place == guests_.end() || std::holds_alternative<share::Waits>(verdict)) return;
  auto& guest = place->second;
  guest.request.reset();
  if (const auto* in = std::get_if<share::LetIn>(&verdict)) {
    guest.slot = in->slot;
    if (newcomers_) return newcomers_->comes(peer, guest.pid, in->grant);
    guest.let_in_since = steady_clock::now();
    link_->let_in(peer);
    return try_again_soon();  // or it is refused in time, whatever the gate says of it
  }
  guests_.erase(place);
  link_->refuse(peer);
}

void GatedEntrance::entered(std::uint64_t peer) {
  const auto place = guests_.find(peer);
  if (place != guests_.end()) place->second.let_in_since.reset();
}

// The daemon has gone, or took too long: tried again until it serves or the time is over.
void GatedEntrance::not_entered(std::uint64_t peer, int /*error*/) {
  if (newcomers_) return newcomers_->not_entered(peer);
  if (guests_.contains(peer)) try_again_soon();
}

void GatedEntrance::try_again_soon() {
  if (left_ || std::exchange(again_soon_, true)) return;
  again_.expires_after(k_again);
  again_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self) return;
    self->again_soon_ = false;
    self->let_in_again();
  });
}

void GatedEntrance::let_in_again() {
  const auto now = steady_clock::now();
  const auto patience = std::max(settings_.wait, k_least_patience);
  std::vector<std::uint64_t> over;
  bool waiting = false;
  for (const auto& [peer, guest] : guests_) {
    if (!guest.let_in_since) continue;
    if (now - *guest.let_in_since > patience) {
      over.push_back(peer);
      continue;
    }
    waiting = true;
    link_->let_in(peer);
  }
  for (const auto peer : over) {
    give_up_on(peer, "the control daemon did not take it within " + format_duration(patience));
  }
  if (waiting) try_again_soon();
}

void GatedEntrance::give_up_on(std::uint64_t peer, const std::string& why) {
  const auto guest = guests_.find(peer);
  if (guest == guests_.end()) return;
  const auto pid = guest->second.pid;
  forget(peer);
  link_->refuse(peer);
  if (!refusals_.count("timeout", steady_clock::now())) return;
  say_("refused", settings_.place.instance,
       "process " + std::to_string(pid) + " was let in, and then refused, timeout: " + why);
}

void GatedEntrance::limit_newcomers(const std::shared_ptr<instance::Actor>& actor) {
  HardLimitsSettings limits;
  limits.patience = std::max(settings_.wait, k_least_patience);
  newcomers_ = std::make_shared<Newcomers>(
      executor_, limits, actor,
      Newcomers::Gate{[this](std::uint64_t peer) { link_->let_in(peer); },
                      [this](std::uint64_t peer) {
                        give_up_on(peer,
                                   "its limits could not be set, or the control daemon did "
                                   "not take it, within " +
                                       format_duration(std::max(settings_.wait, k_least_patience)));
                      }},
      [this](const std::string& kind, const std::string& message) {
        say_(kind, settings_.place.instance, message);
      });
}

// It is not at the gate any more: its slot goes on until its process ends.
void GatedEntrance::forget(std::uint64_t peer) {
  auto guest = guests_.extract(peer);
  if (!guest) return;
  if (guest.mapped().request) controller_->withdraw(*guest.mapped().request);
  if (guest.mapped().slot) controller_->connection_closed(*guest.mapped().slot);
  if (newcomers_) newcomers_->left(peer);
}

void GatedEntrance::gone(std::uint64_t peer) {
  forget(peer);
}
void GatedEntrance::left(std::uint64_t peer) {
  forget(peer);
}

void GatedEntrance::refused(pid_t pid, uid_t uid, gate::Refusal why, unsigned times) {
  controller_->count_refused(share::Code::unknown_opening, times);
  const auto unsaid = refusals_.count(to_string(why), steady_clock::now());
  if (!unsaid) return;
  auto message =
      opening_words(why) + " (pid " + std::to_string(pid) + ", uid " + std::to_string(uid) + ")";
  if (times + *unsaid > 1) message += "; " + std::to_string(times + *unsaid) + " times";
  say_("unknown_opening", settings_.place.instance, message);
}

}  // namespace mps::app
