// How the simulated hardware's troubles reach the simulated NVML of other processes: lines at the
// end of a file that whoever listens creates, and reads from where its end was then.
//
//   xid NUMBER UUID [PID]   a critical Xid error
//   action NUMBER UUID      what must be done about the device from now on
//   drop COUNT              that many xid lines behind it are not seen
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/unique_fd.h"

namespace mps::sim {

struct BoardEvent {
  enum class Kind { k_xid, k_action, k_drop } kind = Kind::k_xid;
  unsigned number = 0;
  std::string uuid;
};

std::optional<BoardEvent> parse_board_line(std::string_view line);

// $MPS_SIM_EVENTS, or $MPS_SIM_NVML with .events behind it, or nothing.
std::string board_file();
// Says nothing where nobody has created the file.
void post_on_board(const BoardEvent& event);

class BoardReader {
 public:
  // Creates the file where it is not there, for servers of any uid to write to.
  explicit BoardReader(const std::string& file);
  // Xids that were dropped are not among what it returns; nullopt: nothing more for now.
  std::optional<BoardEvent> next();
  // Waits until there may be something to read, at most that long.
  void wait(int milliseconds) const;

 private:
  std::optional<std::string> next_line();
  UniqueFd file_;
  UniqueFd changes_;
  std::string rest_;
  unsigned drop_ = 0;
};

// The last action that the file has for this device; 0 where there is none.
unsigned last_action(const std::string& file, std::string_view uuid);

}  // namespace mps::sim
