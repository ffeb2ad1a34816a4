// Where the share is that a program is to use: its folder, as the program sees it, with `pipe/` and
// `admission.sock` in it. mps-run and the shim lie in their share's folder, in bin/ and lib/.
#pragma once

#include "limits.h"

namespace mps::client {

struct Place {
  Text<k_path_limit> folder;
  Text<k_path_limit> socket;  // <folder>/admission.sock
  Text<k_path_limit> pipe;    // <folder>/pipe: CUDA_MPS_PIPE_DIRECTORY
};

// The folder that `file` lies two levels below, else the one whose pipe/ is `pipe_directory` (the
// environment's; may be null). False: neither is a share.
bool find_place(const char* file, const char* pipe_directory, Place& place);

// Whether that folder is a share's.
bool is_share(const char* folder, Place& place);

// Cuts the last part of a path off; false: there is none above it.
bool go_up(char* path);

}  // namespace mps::client
