// What a check is made of: expectations that count, and a window on the plugin's messages.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace edge_lsla::harness {

// Collects the outcome of one check. Expectations of several threads may come at once.
class Check {
  public:
    // Records a failure unless `held`; `what` says what should have been true.
    void expect(bool held, std::string const& what);
    // For expectations about a message: `text` must contain `part`.
    void expect_contains(std::string const& text, std::string const& part, std::string const& what);
    // Says that the check could not be made here, and why. The remaining expectations still count.
    void skip(std::string const& reason);

    int expectations() const noexcept { return expectations_; }
    std::vector<std::string> const& failures() const noexcept { return failures_; }
    std::string const& skipped() const noexcept { return skipped_; }

  private:
    int expectations_ = 0;
    std::vector<std::string> failures_;
    std::string skipped_;
};

// What the process writes to standard error while `body` runs: the plugin's messages.
std::string messages_of(std::function<void()> const& body);

// Runs `body` and expects it to fail as the plugin must: with one line to standard error, of the right form, that
// contains `part`. `body` returns whether the call was refused.
void expect_refused(Check& check, std::string const& what, std::string const& part, std::function<bool()> const& body);

// Runs `body` and expects success in silence. `body` returns whether the call succeeded.
void expect_accepted(Check& check, std::string const& what, std::function<bool()> const& body);

}  // namespace edge_lsla::harness
