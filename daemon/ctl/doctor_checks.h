// What the facts of a node mean. Pure.
#pragma once

#include <string_view>

#include "ctl/doctor.h"
#include "ctl/doctor_facts.h"

namespace mps::ctl {

Findings evaluate(const DoctorFacts& facts);

// The pid in the name of an MPS server's shared memory, "cuda.shm.<uid>.<pid>.<n>" in hexadecimal.
std::optional<pid_t> pid_of_shared_memory(std::string_view name);

}  // namespace mps::ctl
