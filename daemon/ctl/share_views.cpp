#include <string>
#include <vector>

#include "base/text.h"
#include "ctl/fields.h"
#include "ctl/table.h"
#include "ctl/views.h"

namespace mps::ctl {

using nlohmann::json;

std::string shares_text(const json& shares, bool wide, SystemTime now) {
  Table table{{"SHARE", "INSTANCE", "NAMESPACE", "LIMITS", "CLIENTS", "STATE", "LEFT"}, {}};
  if (wide) table.header.insert(table.header.end(), {"DEVICE", "DIRECTORY"});
  for (const auto& share : shares) {
    const auto limits = field(share, {"limits"});
    std::vector<std::string> row{text(share, {"id"}),
                                 text(share, {"instance"}),
                                 text(share, {"namespace"}),
                                 limits.is_null() ? "by policy" : limits_text(limits),
                                 text(share, {"clients"}),
                                 text(share, {"state"}),
                                 time_left(field(share, {"expiresAt"}), now)};
    if (wide) {
      row.push_back(text(share, {"device"}));
      row.push_back(text(share, {"directory"}));
    }
    table.rows.push_back(std::move(row));
  }
  return to_text(table);
}

namespace {

// An agent that is older than these fields says nothing of them.
std::string cdi_text(const json& share) {
  const auto why = text(share, {"noCdiDevice"});
  const auto device = printable(text(share, {"cdiDevice"}));
  if (device.empty()) return why.empty() ? "" : "no CDI device: " + printable(why, 1000) + "\n";
  const auto line = " run --device " + device + " IMAGE /run/mps-share/" +
                    printable(text(share, {"id"})) + "/bin/mps-run -- COMMAND\n";
  return "or take it as the CDI device " + device + ", beside the GPU itself:\n  docker" + line +
         "  podman" + line;
}

}  // namespace

std::string share_created_text(const json& share) {
  const auto whose = text(share, {"namespace"});
  return "share " + printable(text(share, {"id"})) + " of " + printable(text(share, {"instance"})) +
         ", " + limits_text(field(share, {"limits"})) + " for each client, for " +
         (whose.empty() ? "whoever has it mounted" : printable(whose)) + "\nmount " +
         printable(text(share, {"directory"})) +
         " at any path (read-only is enough), and set CUDA_MPS_PIPE_DIRECTORY to that path with "
         "/pipe behind it\n" +
         cdi_text(share);
}

}  // namespace mps::ctl
