// The probe's kernels, as a text that every driver since CUDA 9 turns into a program for its GPU
// (Maxwell and later). The simulator knows them by their names.
#pragma once

namespace mps::probe {

// The timer and the clock are read anew each time round, so no assembler takes the loops out.
inline constexpr const char* k_kernels = R"(.version 6.0
.target sm_52
.address_size 64

.visible .entry mps_probe_spin(.param .u64 nanoseconds)
{
  .reg .pred %p<2>;
  .reg .b64 %rd<5>;
  ld.param.u64 %rd1, [nanoseconds];
  mov.u64 %rd2, %globaltimer;
again:
  mov.u64 %rd3, %globaltimer;
  sub.u64 %rd4, %rd3, %rd2;
  setp.lt.u64 %p1, %rd4, %rd1;
  @%p1 bra again;
  ret;
}

.visible .entry mps_probe_bad_address()
{
  .reg .b32 %r<2>;
  .reg .b64 %rd<2>;
  mov.u64 %rd1, 16;
  mov.u32 %r1, 1;
  st.global.u32 [%rd1], %r1;
  ret;
}

.visible .entry mps_probe_trap()
{
  trap;
  ret;
}

.visible .entry mps_probe_hang()
{
  .reg .pred %p<2>;
  .reg .b64 %rd<2>;
again:
  mov.u64 %rd1, %clock64;
  setp.ne.u64 %p1, %rd1, 0;
  @%p1 bra again;
  ret;
}
)";

}  // namespace mps::probe
