// Functions of one number, on vectors. Coefficients: scripts/fit_native_polynomials.py.
#pragma once

#include "vector.h"

namespace {

constexpr float LN2_HIGH = 0.693359375f, LN2_LOW = -2.12194440e-4f;

inline Floats exp_rest(Floats r) {  // (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2
    return 0.499999995f +
           r * (0.166665737f + r * (0.0416668609f + r * (0.00836373985f + r * 0.00139015338f)));
}

struct Power {
    Ints exponent;
    Floats mantissa;
};

// exp(x + low) = mantissa 2^exponent.
inline Power power_of_e(Floats x, Floats low = Floats{}) {
    const Floats magic = all(0x1.8p23f);  // adding it rounds to an integer, which is then in the lowest bits
    const Floats shifted = x * 1.44269504f + magic;
    const Floats n = shifted - magic;
    const Floats r = ((x - n * LN2_HIGH) - n * LN2_LOW) + low;
    return {(Ints)((Bits)shifted - (Bits)magic), 1.0f + (r + r * r * exp_rest(r))};
}

// For x <= 0; 0 below the smallest normal number.
inline Floats exp_negative(Floats x) {
    const Power power = power_of_e(x);
    const Floats y = (Floats)((Bits)power.mantissa + ((Bits)power.exponent << 23));
    return x < -87.33f ? Floats{} : y;
}

inline Floats exp(Floats x) {
    x = x < -104.0f ? all(-104.0f) : x;
    x = x > 89.0f ? all(89.0f) : x;
    const Power power = power_of_e(x);
    const Ints half = power.exponent >> 1;
    const Floats first = (Floats)((Bits)(half + 127) << 23);
    const Floats second = (Floats)((Bits)(power.exponent - half + 127) << 23);
    return power.mantissa * first * second;
}

inline Floats expm1(Floats x) {
    const Floats rest = 0.500000012f + x * (0.166666655f + x * (0.0416657959f + x * (0.00833345217f +
                        x * (0.00139819974f + x * 0.000198756291f))));
    return magnitude(x) < 0.5f ? x + x * x * rest : exp(x) - 1.0f;
}

inline Floats log1p_near(Floats f) {  // log(1 + f) for 1 + f in [sqrt(1/2), sqrt(2)]
    const Floats rest = 0.333333299f + f * (-0.250003039f + f * (0.20001201f + f * (-0.166415816f +
                        f * (0.142099456f + f * (-0.129892766f + f * (0.126556979f + f * -0.0797421626f))))));
    return f + f * f * (f * rest - 0.5f);
}

// For x > 0, subnormal ones as the smallest normal one; -inf at 0, inf at inf.
inline Floats log(Floats x) {
    const Floats y = x < 0x1p-126f ? all(0x1p-126f) : x;
    const Bits shifted = (Bits)y - 0x3f3504f3u;  // so that the mantissa starts at sqrt(1/2)
    const Floats n = __builtin_convertvector((Ints)shifted >> 23, Floats);
    const Floats f = (Floats)((shifted & 0x007fffffu) + 0x3f3504f3u) - 1.0f;
    const Floats value = n * LN2_HIGH + (n * LN2_LOW + log1p_near(f));
    const Floats ends = x == 0.0f ? all(-INF) : x;
    return (Ints)(x == 0.0f) | (Ints)(x == INF) | (Ints)(x != x) ? ends : value;
}

// For x > -1.
inline Floats log1p(Floats x) {
    const Floats u = 1.0f + x;
    const Ints near = (Ints)(x > -0.29f) & (Ints)(x < 0.41f);
    const Floats lost = (x - (u - 1.0f)) / u;
    const Floats far = log(u) + (x < 1e6f ? lost : Floats{});
    return near ? log1p_near(near ? x : Floats{}) : far;
}

// For x in [0, 1].
inline Floats log1p_of_share(Floats x) {
    const Ints above = x > 0.41421356f;
    const Floats f = above ? (x - 1.0f) * 0.5f : x;
    return log1p_near(f) + (above ? all(0.693147181f) : Floats{});
}

// What the logistic function and its logarithms have in common: e = exp(-|x|), 1 / (1 + e), log(1 + e).
struct Logistic {
    Ints positive;
    Floats e, inverse, log1p_e, x;

    explicit Logistic(Floats x) : x(x) {
        positive = x > 0.0f;
        e = exp(-magnitude(x));
        inverse = 1.0f / (1.0f + e);
        log1p_e = log1p_of_share(e);
    }
    Floats sigmoid() const { return positive ? inverse : e * inverse; }
    Floats complement() const { return positive ? e * inverse : inverse; }
    // log(1 + exp(x)) and log(1 + exp(-x)).
    Floats softplus() const { return log1p_e + (positive ? x : Floats{}); }
    Floats softplus_of_minus() const { return log1p_e - (positive ? Floats{} : x); }
};

}  // namespace
