#include "share/records.h"

#include <algorithm>

#include "base/text.h"

namespace mps::share {

namespace {

struct Apply {
  State& state;

  Result<void> operator()(const Counters& counters) const {
    auto& have = state.counters;
    have.share = std::max(have.share, counters.share);
    have.admission = std::max(have.admission, counters.admission);
    have.slot = std::max(have.slot, counters.slot);
    return {};
  }

  Result<void> operator()(const ShareMade& made) const {
    state.shares[made.share.number] = made.share;
    state.counters.share = std::max(state.counters.share, made.share.number + 1);
    return {};
  }

  Result<void> operator()(const ShareEnded& ended) const {
    return erase(state.shares, ended.number, "share");
  }

  Result<void> operator()(const AdmissionMade& made) const {
    state.admissions[made.admission.id] = made.admission;
    state.counters.admission = std::max(state.counters.admission, made.admission.id + 1);
    return {};
  }

  Result<void> operator()(const AdmissionEnded& ended) const {
    return erase(state.admissions, ended.id, "admission");
  }

  Result<void> operator()(const SlotMade& made) const {
    auto slot = made.slot;
    state.counters.slot = std::max(state.counters.slot, slot.id + 1);
    if (slot.admission != 0) {
      const auto admission = state.admissions.find(slot.admission);
      if (admission == state.admissions.end()) {
        return Error{"slot " + std::to_string(slot.id) + " is of admission " +
                     std::to_string(slot.admission) + ", which is not there"};
      }
      slot.instance = admission->second.instance;
      slot.device = admission->second.device;
    }
    state.slots[slot.id] = std::move(slot);
    return {};
  }

  Result<void> operator()(const SlotEnded& ended) const {
    return erase(state.slots, ended.id, "slot");
  }

  template <typename Map>
  static Result<void> erase(Map& map, std::uint64_t id, const char* what) {
    if (map.erase(id) == 1) return {};
    return Error{std::string(what) + " " + std::to_string(id) + " ended and was not there"};
  }
};

}  // namespace

std::string describe(const Grant& grant) {
  auto text = std::to_string(grant.active_thread_percentage);
  text.erase(text.find('.') + 2);
  if (text.ends_with(".0")) text.erase(text.size() - 2);
  const auto& memory = grant.pinned_memory_mebibytes;
  return text + " % of the SMs, " + (memory ? format_mebibytes(*memory) : "no memory limit");
}

Result<void> State::apply(const Change& change) {
  return std::visit(Apply{*this}, change);
}

}  // namespace mps::share
