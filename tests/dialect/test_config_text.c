/* SPDX-License-Identifier: Apache-2.0
 * One member of config.json comes or goes, every other byte stays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "dialect/config_text.h"

#include <string.h>

static const struct {
    const char *text, *without, *with;
} cases[] = {
    {"{}", "{}", "{\n  \"q\": 7\n}"},
    {" {\n}\n", " {\n}\n", " {\n  \"q\": 7\n\n}\n"},
    {"{\"a\": 1}", "{\"a\": 1}", "{\"a\": 1,\n  \"q\": 7}"},
    {"{\n  \"a\": 1\n}\n", "{\n  \"a\": 1\n}\n", "{\n  \"a\": 1,\n  \"q\": 7\n}\n"},
    {"{\"q\": {\"x\": [1, \"}\"]}}", "{}", "{\"q\": 7}"},
    {"{\"q\": 1, \"a\": 2}", "{\"a\": 2}", "{\"q\": 7, \"a\": 2}"},
    {"{\"a\": 2, \"q\": 1 }", "{\"a\": 2 }", "{\"a\": 2, \"q\": 7 }"},
    {"{\"a\": 2, \"q\": null, \"b\": 3}", "{\"a\": 2, \"b\": 3}", "{\"a\": 2, \"q\": 7, \"b\": 3}"},
    {"{\"a\": Infinity, \"b\": 1e-12, \"q\": 12345678901234567890123, \"c\": \"\\\"q\\\": 1\"}",
     "{\"a\": Infinity, \"b\": 1e-12, \"c\": \"\\\"q\\\": 1\"}",
     "{\"a\": Infinity, \"b\": 1e-12, \"q\": 7, \"c\": \"\\\"q\\\": 1\"}"},
    {"{\"a\": {\"q\": 1}, \"qq\": 2}", "{\"a\": {\"q\": 1}, \"qq\": 2}", "{\"a\": {\"q\": 1}, \"qq\": 2,\n  \"q\": 7}"},
};

static void test_one_member(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        brci_pool pool = {0};
        assert_string_equal(brci_config_without(&pool, cases[i].text, "q"), cases[i].without);
        assert_string_equal(brci_config_with(&pool, cases[i].text, "q", "7"), cases[i].with);
        brci_pool_free(&pool);
    }
}

static void test_lines_of_a_value_are_indented(void **state) {
    brci_pool pool = {0};
    (void)state;
    assert_string_equal(brci_config_with(&pool, "{\n  \"a\": 1\n}\n", "q", "{\n  \"x\": [\n    1\n  ]\n}"),
                        "{\n  \"a\": 1,\n  \"q\": {\n    \"x\": [\n      1\n    ]\n  }\n}\n");
    brci_pool_free(&pool);
}

static void test_what_cannot_be_edited(void **state) {
    static const char *const texts[] = {
        "",       "[]",          "{", "{\"q\"", "{\"q\": ", "{\"q\": 1", "{\"q\": 1} x", "{\"q\": 1, \"q\": 2}",
        "{q: 1}", "{\"q\": \"1}"};
    const char *value;
    size_t length;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        brci_pool pool = {0};
        assert_null(brci_config_without(&pool, texts[i], "q"));
        assert_null(brci_config_with(&pool, texts[i], "q", "7"));
        assert_int_equal(brci_config_member(texts[i], "q", &value, &length), 0);
        brci_pool_free(&pool);
    }
}

static void test_the_value_is_found(void **state) {
    const char *value;
    size_t length;
    (void)state;
    assert_int_equal(brci_config_member("{\"a\": 1, \"q\" : [1, {}] \n}", "q", &value, &length), 1);
    assert_int_equal(length, 7);
    assert_memory_equal(value, "[1, {}]", 7);
    assert_int_equal(brci_config_member("{\"a\": 1}", "q", &value, &length), 1);
    assert_null(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_member),
        cmocka_unit_test(test_lines_of_a_value_are_indented),
        cmocka_unit_test(test_what_cannot_be_edited),
        cmocka_unit_test(test_the_value_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
