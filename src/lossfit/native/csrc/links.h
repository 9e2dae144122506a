// From the gap d to the loss of a row and its pull -dl/dd: the formulas of lossfit.losses.single_label.
#pragma once

#include "maths.h"

namespace {

enum Link {
    CROSS_ENTROPY,
    EXPECTED_ACCURACY,
    GAMMA_CROSS_ENTROPY,
    FLOORED_GAMMA_CROSS_ENTROPY,
    FOCAL,
    POLY,
    GENERALIZED_CROSS_ENTROPY,
    SYMMETRIC_CROSS_ENTROPY,
    SQUARED,
    EXPONENTIAL,
    LOGISTIC_MARGIN,
    EXPONENTIAL_MARGIN,
    HINGE,
    SQUARED_HINGE,
    SMOOTH_ACCURACY,
    EXACT,  // no function of the gap: see exact.h
    EXACT_LOG,
};

struct Linked {
    Floats value, pull;
};

// A hyper-parameter in the lanes, and 1 minus it, which a number in float64 gives to all digits.
struct Number {
    Floats value, rest;
};

constexpr float NEGLIGIBLE = 1e-20f;  // where log1p(x) / x and its like are 1, yet still far from underflow

inline Floats at_most_largest(Floats x) { return x > LARGEST ? all(LARGEST) : x; }

inline Floats odds_against(Floats d) { return at_most_largest(exp(-d)); }

inline Linked gamma_cross_entropy(const Logistic& of, Number gamma) {
    const Floats odds = odds_against(of.x);
    const Floats damped = 1.0f / (1.0f + gamma.value * odds), y = odds * damped;
    Floats x = gamma.rest * y;
    x = x < NEGLIGIBLE ? all(NEGLIGIBLE) : x;
    const Floats value = y * (log1p(x) / x);
    return {gamma.value == 0.0f ? of.softplus_of_minus() : value, of.complement() * damped};
}

inline Linked focal(const Logistic& of, Floats gamma) {
    const Floats ce = of.softplus_of_minus(), weight = exp(-gamma * at_most_largest(of.softplus()));
    return {weight * ce, weight * (of.complement() + gamma * (at_most_largest(ce) * of.sigmoid()))};
}

inline Linked poly(const Logistic& of, const Number* numbers, int count) {
    const Floats miss = of.complement(), p = of.sigmoid();
    Floats value = numbers[0].value * of.softplus_of_minus(), pull = numbers[0].value * miss, power = miss;
    for (int j = 1; j < count; j++) {
        const Floats term = numbers[j].value * power;
        value += term;
        pull += (float)j * term * p;
        power *= miss;
    }
    return {value, pull};
}

inline Linked generalized_cross_entropy(const Logistic& of, Floats q) {
    const Floats ce = at_most_largest(of.softplus_of_minus()), x = q * ce;
    const Floats minus = x < NEGLIGIBLE ? all(-NEGLIGIBLE) : -x;
    return {ce * (expm1(minus) / minus), exp(-x) * of.complement()};
}

ONCE Linked link(int64_t name, Floats d, const Number* numbers, int count) {
    const Floats first = numbers[0].value;
    switch (name) {
        case LOGISTIC_MARGIN:
            d -= first;
            break;
        case SMOOTH_ACCURACY:
            d *= first;
            break;
        case EXPONENTIAL_MARGIN: {
            const Floats value = exp(-first * d);
            return {value, at_most_largest(first * value)};
        }
        case HINGE: {
            const Floats lack = first - d;
            return {lack < 0.0f ? Floats{} : lack, lack > 0.0f ? all(1.0f) : Floats{}};
        }
        case SQUARED_HINGE: {
            const Floats lack = first - d < 0.0f ? Floats{} : first - d;
            return {lack * lack, at_most_largest(2.0f * lack)};
        }
        default:
            break;
    }
    const Logistic of(d);
    const Floats miss = of.complement();
    switch (name) {
        case EXPECTED_ACCURACY:
            return {miss, miss * of.sigmoid()};
        case SMOOTH_ACCURACY:
            return {miss, first * (miss * of.sigmoid())};
        case GAMMA_CROSS_ENTROPY:
            return gamma_cross_entropy(of, numbers[0]);
        case FLOORED_GAMMA_CROSS_ENTROPY: {
            const Floats weight = larger(1.0f / (1.0f + first * odds_against(d)), numbers[1].value);
            return {weight * of.softplus_of_minus(), weight * miss};
        }
        case FOCAL:
            return focal(of, first);
        case POLY:
            return poly(of, numbers, count);
        case GENERALIZED_CROSS_ENTROPY:
            return generalized_cross_entropy(of, first);
        case SYMMETRIC_CROSS_ENTROPY: {
            const Floats reverse = numbers[1].value * numbers[2].value;
            return {first * of.softplus_of_minus() - reverse * miss, miss * (first - reverse * of.sigmoid())};
        }
        case SQUARED:
            return {miss * miss, 2.0f * (miss * miss) * of.sigmoid()};
        case EXPONENTIAL: {
            const Floats value = exp(-of.sigmoid());
            return {value, value * of.sigmoid() * miss};
        }
        default:  // cross-entropy, of a gap with a margin too
            return {of.softplus_of_minus(), miss};
    }
}

}  // namespace
