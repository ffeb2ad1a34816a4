#include "device/capability.h"

namespace mps::device {

namespace {

constexpr unsigned k_volta = 7;  // before it, MPS has no limits and one address space for all

unsigned cores_per_sm(unsigned major, unsigned minor) {
  switch (major) {
    case 3:
      return 192;
    case 5:
      return 128;
    case 6:
      return minor == 0 ? 64 : 128;
    case 7:
      return 64;
    case 8:
      return minor == 0 ? 64 : 128;
    case 9:
    case 10:
    case 11:
    case 12:
      return 128;
    default:
      return 0;
  }
}

}  // namespace

std::string why_not_capable(const CapabilityFacts& facts) {
  if (facts.vgpu_guest) return "vGPU guest: MPS is not available in a virtual GPU";
  if (facts.major && *facts.major < k_volta) {
    return "compute capability " + std::to_string(*facts.major) + "." +
           std::to_string(facts.minor.value_or(0)) + ": MPS with limits needs 7.0 (Volta) or later";
  }
  if (facts.mig_enabled) return "MIG is enabled: its MIG devices have instances of their own";
  if (facts.compute_mode == ComputeMode::prohibited) {
    return "compute mode is prohibited: no CUDA program can run until it is set to default or "
           "exclusive-process";
  }
  return {};
}

unsigned sm_count_of(unsigned cores, unsigned major, unsigned minor) {
  const auto per_sm = cores_per_sm(major, minor);
  return per_sm == 0 || cores % per_sm != 0 ? 0 : cores / per_sm;
}

}  // namespace mps::device
