/* SPDX-License-Identifier: Apache-2.0
 * config.json is edited as text: one member of its object comes or goes, every other byte stays. Model configurations
 * hold what a JSON library would reword or refuse (1e-12, Infinity, integers of 70 bits). */
#ifndef BRCI_CONFIG_TEXT_H
#define BRCI_CONFIG_TEXT_H

#include "dialect/pool.h"

/* Where the value of a member of the outermost object stands. */
typedef struct brci_member {
    size_t first, key, value, value_end, end; /* byte offsets: after '{' or ',', the key, the value, the next ',' or '}' */
    int found, last, only;                    /* last: no member follows; only: no member precedes either */
} brci_member;

/* 0 = the text is not one JSON object, or has the member twice. The values of other members are not looked into. */
int brci_config_member(const char *text, const char *key, brci_member *member);
/* The text without a member (the same text if it is not there); NULL if it cannot be edited. */
const char *brci_config_without(brci_pool *pool, const char *text, const char *key);
/* The text with a member set to a JSON value; NULL if it cannot be edited. */
const char *brci_config_with(brci_pool *pool, const char *text, const char *key, const char *value);

#endif
