// This process' environment, for itself and for what it starts. Not by setenv(): bash, for one, has
// a function of that name, which the shim would call before bash is ready for it.
// Not for a process that has other threads. Nothing that was given out is freed.
#pragma once

#include "text.h"

namespace mps::client {

// Null: it is not there.
const char* variable(const char* name);
// Also where it is there twice, as some read the first and some the last. 0, or ENOMEM.
int set_variable(const char* name, const char* value);
void unset_variable(const char* name);

}  // namespace mps::client
