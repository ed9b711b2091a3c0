#pragma once
#include <cstdint>
#include <memory>
#include <type_traits>

namespace vision3d::cpu {

// Growing uninitialized memory, aligned to a cache line.
template <typename T>
class Scratch {
    static_assert(std::is_trivially_copyable_v<T> && std::is_trivially_destructible_v<T>);

  public:
    // Growing discards the content.
    void resize(int64_t count) {
        if (count <= capacity_) return;
        capacity_ = count + count / 4;
        memory_.reset(new unsigned char[capacity_ * sizeof(T) + 63]);
        data_ = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory_.get()) + 63) & ~uintptr_t(63));
    }

    T* data() { return data_; }
    const T* data() const { return data_; }
    T& operator[](int64_t i) { return data_[i]; }
    const T& operator[](int64_t i) const { return data_[i]; }

  private:
    std::unique_ptr<unsigned char[]> memory_;
    T* data_ = nullptr;
    int64_t capacity_ = 0;
};

}  // namespace vision3d::cpu
