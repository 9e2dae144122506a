// What Python hands over: fields of 8 bytes in the order of `lossfit.native.library`.
#pragma once

#include <cstdint>

constexpr int NUMBERS = 8;

// A hyper-parameter: a number, or one in float32 for each row (step 1) or for all (step 0).
struct Parameter {
    double number;
    const float* each;
    int64_t step;
};

struct Request {
    // What each call has of its own.
    int64_t operation, dtype;
    // scores[n * row_stride + k * inner + j]: row n * inner + j, class k. Rows in all, of all n and j.
    int64_t rows, classes, inner, row_stride;
    const void* scores;
    const void* target;  // the classes in int64
    float* loss;       // one number, or one for each row
    void* gradient;    // contiguous, of the type of the scores; null where none is wanted
    float* to_number;  // with the gradient: that of the first hyper-parameter, for each row; for EXACT alone
    double upstream;
    const float* upstream_rows;
    // What many calls may share.
    const uint8_t* valid;  // which rows count; null for those without `ignore_index`
    int64_t ignore_index;
    int64_t hard;
    int64_t link, numbers;
    Parameter number[NUMBERS];
    Parameter label_smoothing, temperature;
    const float *class_weight, *sample_weight, *log_prior;
    int64_t reduction;  // 0 none, 1 mean, 2 sum
    double divisor;     // of the mean; 0 where the weights are to be counted
    // For the gap: `lossfit.gaps.types.RowStats`, each for each row or null; with a gradient, `Upstream`.
    float *own, *top, *log_sum, *mean, *among;
    uint8_t* hit;
    const float *to_own, *to_log_sum, *to_mean, *to_among;
    const float* mean_weight;
    // For multi-label losses, whose `target` are labels in [0, 1] (rows, classes) in float32: which of them are known
    // (null for all), and the weights of labels of 1; `class_weight` is that of all labels.
    const uint8_t* known;
    const float* positive_weight;
};

// PyTorch's thread pool: begin, end, grain size, function, its context.
typedef int32_t (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);

enum Operation { LOSS, GAP, GAP_GRADIENT, MULTI_LABEL_LOSS, MATHS };
enum Dtype { FLOAT32, BFLOAT16, FLOAT16 };
enum Reduction { NONE, MEAN, SUM };
enum Status { DONE, OUT_OF_RANGE, OUT_OF_MEMORY, UNKNOWN };
