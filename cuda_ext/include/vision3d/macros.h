#pragma once
// Maths for both compilers: plain C++ for the CPU loops, host and device code for nvcc.
#if defined(__CUDACC__)
#define V3D_HD __host__ __device__ __forceinline__
#define V3D_HD_MEMBER __host__ __device__ __forceinline__
#else
// Internal linkage: the same header is compiled for several instruction sets, and the linker must not merge them.
#define V3D_HD [[maybe_unused]] static inline __attribute__((always_inline))
#define V3D_HD_MEMBER inline __attribute__((always_inline))
#endif
