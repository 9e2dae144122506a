// Vectors of one register, by the compilers' vector extensions: their arithmetic is lane by lane, comparisons give -1
// or 0, and a ?: picks lane by lane.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace {

// Compiled once, where several types of scores share a function that is long.
#define ONCE [[gnu::noinline]]

#if defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint32_t Bits __attribute__((vector_size(4 * W)));
typedef uint16_t Halves __attribute__((vector_size(2 * W)));
typedef double Doubles __attribute__((vector_size(8 * W)));

constexpr float INF = __builtin_inff();
constexpr float LARGEST = 3.4028234e38f;
constexpr float TINY = 1.17549435e-38f;

inline Floats all(float x) { return x - Floats{}; }

inline Floats load(const float* p) {
    Floats v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline void store(float* p, Floats v) { std::memcpy(p, &v, sizeof v); }

// Where one is not a number, these return the second.
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }

inline Floats magnitude(Floats x) { return (Floats)((Bits)x & 0x7fffffffu); }

inline float sum(Floats v) {
    float total[W];
    store(total, v);
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++) total[i] += total[i + half];
    return total[0];
}

inline double sum(Doubles v) {
    double total[W];
    std::memcpy(total, &v, sizeof v);
    for (int half = W / 2; half; half /= 2)
        for (int i = 0; i < half; i++) total[i] += total[i + half];
    return total[0];
}

inline bool any(Ints mask) {
    uint64_t lanes[W / 2], joined = 0;
    std::memcpy(lanes, &mask, sizeof mask);
    for (uint64_t two : lanes) joined |= two;
    return joined != 0;
}

// bfloat16: the upper half of a float32.
struct BFloat16 {
    uint16_t bits;
};

struct Float16 {
    uint16_t bits;
};

inline Floats load(const BFloat16* p) {
    Halves v;
    std::memcpy(&v, p, sizeof v);
    return (Floats)(__builtin_convertvector(v, Bits) << 16);
}

inline void store(BFloat16* p, Floats x) {
    const Bits bits = (Bits)x;
    Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
    rounded = (Bits)(x != x) ? (bits >> 16) | 0x40u : rounded;
    const Halves v = __builtin_convertvector(rounded, Halves);
    std::memcpy(p, &v, sizeof v);
}

inline Floats load(const Float16* p) {
#if defined(__F16C__)
    __m128i v;
    std::memcpy(&v, p, sizeof v);
    return (Floats)_mm256_cvtph_ps(v);
#else
    Halves v;
    std::memcpy(&v, p, sizeof v);
    const Bits bits = __builtin_convertvector(v, Bits);
    const Bits magnitude = (bits & 0x7fffu) << 13;
    Bits x = (Bits)((Floats)magnitude * 0x1p112f);
    x |= (Bits)(magnitude >= 0x0f800000u) & 0x7f800000u;
    return (Floats)(x | (bits & 0x8000u) << 16);
#endif
}

inline void store(Float16* p, Floats x) {
#if defined(__F16C__)
    const __m128i v = _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT);
    std::memcpy(p, &v, sizeof v);
#else
    const Bits sign = (Bits)x & 0x80000000u, bits = (Bits)x ^ sign;
    // Subnormal halves come out of an addition that leaves them in the lowest bits; the others are rounded by hand.
    const Bits small = (Bits)((Floats)bits + 0.5f) - 0x3f000000u;
    const Bits normal = (bits + 0xfffu + ((bits >> 13) & 1u) - (112u << 23)) >> 13;
    Bits half = (Bits)(bits < 0x38800000u) ? small : normal;
    half = (Bits)(bits >= 0x47800000u) ? 0x7c00u - Bits{} : half;
    half = (Bits)(bits > 0x7f800000u) ? 0x7e00u - Bits{} : half;
    const Halves v = __builtin_convertvector(half | sign >> 16, Halves);
    std::memcpy(p, &v, sizeof v);
#endif
}

// The first `count` lanes; the others are `fill`.
template <class T>
inline Floats load_some(const T* p, int count, float fill) {
    T padded[W] = {};
    std::memcpy(padded, p, count * sizeof(T));
    Floats v = load(padded);
    for (int i = count; i < W; i++) v[i] = fill;
    return v;
}

template <class T>
inline void store_some(T* p, Floats v, int count) {
    T padded[W];
    store(padded, v);
    std::memcpy(p, padded, count * sizeof(T));
}

}  // namespace
