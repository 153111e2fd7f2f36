// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "bpf/unwind_maps.h"
#include "core/clock.h"
#include "core/probe.h"
#include "core/result.h"
#include "symbols/unwind_finder.h"

namespace stackwatch {

/// Gives the engines what they unwind with: the mappings and tables that the finder (symbols/) has found for attached
/// processes go into the maps (bpf/). One thread.
class Unwinding {
 public:
  /// `clock` outlives it. Errors: as UnwindMaps::create() and make_unwind_finder().
  static Result<std::shared_ptr<Unwinding>> create(const Clock& clock);

  [[nodiscard]] const std::shared_ptr<UnwindMaps>& maps() const { return maps_; }
  [[nodiscard]] int fd() const { return finder_->fd(); }
  /// Call when fd() or maps()->wanted_fd() is readable and once per tick.
  void dispatch();
  /// Attached processes some of whose tables are not there yet.
  [[nodiscard]] size_t pending() const { return finder_->pending(); }
  [[nodiscard]] std::vector<Error> take_events();

 private:
  /// A file's place in the maps.
  struct Table {
    bool loaded = false;   ///< false: it has none
    bool refused = false;  ///< there was no room for it
    uint32_t number = 0;
    std::vector<UnwindSegment> segments;
  };

  Unwinding(std::shared_ptr<UnwindMaps> maps, std::unique_ptr<UnwindFinder> finder)
      : maps_(std::move(maps)), finder_(std::move(finder)) {}
  void load(UnwindFinder::FoundTable found);
  [[nodiscard]] UnwindMapping place(const UnwindFinder::Mapping& mapping) const;

  std::shared_ptr<UnwindMaps> maps_;
  std::unique_ptr<UnwindFinder> finder_;
  std::unordered_map<uint32_t, Table> tables_;
  std::vector<Error> events_;
  bool told_full_ = false;
};

/// `inner`, with `unwinding` looked after whenever it is drained or collected. `inner` was made with its maps.
[[nodiscard]] std::unique_ptr<ProbeEngine> make_unwinding_engine(const Clock& clock, std::unique_ptr<ProbeEngine> inner,
                                                                 std::shared_ptr<Unwinding> unwinding);

}  // namespace stackwatch
