#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include "cpu/ranges.h"

// Contiguous arrays as the kernels expect them; bound by bindings/define.h.
//
// A target W is where a bound function runs: W::Scalar and W::Device select its overload, W(device, stream) is passed to the
// kernel's driver as `where`. Every bound function ends with the arguments `device` and `stream`, used only on a GPU.
namespace vision3d::arrays {

namespace nb = nanobind;
template <typename W, int N, typename T = typename W::Scalar>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, typename W::Device>;
template <typename W, int N, typename T = typename W::Scalar>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, typename W::Device>;
template <typename W, int N, typename T = typename W::Scalar> using MaybeIn = std::optional<In<W, N, T>>;
template <typename W, int N, typename T = typename W::Scalar> using MaybeOut = std::optional<Out<W, N, T>>;

// A target on the CPU, whose functions take `Tag` as their location.
template <typename T, typename Tag = int>
struct CpuTarget {
    using Scalar = T;
    using Device = nb::device::cpu;
    static constexpr bool ON_CPU = true;
    Tag where{};
    CpuTarget(int, uint64_t) {}
};

template <typename Array>
void check(const char* name, const Array& array, std::initializer_list<int64_t> want) {
    bool same = array.ndim() == want.size();
    std::string got = "(", need = "(";
    size_t i = 0;
    for (int64_t size : want) {
        same = same && int64_t(array.shape(i)) == size;
        need += (i ? ", " : "") + std::to_string(size);
        ++i;
    }
    if (same) return;
    for (size_t j = 0; j < array.ndim(); ++j) got += (j ? ", " : "") + std::to_string(array.shape(j));
    throw std::invalid_argument(std::string(name) + ": got shape " + got + "), want " + need + ")");
}

template <typename Array>
auto pointer(const char* name, const std::optional<Array>& array, std::initializer_list<int64_t> want) -> decltype(array->data()) {
    if (!array) return nullptr;
    check(name, *array, want);
    return array->data();
}

template <typename Array>
auto pointer(const char* name, const Array& array, std::initializer_list<int64_t> want) -> decltype(array.data()) {
    check(name, array, want);
    return array.data();
}

inline void require(bool holds, const char* message) {
    if (!holds) throw std::invalid_argument(message);
}

template <typename W> constexpr bool on_cpu = W::ON_CPU;

// Checks that all values on the CPU are in [low, high), as kernels do not check them. Values on a GPU must be checked by the caller.
template <typename W, typename Array>
void check_range(const char* name, const Array& array, int64_t low, int64_t high) {
    if constexpr (on_cpu<W>) {
        const int64_t place = cpu::find_outside(array.data(), int64_t(array.size()), low, high);
        if (place < 0) return;
        throw std::invalid_argument(std::string(name) + ": got " + std::to_string(array.data()[place]) + " at place " +
                                    std::to_string(place) + ", want " + std::to_string(low) + " to " + std::to_string(high - 1));
    }
}

// Checks that offsets into a list of length `last` never decrease and differ by at most `most`.
template <typename W, typename Array>
void check_offsets(const char* name, const Array& array, int64_t last, int64_t most) {
    if constexpr (on_cpu<W>) {
        int64_t before = 0;
        for (size_t i = 0; i < array.size(); ++i) {
            const int64_t place = int64_t(array.data()[i]);
            if (place < before || place > last || (i > 0 && place - before > most))
                throw std::invalid_argument(std::string(name) + ": got " + std::to_string(place) + " after " + std::to_string(before) +
                                            ", want places that do not go back, up to " + std::to_string(last) +
                                            (most < last ? " in steps of at most " + std::to_string(most) : ""));
            before = place;
        }
    }
}

}  // namespace vision3d::arrays
