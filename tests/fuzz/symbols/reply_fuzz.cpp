// SPDX-License-Identifier: Apache-2.0
// What a worker that a stranger's file has taken over may send to the daemon, and the cleaning of its names; and the
// worker's own parser. What is understood must come out the same when it is written and read again.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "symbols/protocol.h"

using namespace stackwatch::protocol;

namespace {

// The last piece of a table comes out of its writer as it went in; pieces before it have nothing but rows.
void check_rows(const UnwindRows& rows) {
  if (rows.table.segments.size() > stackwatch::kMaxUnwindSegments) std::abort();
  const auto packets = encode_table(rows.sequence, rows.object, rows.table);
  if (packets.size() != 1 || packets[0].size() > kMaxMessageBytes) std::abort();
  const auto parsed = parse_reply(packets[0]);
  const auto* const again = parsed ? std::get_if<UnwindRows>(&*parsed) : nullptr;
  if (again == nullptr || !again->last || again->object != rows.object || again->sequence != rows.sequence ||
      again->table.rows != rows.table.rows || again->table.segments != rows.table.segments ||
      again->table.inexpressible != rows.table.inexpressible) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span packet(reinterpret_cast<const std::byte*>(data), size);
  if (const auto request = parse_request(packet)) {
    if (!parse_request(encode(*request))) std::abort();
  }
  const auto reply = parse_reply(packet);
  if (!reply) return 0;
  if (const auto* allocator = std::get_if<Allocator>(&*reply)) {
    const auto again = parse_reply(encode(*allocator));
    if (!again) std::abort();
    const auto& parsed = std::get<Allocator>(*again);
    if (parsed.object != allocator->object || parsed.uncounted_new != allocator->uncounted_new ||
        parsed.places.size() != allocator->places.size()) {
      std::abort();
    }
    for (size_t i = 0; i < parsed.places.size(); ++i) {
      // What is attached to is an offset; what is counted, a role that there is.
      if (parsed.places[i].offset != allocator->places[i].offset ||
          parsed.places[i].role != allocator->places[i].role ||
          parsed.places[i].role >= stackwatch::AllocatorRole::kCount) {
        std::abort();
      }
    }
  }
  if (const auto* rows = std::get_if<UnwindRows>(&*reply)) check_rows(*rows);
  if (const auto* names = std::get_if<Names>(&*reply)) {
    size_t count = 0;
    for (const Bytes& again : encode(*names)) {
      const auto parsed = parse_reply(again);
      if (!parsed) std::abort();
      count += std::get<Names>(*parsed).names.size();
    }
    if (count != names->names.size()) std::abort();
    for (const Name& name : names->names) {
      const std::string clean = clean_name(name.name);
      if (clean.size() > kMaxNameBytes || clean != clean_name(clean)) std::abort();
      if (std::any_of(clean.begin(), clean.end(), [](char c) { return c == ';' || c == '\n' || c == '\0'; })) {
        std::abort();
      }
    }
  }
  return 0;
}
