// The listening socket of a share, in a directory that containers have mounted and where uid 0 of
// one of them may do anything: made elsewhere, moved into place, and known again by a second name
// of the same file in a directory of ours.
//
// Threading: stateless, any thread.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace mps::gate {

struct SharePlace {
  std::filesystem::path directory;  // the share's, which is mounted
  std::filesystem::path keep;       // of ours alone, on the same file system: its second name
  std::string name = "control";     // of the socket in the share
};

// Whether what is in the share is what we put there last.
bool is_in_place(const SharePlace& place);

// Whether this socket listens, and is the one that was made for this place last. To know that takes
// CAP_NET_ADMIN (SIOCUNIXFILE); without, the answer is no.
bool listens_for(const SharePlace& place, int socket);

// Puts that one back into the share, in the place of whatever is there.
Result<void> put_in_place(const SharePlace& place);

// A new SOCK_SEQPACKET socket, in the place of whatever was there. Anybody may connect (0666), and
// the kernel says who.
Result<UniqueFd> listen_in(const SharePlace& place);

}  // namespace mps::gate
