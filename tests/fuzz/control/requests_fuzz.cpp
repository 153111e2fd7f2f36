// SPDX-License-Identifier: Apache-2.0
// What a client sends, cut into reads at the fuzzer's will: nothing crashes, what is held stays bounded, and every
// answer is JSON with its end.
#include <rapidjson/document.h>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "daemon/control/dispatcher.h"
#include "tests/unit/control/fake_backend.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check_replies(std::string_view output) {
  while (!output.empty()) {
    const size_t end = output.find('\0');
    require(end != std::string_view::npos);
    rapidjson::Document reply;
    reply.Parse<rapidjson::kParseValidateEncodingFlag>(output.data(), end);
    require(!reply.HasParseError() && reply.IsObject());
    require(reply.HasMember("parameters"));
    output.remove_prefix(end + 1);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace stackwatch;
  if (size == 0) return 0;
  FakeBackend backend;
  backend.all_alerts = {FakeBackend::make_alert("a", AlertState::kFiring, 1'795'348'800'000'000'000)};
  const ControlCounters counters;
  const Dispatcher dispatcher(backend, counters);
  const Peer peer{1, data[0] == 'r' ? 0U : 1000U, 0};
  const size_t read_size = 1 + data[0] % 64U;

  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  MessageBuffer buffer;
  while (!rest.empty()) {
    const std::string_view chunk = rest.substr(0, read_size);
    rest.remove_prefix(chunk.size());
    buffer.append(chunk);
    require(buffer.size() <= kMaxMessageBytes + read_size);
    while (const auto message = buffer.next()) {
      const Outcome outcome = dispatcher.handle(*message, peer);
      check_replies(outcome.output);
      if (outcome.invalid || outcome.subscription) return 0;
    }
    if (buffer.overlong()) return 0;
  }
  return 0;
}
