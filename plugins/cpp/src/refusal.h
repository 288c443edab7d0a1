// Failures inside the library, and the border where they stop: nothing is thrown across TensorRT's interfaces.
#pragma once

#include <exception>
#include <stdexcept>
#include <string>
#include <utility>

namespace edge_lsla {

// What TensorRT gets for success and failure from the methods that return a status.
inline constexpr int kDone = 0;
inline constexpr int kFailed = -1;

// A failure with the text "what is wrong: where; what to do".
class Refusal : public std::runtime_error {
  public:
    Refusal(std::string const& what, std::string const& where, std::string const& remedy);
};

// Writes one line to standard error. TensorRT's own message says only that a method failed, and its logger cannot be
// used: the layout of ILogger and ILoggerFinder changed in 11.0, so a call compiled against one crashes in the other.
void report(char const* message) noexcept;

// Runs `body`; a failure is reported and becomes `failed`.
template <typename Result, typename Body>
Result guarded(Result failed, Body&& body) noexcept {
    try {
        return std::forward<Body>(body)();
    } catch (std::exception const& error) {
        report(error.what());
    } catch (...) {
        report("an unknown failure: inside the plugin; please report it");
    }
    return failed;
}

}  // namespace edge_lsla
