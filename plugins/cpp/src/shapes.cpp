#include "shapes.h"

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "refusal.h"

namespace edge_lsla {

using nvinfer1::Dims;

namespace {

std::string text_of(int64_t const* dimensions, int32_t count) {
    std::string text = "[";
    for (int32_t index = 0; index < count; ++index) {
        text += (index == 0 ? "" : ", ") + (dimensions[index] < 0 ? "?" : std::to_string(dimensions[index]));
    }
    return text + "]";
}

std::string text_of(Dims const& dims) {
    return text_of(dims.d, std::min(std::max(dims.nbDims, 0), static_cast<int32_t>(Dims::MAX_DIMS)));
}

constexpr int64_t kMostInt32 = std::numeric_limits<int32_t>::max();
// A program adds the number of windows (residual: heads) that it takes, 1024 at most, to its first one.
constexpr int64_t kMostUnits = kMostInt32 - kMaxHeads;

// One check of one set of shapes: what is known so far, and the words for messages.
class ShapeCheck {
  public:
    ShapeCheck(Operator const& op, Settings const& settings, TensorShapes const& shapes, char const* moment)
        : op_(op), settings_(settings), shapes_(shapes), moment_(moment) {}

    int32_t run() {
        map_ = *shapes_[0];
        if (map_.nbDims != 4) {
            refuse(0, "is not [B, H, W, C]", "put channels last and keep the batch");
        }
        check_windows();
        check_head_width();
        for (int32_t position = 0; position < op_.tensor_count(); ++position) {
            check_tensor(position);
        }
        check_extents();
        return static_cast<int32_t>(head_width_);
    }

  private:
    [[noreturn]] void refuse(int32_t position, std::string const& wrong, std::string const& remedy) const {
        throw Refusal(std::string(op_.tensor(position).name) + " " + text_of(*shapes_[position]) + " " + wrong,
                      std::string(op_.name) + ", " + moment_, remedy);
    }

    void check_windows() const {
        for (int32_t axis = 1; axis <= 2; ++axis) {
            if (map_.d[axis] >= 0 && map_.d[axis] % settings_.window != 0) {
                refuse(0,
                       "is not a multiple of the window " + std::to_string(settings_.window) + " in height and width",
                       "choose an input size whose feature maps the window divides");
            }
        }
    }

    // C = heads * d: from x, or from scale_weight [heads, d] when C is unknown.
    void check_head_width() {
        int64_t const heads = settings_.num_heads;
        int32_t source = 0;
        if (map_.d[3] >= 0) {
            if (map_.d[3] % heads != 0) {
                refuse(0, "has channels that " + std::to_string(heads) + " heads do not divide", "correct num_heads");
            }
            head_width_ = map_.d[3] / heads;
        } else {
            while (op_.tensor(source).shape != ShapeRule::kHeadVector) {
                ++source;
            }
            Dims const& vector = *shapes_[source];
            head_width_ = vector.nbDims == 2 && vector.d[1] >= 0 ? vector.d[1] : Settings::kUnknown;
        }
        if (head_width_ == Settings::kUnknown) {
            return;
        }
        if (std::find(kHeadWidths.begin(), kHeadWidths.end(), head_width_) == kHeadWidths.end()) {
            refuse(source, "makes heads " + std::to_string(head_width_) + " wide, not 16, 32 or 64",
                   "correct num_heads, or change the model's width");
        }
        map_.d[3] = heads * head_width_;
    }

    std::vector<int64_t> expected(ShapeRule rule) const {
        int64_t const heads = settings_.num_heads;
        int64_t const channels = map_.d[3];
        int64_t const side = 2 * static_cast<int64_t>(settings_.window) - 1;
        switch (rule) {
            case ShapeRule::kMap:
                return {map_.d[0], map_.d[1], map_.d[2], channels};
            case ShapeRule::kHeadVector:
                return {heads, head_width_};
            case ShapeRule::kHeads:
                return {heads};
            case ShapeRule::kTable:
                return {side * side, heads};
            case ShapeRule::kChannels:
                return {channels};
            case ShapeRule::kSquare:
                return {channels, channels};
            case ShapeRule::kScalar:
                break;
        }
        return {};
    }

    void check_tensor(int32_t position) const {
        Dims const& dims = *shapes_[position];
        ShapeRule const rule = op_.tensor(position).shape;
        // A scalar may come as rank 0 or as a vector of one.
        std::vector<int64_t> const wanted =
            rule == ShapeRule::kScalar && dims.nbDims == 1 ? std::vector<int64_t>{1} : expected(rule);
        bool same = dims.nbDims == static_cast<int32_t>(wanted.size());
        for (int32_t axis = 0; same && axis < dims.nbDims; ++axis) {
            same = dims.d[axis] < 0 || wanted[axis] < 0 || dims.d[axis] == wanted[axis];
        }
        if (!same) {
            refuse(position, "should be " + text_of(wanted.data(), static_cast<int32_t>(wanted.size())),
                   "correct num_heads, window or the tensor");
        }
    }

    // What the kernels count and offset with 32-bit integers. A window's first element is found with 64 bits, so x as a
    // whole may be of any size.
    void check_extents() const {
        int64_t const channels = map_.d[3];
        // Within a window offsets go as far as its rows, which are rows of the map: window * W * C.
        int64_t const widest = kMostInt32 / (settings_.window * std::max<int64_t>(channels, 1));
        if (channels >= 0 && map_.d[2] > widest) {
            refuse(0, "has 2^31 elements or more in the rows of one window", "use a smaller width");
        }
        for (int32_t position = 0; position < op_.tensor_count(); ++position) {
            bool const square = op_.tensor(position).shape == ShapeRule::kSquare;
            if (square && channels > kMostInt32 / std::max<int64_t>(channels, 1)) {
                refuse(position, "has 2^31 elements or more", "use fewer channels");
            }
        }
        // Windows are counted over the batch; there is at least one program for each of them and each head.
        int64_t units = settings_.num_heads;
        for (int32_t axis = 0; axis < 3; ++axis) {
            int64_t const count = axis == 0 ? map_.d[axis] : map_.d[axis] / settings_.window;
            if (map_.d[axis] < 0 || count == 0) {
                return;  // not known yet, or nothing to compute
            }
            if (units > kMostUnits / count) {
                refuse(0, "has too many windows for one launch", "use a smaller batch");
            }
            units *= count;
        }
    }

    Operator const& op_;
    Settings const& settings_;
    TensorShapes const& shapes_;
    char const* moment_;
    Dims map_{};  // x's dimensions, with C filled in from the tables where x leaves it open
    int64_t head_width_ = Settings::kUnknown;
};

}  // namespace

int32_t check_shapes(Operator const& op, Settings const& settings, TensorShapes const& shapes, char const* moment) {
    return ShapeCheck(op, settings, shapes, moment).run();
}

void require_known(Operator const& op, TensorShapes const& shapes, char const* moment) {
    for (int32_t position = 0; position < op.tensor_count(); ++position) {
        Dims const& dims = *shapes[position];
        for (int32_t axis = 0; axis < dims.nbDims && axis < Dims::MAX_DIMS; ++axis) {
            if (dims.d[axis] < 0) {
                throw Refusal(std::string(op.tensor(position).name) + " " + text_of(dims) + " has an unknown dimension",
                              std::string(op.name) + ", " + moment, "set every input shape before running");
            }
        }
    }
}

}  // namespace edge_lsla
