#include "refusal.h"

#include <unistd.h>

namespace edge_lsla {

Refusal::Refusal(std::string const& what, std::string const& where, std::string const& remedy)
    : std::runtime_error(what + ": " + where + "; " + remedy) {}

void report(char const* message) noexcept {
    try {
        std::string line = std::string("edge-lsla plugin: ") + message;
        for (char& character : line) {
            if (character == '\n' || character == '\r') {
                character = ' ';
            }
        }
        line += '\n';
        // One write, so that lines of several threads do not mix. Nobody is left to tell when it fails.
        [[maybe_unused]] ssize_t const written = ::write(STDERR_FILENO, line.data(), line.size());
    } catch (...) {
        // No memory for the text: the status code says that the method failed.
    }
}

}  // namespace edge_lsla
