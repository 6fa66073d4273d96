// Updates of parameters, each in one pass over memory.  The rules are in dualnet/optim, and the
// order of the operations is the same as in the lines there.  REAL is float or double.
//
// The numbers after the size are arguments, unless `later` is no null pointer: then they are read
// from there.  A recorded step is repeated with the same arguments but with other numbers.

typedef long long i64;

#define EACH                                              \
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

extern "C" __global__ void sgd(
    const REAL* g, const REAL* p, REAL* new_p, i64 size, REAL lr, REAL decay, const REAL* later) {
    EACH if (later) lr = later[0], decay = later[1];
    new_p[i] = p[i] - (p[i] * decay + g[i]) * lr;
}

extern "C" __global__ void momentum(
    const REAL* g, const REAL* v, const REAL* p, REAL* new_v, REAL* new_p, i64 size, REAL lr,
    REAL decay, REAL kept, const REAL* later) {
    EACH if (later) lr = later[0], decay = later[1], kept = later[2];
    new_v[i] = v[i] * kept + (p[i] * decay + g[i]);
    new_p[i] = p[i] - new_v[i] * lr;
}

extern "C" __global__ void nesterov(
    const REAL* g, const REAL* v, const REAL* p, REAL* new_v, REAL* new_p, i64 size, REAL lr,
    REAL decay, REAL kept, const REAL* later) {
    EACH if (later) lr = later[0], decay = later[1], kept = later[2];
    REAL slope = p[i] * decay + g[i];
    new_v[i] = v[i] * kept + slope;
    new_p[i] = p[i] - (new_v[i] * kept + slope) * lr;
}

// With Adam, decay times the parameter is added to the gradient.  With AdamW, kept is the share of
// the parameter that stays.  rate and offset contain the bias corrections of both moments.
extern "C" __global__ void adam(
    const REAL* g, const REAL* m, const REAL* v, const REAL* p, REAL* new_m, REAL* new_v,
    REAL* new_p, i64 size, REAL rate, REAL offset, REAL decay, REAL kept, REAL beta1, REAL rest1,
    REAL beta2, REAL rest2, const REAL* later) {
    EACH if (later) {
        rate = later[0], offset = later[1], decay = later[2], kept = later[3];
        beta1 = later[4], rest1 = later[5], beta2 = later[6], rest2 = later[7];
    }
    REAL slope = p[i] * decay + g[i];
    new_m[i] = m[i] * beta1 + slope * rest1;
    new_v[i] = v[i] * beta2 + slope * slope * rest2;
    new_p[i] = p[i] * kept - new_m[i] / (sqrt(new_v[i]) + offset) * rate;
}
