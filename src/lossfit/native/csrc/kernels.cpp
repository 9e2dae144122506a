// All that is compiled once for each instruction set. Everything here is in an unnamed namespace but the entry, so
// that no linker can take a function from the object of another set.

#include "losses.h"

namespace {

template <class T>
Status work_on(const Request& request, ParallelFor parallel_for) {
    Work<T> work(request);
    return work.run(parallel_for);
}

// Single functions, for tests of their accuracy: `link` says which, `scores` and `loss` are `rows` float32 each.
Status maths(const Request& request) {
    const float* from = (const float*)request.scores;
    for (int64_t i = 0; i < request.rows; i += W) {
        const int count = request.rows - i < W ? (int)(request.rows - i) : W;
        const Floats x = load_some(from + i, count, 0.0f);
        Floats y;
        switch (request.link) {
            case 0: y = exp_negative(x); break;
            case 1: y = exp(x); break;
            case 2: y = expm1(x); break;
            case 3: y = log(x); break;
            case 4: y = log1p(x); break;
            case 5: y = log1p_of_share(x); break;
            case 6: y = Logistic(x).sigmoid(); break;
            case 7: y = Logistic(x).softplus(); break;
            default: return UNKNOWN;
        }
        store_some(request.loss + i, y, count);
    }
    return DONE;
}

}  // namespace

extern "C" int32_t ENTRY(const Request* request, ParallelFor parallel_for) {
    if (request->operation == MATHS) return maths(*request);
    if (request->rows < 1 || request->classes < 1 || request->inner < 1) return UNKNOWN;
    switch (request->dtype) {
        case FLOAT32: return work_on<float>(*request, parallel_for);
        case BFLOAT16: return work_on<BFloat16>(*request, parallel_for);
        case FLOAT16: return work_on<Float16>(*request, parallel_for);
        default: return UNKNOWN;
    }
}
