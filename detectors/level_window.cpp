// SPDX-License-Identifier: Apache-2.0
#include "detectors/level_window.h"

namespace stackwatch {

void LevelWindow::push(const LevelTick& tick) {
  if (ticks_.empty()) ticks_.resize(kCapacity);
  if (size_ == kCapacity) {
    first_ = (first_ + 1) % kCapacity;
    --size_;
  }
  ticks_[(first_ + size_) % kCapacity] = tick;
  ++size_;
  ++pushed_;
}

size_t LevelWindow::index_of(uint64_t number) const {
  const uint64_t oldest = pushed_ - size_;
  return number > oldest ? static_cast<size_t>(number - oldest) : 0;
}

}  // namespace stackwatch
