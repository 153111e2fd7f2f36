// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace stackwatch {

/// MESSAGE_ID of the journal entry for an alert that fires. Fixed for ever: people filter by it, and
/// systemd/stackwatch.catalog explains it.
inline constexpr char kMessageIdAlertFiring[] = "9fc0a0ab93f14d3cb7f955ba7f7e61f4";
/// MESSAGE_ID of the journal entry for an alert that is resolved. As fixed as the other.
inline constexpr char kMessageIdAlertResolved[] = "a80293b0990f4f629a1bc25b53af303b";
/// MESSAGE_ID of the journal entry for cost that moved and did not grow. As fixed as the others.
inline constexpr char kMessageIdCostShift[] = "6e207df741834fa093aa18add4dbfb28";
/// MESSAGE_ID of the journal entry for an alert that was told without a function when that is found. As fixed.
inline constexpr char kMessageIdAlertNamed[] = "1070dc96d6014fe5973787a158c7854f";

}  // namespace stackwatch
