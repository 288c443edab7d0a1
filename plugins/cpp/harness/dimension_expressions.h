// TensorRT's symbolic dimensions, made without TensorRT: the public classes forward to `mImpl`, which is set to our
// own.
#pragma once

#include <NvInferRuntime.h>

#include <memory>
#include <string>
#include <vector>

namespace edge_lsla::harness {

// A dimension with a name; constant when its value is not negative.
class Dimension final : public nvinfer1::IDimensionExpr {
  public:
    Dimension(std::string name, int64_t value) : name_(std::move(name)), value_(value) { mImpl = &implementation_; }
    std::string const& name() const noexcept { return name_; }

  private:
    class Implementation final : public nvinfer1::apiv::VDimensionExpr {
      public:
        explicit Implementation(Dimension const& owner) : owner_(owner) {}
        bool isConstant() const noexcept override { return owner_.value_ >= 0; }
        int64_t getConstantValue() const noexcept override { return owner_.value_; }
        bool isSizeTensor() const noexcept override { return false; }

      private:
        Dimension const& owner_;
    };

    std::string name_;
    int64_t value_;
    Implementation implementation_{*this};
};

// Makes constants, and "floor"-like names for operations, so that a check can see what a plugin asked for.
class Expressions final : public nvinfer1::IExprBuilder {
  public:
    Expressions() { mImpl = &implementation_; }
    // How many expressions the plugin made.
    size_t made() const noexcept { return implementation_.made.size(); }

  private:
    class Implementation final : public nvinfer1::apiv::VExprBuilder {
      public:
        nvinfer1::IDimensionExpr const* constant(int64_t value) noexcept override {
            return keep(std::to_string(value), value);
        }
        nvinfer1::IDimensionExpr const* operation(nvinfer1::DimensionOperation, nvinfer1::IDimensionExpr const&,
                                                  nvinfer1::IDimensionExpr const&) noexcept override {
            return keep("operation", -1);
        }
        nvinfer1::IDimensionExpr const* declareSizeTensor(int32_t, nvinfer1::IDimensionExpr const&,
                                                          nvinfer1::IDimensionExpr const&) noexcept override {
            return keep("size tensor", -1);
        }

        std::vector<std::unique_ptr<Dimension>> made;

      private:
        nvinfer1::IDimensionExpr const* keep(std::string name, int64_t value) {
            made.push_back(std::make_unique<Dimension>(std::move(name), value));
            return made.back().get();
        }
    };

    Implementation implementation_;
};

}  // namespace edge_lsla::harness
