#pragma once
#include <cstring>
#include "cpu/isa/lanes.h"
#include "vision3d/scans.h"

// What the loops of cpu/isa/scans.cpp share: blocks of rows of a state.
namespace vision3d::V3D_ISA {
namespace {

using namespace scans;
using simd::F;
using simd::Part;
constexpr int LANES = simd::LANES;
#if defined(__AVX512F__)
constexpr int ROWS = 16;  // rows of the state in registers
#else
constexpr int ROWS = 8;
#endif

// Calls visit(constant, first) for blocks of ROWS, ROWS / 2, ..., 1 rows that cover [0, count).
template <int SIZE> struct Size {
    static constexpr int value = SIZE;
};
template <int SIZE = ROWS, typename Visit>
V3D_INLINE void in_blocks(int64_t count, Visit visit, int64_t first = 0) {
    for (; first + SIZE <= count; first += SIZE) visit(Size<SIZE>{}, first);
    if constexpr (SIZE > 1) {
        if (first < count) in_blocks<SIZE / 2>(count, visit, first);
    }
}

int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

}  // namespace
}  // namespace vision3d::V3D_ISA
