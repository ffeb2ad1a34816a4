#include "device/nvml_library.h"

#include <dlfcn.h>

#include <string_view>

namespace mps::device::nvml {

namespace {

template <typename Signature>
bool bind_entry(void* handle, Entry<Signature>& entry) {
  // The one cast that dlsym asks for.
  entry.call = reinterpret_cast<Signature>(dlsym(handle, entry.symbol));
  return entry.call != nullptr;
}

std::string without_version(std::string_view symbol) {
  const auto suffix = symbol.rfind("_v");
  return std::string(symbol.substr(0, suffix));
}

}  // namespace

Result<void> Library::load(const std::string& file) {
  if (handle_ != nullptr) return {};
  // NODELETE keeps it in place whoever closes it; LOCAL keeps its symbols from ours.
  handle_ = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle_ == nullptr) {
    const char* reason = dlerror();  // NOLINT(concurrency-mt-unsafe): glibc keeps it per thread
    return Error{reason != nullptr ? reason : file + ": cannot be loaded"};
  }
  if (auto bound = bind(); !bound) {
    handle_ = nullptr;
    return bound.error().in(file);
  }
  return {};
}

Result<void> Library::bind() {
  // Without these nothing can be said at all; the others are optional, since they came with time.
  for (const bool bound :
       {bind_entry(handle_, init), bind_entry(handle_, shutdown), bind_entry(handle_, count),
        bind_entry(handle_, by_index), bind_entry(handle_, uuid)}) {
    if (!bound) return Error{"lacks entry points of NVML: is it another library?"};
  }
  bind_entry(handle_, error_string);
  bind_entry(handle_, driver_version);
  bind_entry(handle_, by_uuid);
  bind_entry(handle_, name);
  bind_entry(handle_, memory_v2);
  bind_entry(handle_, memory);
  bind_entry(handle_, compute_capability);
  bind_entry(handle_, cores);
  bind_entry(handle_, attributes);
  bind_entry(handle_, compute_mode);
  bind_entry(handle_, set_compute_mode);
  bind_entry(handle_, mig_mode);
  bind_entry(handle_, mig_count);
  bind_entry(handle_, mig_by_index);
  bind_entry(handle_, virtualization);
  bind_entry(handle_, pci);
  for (auto& entry : processes) bind_entry(handle_, entry);
  for (auto& entry : mps_processes) bind_entry(handle_, entry);
  bind_entry(handle_, gpu_instance);
  bind_entry(handle_, compute_instance);
  bind_entry(handle_, event_set_create);
  bind_entry(handle_, event_set_free);
  bind_entry(handle_, event_types);
  bind_entry(handle_, register_events);
  bind_entry(handle_, event_wait);
  bind_entry(handle_, fields);
  return {};
}

std::string Library::describe(const char* symbol, Return code) const {
  const char* text = error_string.call != nullptr ? error_string.call(code) : nullptr;
  auto message = without_version(symbol) + ": " +
                 (text != nullptr ? std::string(text) : "error " + std::to_string(code));
  // A library is never unloaded, so ours stays the old driver's.
  if (code == k_lib_rm_version_mismatch) {
    message += "; restart mps-supervisor to load the new library";
  }
  return message;
}

Result<Session> Session::open(Library& library, const std::string& name) {
  if (auto loaded = library.load(name); !loaded) return loaded.error();
  if (const auto code = library.call(library.init); code != k_success) {
    return Error{library.describe(library.init.symbol, code)};
  }
  return Session(library);
}

}  // namespace mps::device::nvml
