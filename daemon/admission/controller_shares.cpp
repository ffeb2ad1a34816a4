// Shares made on demand.
#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "admission/controller.h"

namespace mps::admission {

namespace asio = boost::asio;

namespace {

// The wall clock may be set meanwhile.
constexpr std::chrono::seconds k_look_again{60};

SystemTime now() {
  return std::chrono::system_clock::now();
}

std::string go_on(std::size_t clients) {
  if (clients == 0) return "nobody comes in any more";
  return "nobody comes in any more, and " + std::to_string(clients) +
         (clients == 1 ? " client goes on until it ends" : " clients go on until they end");
}

}  // namespace

std::variant<share::Plan, share::Refusal> Controller::plan_of(const identity::Identity& who,
                                                              const std::string& command,
                                                              const Place& place,
                                                              const std::string& share) const {
  if (sources_.kept_out) {
    if (auto refusal = sources_.kept_out(who, command)) return *refusal;
  }
  const auto generation = sources_.policies();
  if (share == k_open_share) return plan_for(*generation, who, place);
  const auto* made = find_share(shares(), place.instance, share);
  if (made == nullptr) return share::share_deleted(share);
  return plan_for_share(*generation, who, place, *made);
}

// A process that has a slot may still open connections.
bool Controller::is_closed_to(const Place& place, const std::string& share,
                              const share::Process& process) const {
  if (share == k_open_share) return false;
  const auto* made = find_share(shares(), place.instance, share);
  if (made == nullptr) return true;
  return made->closing && !ledger_.has_slot(ledger_name(place.instance, share), process);
}

share::Share Controller::make_share(const ShareWish& wish, std::uint64_t at_least) {
  const auto number = std::max(checkpoint_.state().counters.share, at_least);
  auto made = admission::make_share(number, wish, now());
  apply({.changes = {share::ShareMade{made}}});
  sources_.say("share_created", made.instance, describe(made));
  set_share_alarm();
  tell_share_change();
  return made;
}

void Controller::close_share(std::uint64_t number) {
  const auto found = shares().find(number);
  if (found == shares().end() || found->second.closing) return;
  auto closing = found->second;
  closing.closing = true;
  if (share_closes_) share_closes_(closing);
  apply({.changes = {share::ShareMade{closing}}});
  std::vector<share::Revision> revisions;
  for (const auto& [id, asking] : asking_) {
    if (asking.who && !asking.let_in && asking.share == closing.id) {
      revisions.push_back({id, share::share_deleted(closing.id)});
    }
  }
  if (!revisions.empty()) apply(ledger_.revise(revisions, std::chrono::steady_clock::now()));
  const auto clients = ledger_.slots_of_share(ledger_name(closing.instance, closing.id)).size();
  sources_.say("share_closed", closing.instance, "share " + closing.id + ": " + go_on(clients));
  end_closed_shares();
  set_share_alarm();
  tell_share_change();
}

void Controller::end_closed_shares() {
  std::vector<share::Share> over;
  for (const auto& [number, share] : shares()) {
    const auto name = ledger_name(share.instance, share.id);
    if (share.closing && ledger_.slots_of_share(name).empty()) over.push_back(share);
  }
  for (const auto& share : over) {
    apply({.changes = {share::ShareEnded{share.number}}});
    sources_.say("share_deleted", share.instance, "share " + share.id + " has ended");
  }
  if (!over.empty()) tell_share_change();
}

void Controller::expire_shares() {
  for (const auto number : expired(shares(), now())) {
    const auto& share = shares().at(number);
    if (share_closes_) share_closes_(share);
    sources_.say("share_expired", share.instance, "share " + share.id + ": its time is over");
    close_share(number);
  }
}

void Controller::set_share_alarm() {
  const auto next = next_expiry(shares());
  if (closed_ || !next) return;
  const auto left = std::max<SystemTime::duration>(*next - now(), SystemTime::duration::zero());
  share_alarm_.expires_after(std::min<SystemTime::duration>(left, k_look_again));
  share_alarm_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
    const auto self = weak.lock();
    if (error || !self || self->closed_) return;
    self->expire_shares();
    self->set_share_alarm();
  });
}

// Afterwards: whoever makes or closes one is not called from within.
void Controller::tell_share_change() {
  if (closed_ || !shares_changed_ || std::exchange(share_change_is_told_, true)) return;
  asio::post(executor_, [weak = weak_from_this()] {
    const auto self = weak.lock();
    if (!self || self->closed_) return;
    self->share_change_is_told_ = false;
    if (self->shares_changed_) self->shares_changed_();
  });
}

}  // namespace mps::admission
