// The part of NVML's C interface that is used here, declared by us after its public documentation,
// so that nothing of NVIDIA is needed to build. Layouts are held by the assertions below.
#pragma once

#include <cstddef>

namespace mps::device::nvml {

using Return = int;
constexpr Return k_success = 0;
constexpr Return k_not_supported = 3;
constexpr Return k_not_found = 6;
constexpr Return k_insufficient_size = 7;
constexpr Return k_driver_not_loaded = 9;
constexpr Return k_timeout = 10;
constexpr Return k_function_not_found = 13;
constexpr Return k_lib_rm_version_mismatch = 18;
constexpr Return k_argument_version_mismatch = 25;

struct DeviceHandle;  // opaque
using Handle = DeviceHandle*;

struct Memory {
  unsigned long long total;
  unsigned long long free;
  unsigned long long used;  // with what is reserved
};

struct MemoryV2 {
  unsigned version;
  unsigned long long total;
  unsigned long long reserved;
  unsigned long long free;
  unsigned long long used;
};
constexpr unsigned k_memory_v2 = sizeof(MemoryV2) | (2U << 24U);
static_assert(sizeof(MemoryV2) == 40 && offsetof(MemoryV2, total) == 8);

struct PciInfo {
  char bus_id_legacy[16];
  unsigned domain;
  unsigned bus;
  unsigned device;
  unsigned pci_device_id;
  unsigned pci_subsystem_id;
  char bus_id[32];
};
static_assert(sizeof(PciInfo) == 68 && offsetof(PciInfo, bus_id) == 36);

struct Attributes {  // of a MIG device
  unsigned multiprocessor_count;
  unsigned shared_copy_engine_count;
  unsigned shared_decoder_count;
  unsigned shared_encoder_count;
  unsigned shared_jpeg_count;
  unsigned shared_ofa_count;
  unsigned gpu_instance_slice_count;
  unsigned compute_instance_slice_count;
  unsigned long long memory_size_mebibytes;
};
static_assert(sizeof(Attributes) == 40 && offsetof(Attributes, memory_size_mebibytes) == 32);

// A process on a device. Which fields there are is told apart by what an entry point writes and not
// by its version: _v3 has written the first two (16 bytes), the first four (24, as documented) and,
// in 535.43 to 535.86, one more of 8 bytes behind them.
struct ProcessInfo {
  unsigned pid;
  unsigned long long used_memory;  // bytes
  unsigned gpu_instance;
  unsigned compute_instance;
};
static_assert(sizeof(ProcessInfo) == 24 && offsetof(ProcessInfo, gpu_instance) == 16);
constexpr unsigned long long k_memory_not_available = ~0ULL;
constexpr unsigned k_no_instance = ~0U;

struct EventSetHandle;  // opaque
using EventSet = EventSetHandle*;

// What is told of a device. A Xid's number is the data; what a change of the recovery action has
// there is not documented.
struct EventData {
  Handle device;
  unsigned long long type;
  unsigned long long data;
  unsigned gpu_instance;  // k_no_instance where it cannot be attributed
  unsigned compute_instance;
};
static_assert(sizeof(EventData) == 32 && offsetof(EventData, gpu_instance) == 24);
constexpr unsigned long long k_xid_event = 0x8;
constexpr unsigned long long k_recovery_action_event = 0x8000;

struct FieldValue {
  unsigned field;
  unsigned scope;
  long long timestamp;
  long long latency;
  unsigned value_type;
  Return code;
  unsigned long long value;  // a union; an unsigned int is its first four bytes
};
static_assert(sizeof(FieldValue) == 40 && offsetof(FieldValue, value) == 32);
constexpr unsigned k_recovery_action_field = 230;
constexpr unsigned k_value_unsigned_int = 1;

constexpr unsigned k_text_size = 96;  // UUIDs, names and versions are all at most this long
constexpr unsigned k_mig_enabled = 1;
constexpr unsigned k_virtualization_vgpu_guest = 2;

// Compute modes as NVML numbers them, in the order of ComputeMode.
constexpr unsigned k_compute_mode_count = 4;

extern "C" {
using InitFunction = Return (*)();
using ShutdownFunction = Return (*)();
using ErrorStringFunction = const char* (*)(Return);
using TextFunction = Return (*)(char*, unsigned);
using CountFunction = Return (*)(unsigned*);
using HandleByIndexFunction = Return (*)(unsigned, Handle*);
using HandleByUuidFunction = Return (*)(const char*, Handle*);
using DeviceTextFunction = Return (*)(Handle, char*, unsigned);
using MemoryFunction = Return (*)(Handle, Memory*);
using MemoryV2Function = Return (*)(Handle, MemoryV2*);
using TwoIntsFunction = Return (*)(Handle, int*, int*);
using NumberFunction = Return (*)(Handle, unsigned*);
using TwoNumbersFunction = Return (*)(Handle, unsigned*, unsigned*);
using AttributesFunction = Return (*)(Handle, Attributes*);
using SetNumberFunction = Return (*)(Handle, unsigned);
using ChildFunction = Return (*)(Handle, unsigned, Handle*);
using PciFunction = Return (*)(Handle, PciInfo*);
// How many fit, and are; each of the size above.
using ProcessesFunction = Return (*)(Handle, unsigned*, void*);
using EventSetFunction = Return (*)(EventSet*);
using EventSetFreeFunction = Return (*)(EventSet);
using EventTypesFunction = Return (*)(Handle, unsigned long long*);
using RegisterEventsFunction = Return (*)(Handle, unsigned long long, EventSet);
using EventWaitFunction = Return (*)(EventSet, EventData*, unsigned);  // milliseconds
using FieldsFunction = Return (*)(Handle, int, FieldValue*);
}

}  // namespace mps::device::nvml
