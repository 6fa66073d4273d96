// Updates of parameters, each in one pass over memory.  The rules stand in dualnet/optim; the
// order of the operations is that of the lines there.  REAL is float or double.

typedef long long i64;

#define EACH                                              \
    i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; \
    if (i >= size) return;

extern "C" __global__ void sgd(
    const REAL* g, const REAL* p, REAL* new_p, i64 size, REAL lr, REAL decay) {
    EACH new_p[i] = p[i] - (p[i] * decay + g[i]) * lr;
}

extern "C" __global__ void momentum(
    const REAL* g, const REAL* v, const REAL* p, REAL* new_v, REAL* new_p, i64 size, REAL lr,
    REAL decay, REAL kept) {
    EACH new_v[i] = v[i] * kept + (p[i] * decay + g[i]);
    new_p[i] = p[i] - new_v[i] * lr;
}

extern "C" __global__ void nesterov(
    const REAL* g, const REAL* v, const REAL* p, REAL* new_v, REAL* new_p, i64 size, REAL lr,
    REAL decay, REAL kept) {
    EACH REAL slope = p[i] * decay + g[i];
    new_v[i] = v[i] * kept + slope;
    new_p[i] = p[i] - (new_v[i] * kept + slope) * lr;
}

// decay is part of the gradient (Adam), kept the share of the parameter that stays (AdamW); rate
// and offset hold the corrections of both moments for their start.
extern "C" __global__ void adam(
    const REAL* g, const REAL* m, const REAL* v, const REAL* p, REAL* new_m, REAL* new_v,
    REAL* new_p, i64 size, REAL rate, REAL offset, REAL decay, REAL kept, REAL beta1, REAL rest1,
    REAL beta2, REAL rest2) {
    EACH REAL slope = p[i] * decay + g[i];
    new_m[i] = m[i] * beta1 + slope * rest1;
    new_v[i] = v[i] * beta2 + slope * slope * rest2;
    new_p[i] = p[i] * kept - new_m[i] / (sqrt(new_v[i]) + offset) * rate;
}
