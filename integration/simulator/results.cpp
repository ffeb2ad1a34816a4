// The names of results, as the real library has them.
#include "libcuda_state.h"

namespace {

using namespace mps::sim;  // NOLINT: this file is that namespace's C face

struct ResultName {
  int value;
  const char* name;
  const char* text;
};
constexpr ResultName k_names[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {805, "CUDA_ERROR_MPS_CONNECTION_FAILED",
     "MPS client failed to connect to the MPS control daemon or the MPS server"},
    {806, "CUDA_ERROR_MPS_RPC_FAILURE",
     "the remote procedural call between the MPS server and the MPS client failed"},
    {807, "CUDA_ERROR_MPS_SERVER_NOT_READY",
     "MPS server is not ready to accept new MPS client requests"},
    {808, "CUDA_ERROR_MPS_MAX_CLIENTS_REACHED",
     "the hardware resources required to create MPS client have been exhausted"},
    {809, "CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED",
     "the hardware resources required to support device connections have been exhausted"},
    {810, "CUDA_ERROR_MPS_CLIENT_TERMINATED", "the MPS client has been terminated by the server"},
};

const ResultName* name_of(int value) {
  for (const ResultName& name : k_names) {
    if (name.value == value) return &name;
  }
  return nullptr;
}

}  // namespace

MPS_SIM_EXPORT int cuGetErrorName(int value, const char** name) {
  const ResultName* found = name_of(value);
  *name = found != nullptr ? found->name : nullptr;
  return found != nullptr ? k_success : k_invalid_value;
}

MPS_SIM_EXPORT int cuGetErrorString(int value, const char** text) {
  const ResultName* found = name_of(value);
  *text = found != nullptr ? found->text : nullptr;
  return found != nullptr ? k_success : k_invalid_value;
}
