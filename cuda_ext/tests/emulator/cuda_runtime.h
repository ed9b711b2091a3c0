#pragma once
// Stand-in for the header that nvcc includes before a .cu file: the language of the kernels, as far as cuda_ext uses it. Warp
// operations and atomics order no accesses to memory, as on a GPU: all atomics are relaxed.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda_runtime_api.h"
#include "emulator.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define threadIdx (emulator::current->thread)
#define blockIdx (emulator::current->block)
#define blockDim (emulator::current->block_size)

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { emulator::barrier(file, line, true); }
inline int __syncthreads_and(int holds, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return emulator::barrier(file, line, holds != 0);
}

namespace emulator {

template <typename To, typename From>
To bits(From from) {
    To to{};
    std::memcpy(&to, &from, sizeof(From) < sizeof(To) ? sizeof(From) : sizeof(To));
    return to;
}

inline unsigned ballot(const char* operation, unsigned mask, bool holds) {
    uint64_t values[32];
    exchange(operation, mask, holds, values);
    unsigned found = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1 && values[lane]) found |= 1u << lane;
    return found;
}

template <typename T>
T shuffle(const char* operation, unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    uint64_t values[32];
    exchange(operation, mask, bits<uint64_t>(value), values);
    if (from >= 32 || !(mask >> from & 1)) fail("a lane reads from a lane outside of the mask");
    return bits<T>(values[from]);
}

// *target = change(*target); returns the previous value.
template <typename T, typename Change>
T atomic(T* target, Change change) {
    using Word = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
    static_assert(sizeof(T) == sizeof(Word));
    hesitate();
    Word* const word = reinterpret_cast<Word*>(target);
    Word before = __atomic_load_n(word, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(word, &before, bits<Word>(T(change(bits<T>(before)))), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return bits<T>(before);
}

}  // namespace emulator

inline int __any_sync(unsigned mask, int holds) { return emulator::ballot("any", mask, holds) != 0; }
inline int __all_sync(unsigned mask, int holds) { return emulator::ballot("all", mask, holds) == mask; }
inline unsigned __ballot_sync(unsigned mask, int holds) { return emulator::ballot("ballot", mask, holds); }
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
    uint64_t values[32];
    emulator::exchange("match", mask, emulator::bits<uint64_t>(value), values);
    unsigned found = 0;
    for (unsigned lane = 0; lane < 32; ++lane)
        if (mask >> lane & 1 && values[lane] == emulator::bits<uint64_t>(value)) found |= 1u << lane;
    return found;
}
template <typename T>
T __shfl_sync(unsigned mask, T value, int from) {
    return emulator::shuffle("shfl", mask, value, unsigned(from) % 32);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int step) {
    return emulator::shuffle("shfl_xor", mask, value, threadIdx.x % 32 ^ unsigned(step));
}

template <typename T>
T atomicAdd(T* target, T value) {
    return emulator::atomic(target, [&](T before) { return before + value; });
}
template <typename T>
T atomicMin(T* target, T value) {
    return emulator::atomic(target, [&](T before) { return value < before ? value : before; });
}
template <typename T>
T atomicMax(T* target, T value) {
    return emulator::atomic(target, [&](T before) { return before < value ? value : before; });
}

inline int __popc(unsigned value) { return __builtin_popcount(value); }
inline int __ffs(unsigned value) { return __builtin_ffs(int(value)); }
inline long long __double_as_longlong(double value) { return emulator::bits<long long>(value); }
