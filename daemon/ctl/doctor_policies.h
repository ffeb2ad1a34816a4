// What the policies of a node mean for its limits. Pure.
#pragma once

#include "ctl/doctor.h"
#include "ctl/doctor_facts.h"

namespace mps::ctl {

void check_policies(const PolicyFacts& facts, Findings& findings);

}  // namespace mps::ctl
