#pragma once
#include <cstdint>

namespace vision3d::cpu {

// Index of the first value outside [low, high), or -1. Reads all values, as they are nearly always valid.
int64_t find_outside(const int32_t* values, int64_t count, int64_t low, int64_t high);
int64_t find_outside(const int64_t* values, int64_t count, int64_t low, int64_t high);

}  // namespace vision3d::cpu
