#pragma once
#include <array>
#include <sstream>
#include <tuple>
#include <utility>
#include "bindings/arrays.h"

// Binds a function with the names of its arguments, one word each; conversion follows from the types. No array is converted (a
// silent copy of an output would be lost), and optional ones may be None. The target at the end of most functions has no names.
namespace vision3d::arrays {

template <typename T> struct Taken {
    static constexpr bool is_array = false, is_optional = false;
};
template <typename... Options> struct Taken<nb::ndarray<Options...>> {
    static constexpr bool is_array = true, is_optional = false;
};
template <typename T> struct Taken<std::optional<T>> {
    static constexpr bool is_array = Taken<T>::is_array, is_optional = true;
};

template <typename Function> struct Types : Types<decltype(&Function::operator())> {};
template <typename Class, typename Result, typename... Arguments> struct Types<Result (Class::*)(Arguments...) const> {
    using Tuple = std::tuple<std::decay_t<Arguments>...>;
    static constexpr size_t count = sizeof...(Arguments);
    static constexpr bool has_target = std::is_same_v<std::tuple_element_t<count - 1, Tuple>, uint64_t>;
};

// The return type determines how the argument is converted.
template <typename T>
auto argument(const std::string& name) {
    nb::arg plain(name.c_str());
    if constexpr (Taken<T>::is_array && Taken<T>::is_optional)
        return plain.noconvert().none();
    else if constexpr (Taken<T>::is_array)
        return plain.noconvert();
    else if constexpr (Taken<T>::is_optional)
        return plain.none();
    else
        return plain;
}

// The words of a text; they outlive the binding of one function.
template <size_t count>
std::array<std::string, count> words(const char* function, const char* text) {
    std::array<std::string, count> found;
    std::istringstream stream(text);
    size_t i = 0;
    for (std::string word; stream >> word; ++i)
        if (i < count) found[i] = word;
    if (i != count) throw std::logic_error(std::string(function) + ": got " + std::to_string(i) + " names, want " + std::to_string(count));
    return found;
}

template <typename Tuple, size_t skip, size_t count, size_t... i>
auto arguments(const std::array<std::string, count>& names, std::index_sequence<i...>) {
    return std::make_tuple(argument<std::tuple_element_t<skip + i, Tuple>>(names[i])...);
}

// Calls `bind(nb::arg...)` with the arguments of a function, without the first `skip` and without its target.
template <size_t skip, typename Function, typename Bind>
void with_arguments(const char* name, const char* names, const Function&, Bind bind) {
    using T = Types<Function>;
    constexpr size_t count = T::count - skip - (T::has_target ? 2 : 0);
    const auto split = words<count>(name, names);
    std::apply(bind, arguments<typename T::Tuple, skip>(split, std::make_index_sequence<count>()));
}

template <typename Function>
void define(nb::module_& m, const char* name, const char* names, Function function) {
    with_arguments<0>(name, names, function, [&](auto... arguments) {
        if constexpr (Types<Function>::has_target)
            m.def(name, function, arguments..., nb::arg("device") = 0, nb::arg("stream") = 0);
        else
            m.def(name, function, arguments...);
    });
}

}  // namespace vision3d::arrays
