#include "check.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <stdexcept>

namespace edge_lsla::harness {

namespace {

std::mutex expectation_mutex;

}  // namespace

void Check::expect(bool held, std::string const& what) {
    std::lock_guard<std::mutex> const lock(expectation_mutex);
    ++expectations_;
    if (!held) {
        failures_.push_back(what);
    }
}

void Check::expect_contains(std::string const& text, std::string const& part, std::string const& what) {
    expect(text.find(part) != std::string::npos, what + ": \"" + part + "\" is not in \"" + text + "\"");
}

void Check::skip(std::string const& reason) { skipped_ = reason; }

std::string messages_of(std::function<void()> const& body) {
    // The plugin writes to the file descriptor itself, so that is what must be replaced.
    std::FILE* const file = std::tmpfile();
    if (file == nullptr) {
        throw std::runtime_error("no temporary file");
    }
    std::fflush(stderr);
    int const saved = ::dup(STDERR_FILENO);
    ::dup2(::fileno(file), STDERR_FILENO);
    body();
    std::fflush(stderr);
    ::dup2(saved, STDERR_FILENO);
    ::close(saved);
    std::string text;
    std::rewind(file);
    char buffer[4096];
    while (size_t const count = std::fread(buffer, 1, sizeof buffer, file)) {
        text.append(buffer, count);
    }
    std::fclose(file);
    return text;
}

void expect_refused(Check& check, std::string const& what, std::string const& part, std::function<bool()> const& body) {
    bool refused = false;
    std::string const text = messages_of([&] { refused = body(); });
    check.expect(refused, what + " is refused");
    check.expect_contains(text, part, what);
    check.expect(text.rfind("edge-lsla plugin: ", 0) == 0 && std::count(text.begin(), text.end(), '\n') == 1 &&
                     text.back() == '\n' && text.find(": ", 18) != std::string::npos &&
                     text.find("; ") != std::string::npos,
                 what + ": one line 'edge-lsla plugin: what: where; what to do', not \"" + text + "\"");
}

void expect_accepted(Check& check, std::string const& what, std::function<bool()> const& body) {
    bool accepted = false;
    std::string const text = messages_of([&] { accepted = body(); });
    check.expect(accepted, what + " is accepted (" + text + ")");
    check.expect(text.empty(), what + " is silent, not \"" + text + "\"");
}

}  // namespace edge_lsla::harness
