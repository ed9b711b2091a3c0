#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <initializer_list>
#include <optional>
#include <stdexcept>
#include <string>

// Contiguous arrays as kernels take them. Bind every argument with noconvert: a silent copy of an output is lost.
//
// A target W says where a bound function runs: W::Scalar and W::Device choose its overload, W(device, stream) is what the
// kernel's driver takes as `where`. Every bound function ends with the arguments `device` and `stream`, read on a GPU alone.
namespace vision3d::arrays {

namespace nb = nanobind;
template <typename W, int N, typename T = typename W::Scalar>
using In = nb::ndarray<const T, nb::ndim<N>, nb::c_contig, typename W::Device>;
template <typename W, int N, typename T = typename W::Scalar>
using Out = nb::ndarray<T, nb::ndim<N>, nb::c_contig, typename W::Device>;
template <typename W, int N, typename T = typename W::Scalar> using MaybeIn = std::optional<In<W, N, T>>;
template <typename W, int N, typename T = typename W::Scalar> using MaybeOut = std::optional<Out<W, N, T>>;

// A target on the CPU, whose functions take `Tag` as where they run.
template <typename T, typename Tag = int>
struct CpuTarget {
    using Scalar = T;
    using Device = nb::device::cpu;
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

}  // namespace vision3d::arrays
