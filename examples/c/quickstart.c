/* SPDX-License-Identifier: Apache-2.0
 * y = x * transpose(w) with w in MXFP8. Build: cc quickstart.c $(pkg-config --cflags --libs breccia) */
#include <breccia/breccia.h>
#include <stdio.h>

int main(void) {
    float x[2 * 64], w[3 * 64], y[2 * 3];
    for (int i = 0; i < 2 * 64; i++) x[i] = (float)(i % 5 - 2);
    for (int i = 0; i < 3 * 64; i++) w[i] = 0.01f * (float)(i % 7 - 3);
    brc_array input = brc_array_of(BRC_F32, 2, (int64_t[]){2, 64}, x);
    brc_array weight = brc_array_of(BRC_F32, 2, (int64_t[]){3, 64}, w);
    brc_array output = brc_array_of(BRC_F32, 2, (int64_t[]){2, 3}, y);
    brc_owned scaled = {0};
    brc_product product = {sizeof product, 0, {NULL, &input, 0}, {&scaled.tensor, NULL, 1}, NULL, &output, NULL};
    brc_recipe recipe;
    brc_error err;
    if (brc_recipe_parse("mxfp8", &recipe, &err) || brc_cast_new(&weight, &recipe, NULL, NULL, &scaled, NULL, &err) ||
        brc_matmul(&product, &err))
        return fprintf(stderr, "quickstart: %s\n", err.text), brc_status_exit(err.status);
    printf("%.2f bits a weight\n", brc_tensor_bits(&scaled.tensor));
    for (int i = 0; i < 2; i++)
        printf("%8.4f %8.4f %8.4f\n", (double)y[3 * i], (double)y[3 * i + 1], (double)y[3 * i + 2]);
    brc_release(&scaled);
    return 0;
}
