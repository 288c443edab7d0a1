// The kernels that were embedded into the library built beside this harness, and the driver at hand.
#pragma once

#include <string>
#include <vector>

namespace edge_lsla::harness {

struct Embedded {
    std::string op;     // "LslaAttention"
    std::string dtype;  // "fp16", "fp32", "int8"
    int window;
    int head_width;
    int channels;  // C where it is compiled in, else 0
    int arch;
    bool is_ptx;
    int threads;
    int shared_bytes;
    int row_blocks;
    int max_per_program;
    std::string name;
};

std::vector<Embedded> const& embedded();

// The image that the launch contract chooses for a device: the cubin of exactly its architecture, else the newest PTX
// not above it; null when there is neither.
Embedded const* image_for(std::string const& name, int arch);

// The first variant embedded for an operator; null when there is none.
Embedded const* first_embedded(std::string const& op);

enum class DriverAtHand { None, Fake, Real };
DriverAtHand driver_at_hand();

}  // namespace edge_lsla::harness
