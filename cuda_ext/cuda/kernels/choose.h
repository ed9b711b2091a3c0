#pragma once
#include <cstdint>
#include <type_traits>
#include "vision3d/args.h"

// Dispatch from run-time values to the template arguments of the kernels.
namespace vision3d {

template <int N> using Constant = std::integral_constant<int, N>;

// body(Constant<D>) with the first D of the list that holds the channels, else the last.
template <int D, int... More, typename Body>
void with_channels(int64_t channels, Body body) {
    if constexpr (sizeof...(More) == 0)
        body(Constant<D>());
    else if (channels <= D)
        body(Constant<D>());
    else
        with_channels<More...>(channels, body);
}

template <typename Body>
void with_degree(int degree, Body body) {
    switch (degree) {
        case 0: return body(Constant<0>());
        case 1: return body(Constant<1>());
        case 2: return body(Constant<2>());
        case 3: return body(Constant<3>());
        default: return body(Constant<4>());
    }
}

// body(camera model, covariances instead of quaternions and scales)
template <typename Body>
void with_camera(int model, bool covars, Body body) {
    const auto choose = [&](auto m) { covars ? body(m, std::true_type()) : body(m, std::false_type()); };
    switch (model) {
        case PINHOLE: return choose(Constant<PINHOLE>());
        case ORTHO: return choose(Constant<ORTHO>());
        default: return choose(Constant<FISHEYE>());
    }
}

// The unsigned integer type for sorting depths.
template <typename T> using DepthKey = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

}  // namespace vision3d
