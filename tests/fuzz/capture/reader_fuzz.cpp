// SPDX-License-Identifier: Apache-2.0
// Any bytes as a capture: ticks that hold what a DeltaSource promises, then an end or an error that stays.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "daemon/capture_source.h"

namespace {

using namespace stackwatch;

void require(bool holds) {
  if (!holds) std::abort();
}

void check_delta(const NamedDelta& delta, const CaptureSource& source) {
  require(delta.stacks != nullptr && delta.functions != nullptr);
  require(std::isfinite(delta.time_s) && std::isfinite(delta.exposure_s) && delta.exposure_s >= 0);
  require(std::isfinite(delta.interval_s) && delta.interval_s >= 0);
  require(std::isfinite(delta.frequency_hz) && delta.frequency_hz >= 0);
  std::set<uint32_t> seen;
  for (const NamedDelta::Value& value : delta.values) {
    require(value.stack.value < delta.stacks->size() && seen.insert(value.stack.value).second);
    for (const FunctionId frame : (*delta.stacks)[value.stack]) require(frame.value < delta.functions->size());
  }
  require(source.identify(delta.process).key == delta.process);
  (void)source.losses(delta.process, delta.probe);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  auto reader = CaptureReader::create(bytes_of(bytes), "fuzz");
  if (!reader) {
    require(reader.error().message().size() < 1000);
    return 0;
  }
  CaptureSource source(std::move(*reader));
  for (;;) {
    auto batch = source.next();
    if (!batch) {
      require(batch.error().message().find("line ") != std::string::npos);
      require(!source.next());
      return 0;
    }
    if (!batch->has_value()) {
      require(source.next().has_value());
      return 0;
    }
    require(std::isfinite((*batch)->time_s));
    for (const NamedDelta& delta : (*batch)->deltas) check_delta(delta, source);
  }
}
