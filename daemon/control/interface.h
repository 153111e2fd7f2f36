// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace stackwatch {

inline constexpr std::string_view kDefaultSocketPath = "/run/stackwatch/io.stackwatch";

/// The control interface in Varlink's own language: the reference of its methods, types and errors. What
/// GetInterfaceDescription answers.
extern const std::string_view kStackwatchInterface;
extern const std::string_view kServiceInterface;

inline constexpr std::string_view kStackwatchName = "io.stackwatch";
inline constexpr std::string_view kServiceName = "org.varlink.service";

namespace control_error {
inline constexpr std::string_view kMethodNotFound = "org.varlink.service.MethodNotFound";
inline constexpr std::string_view kMethodNotImplemented = "org.varlink.service.MethodNotImplemented";
inline constexpr std::string_view kInvalidParameter = "org.varlink.service.InvalidParameter";
inline constexpr std::string_view kInterfaceNotFound = "org.varlink.service.InterfaceNotFound";
inline constexpr std::string_view kPermissionDenied = "org.varlink.service.PermissionDenied";
inline constexpr std::string_view kExpectedMore = "org.varlink.service.ExpectedMore";
inline constexpr std::string_view kNoSuchProcess = "io.stackwatch.NoSuchProcess";
inline constexpr std::string_view kNotAttached = "io.stackwatch.NotAttached";
inline constexpr std::string_view kInvalidWatch = "io.stackwatch.InvalidWatch";
inline constexpr std::string_view kNoSuchWatch = "io.stackwatch.NoSuchWatch";
inline constexpr std::string_view kNoSuchAlert = "io.stackwatch.NoSuchAlert";
inline constexpr std::string_view kInvalidMessage = "io.stackwatch.InvalidMessage";
inline constexpr std::string_view kTooManyClients = "io.stackwatch.TooManyClients";
inline constexpr std::string_view kFailed = "io.stackwatch.Failed";
}  // namespace control_error

}  // namespace stackwatch
