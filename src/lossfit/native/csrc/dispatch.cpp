// The entries of the library, and the choice of the instruction set.

#include "request.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

// Raised whenever `Request` changes: Python refuses a library of another layout.
constexpr int32_t VERSION = 4;

extern "C" {

static ParallelFor parallel_for = nullptr;

int32_t lossfit_base(const Request*, ParallelFor);
#if defined(__x86_64__)
int32_t lossfit_avx2(const Request*, ParallelFor);

static uint64_t enabled_registers() {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

// x86-64-v3, by what the processor has and the system keeps. (The compilers' own test for the level fails in zig.)
static bool has_avx2() {
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return false;
    constexpr uint32_t FMA = 1u << 12, MOVBE = 1u << 22, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29;
    constexpr uint32_t first = FMA | MOVBE | OSXSAVE | AVX | F16C;
    if ((c & first) != first || (enabled_registers() & 6) != 6) return false;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr uint32_t BMI1 = 1u << 3, AVX2 = 1u << 5, BMI2 = 1u << 8;
    constexpr uint32_t second = BMI1 | AVX2 | BMI2;
    if ((b & second) != second) return false;
    constexpr uint32_t LZCNT = 1u << 5;
    return __get_cpuid(0x80000001u, &a, &b, &c, &d) && (c & LZCNT);
}
#endif

__attribute__((visibility("default"))) int32_t lossfit_version() { return VERSION; }

// The levels that this processor runs: 1 for the least that the library needs, 2 where it has AVX2 as well.
__attribute__((visibility("default"))) int32_t lossfit_levels() {
#if defined(__x86_64__)
    return has_avx2() ? 2 : 1;
#else
    return 1;
#endif
}

__attribute__((visibility("default"))) void lossfit_use_threads(ParallelFor function) { parallel_for = function; }

__attribute__((visibility("default"))) int32_t lossfit_run(const Request* request, int32_t level) {
#if defined(__x86_64__)
    if (level >= 2) return lossfit_avx2(request, parallel_for);
#endif
    return lossfit_base(request, parallel_for);
}
}
